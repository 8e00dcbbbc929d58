"""Scorers of others: a function in a file, a function in Python, and those of installed packages."""

import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.installed import entry_points, load
from cachedeval.engine.node import Call, Node
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.judge import asked
from cachedeval.evals.judging.scorers import Scorer, ScorerError
from cachedeval.evals.judging.verdict import Verdict

if TYPE_CHECKING:
    from cachedeval.evals.judging.judge import Judge

__all__ = [
    "GROUP",
    "file_and_function",
    "installed",
    "open_file",
    "open_function",
    "open_installed",
]

GROUP = "cachedeval.scorers"
"""The entry-point group of scorers and judges."""

_TAKES = ("question", "reference", "response")
_NODE = "custom_scorer"
_HAS_KEYWORDS = 0x08
_IS_ASYNC = 0x80


def file_and_function(name: str) -> tuple[Path, str] | None:
    """Return file and function of a name such as `path/to/file.py:score`; None if it has another form.

    Raises:
        InputError: it names a file, and no function of it.
    """
    if name.endswith(".py"):
        raise InputError(f"judge {name}: name the function too, as in {name}:score")
    path, _, function = name.rpartition(":")
    return (Path(path), function.strip()) if path.endswith(".py") else None


def open_file(path: Path, function: str) -> Scorer:
    """Return the scorer that is a function of a file.

    The file is imported as a module, with its folder among those that it can import from.

    Raises:
        InputError: the file or the function cannot be found or imported, or is no scorer.
    """
    name = f"{path.name}:{function}"
    found = getattr(_imported(path, name), function, None)
    if found is None:
        raise InputError(f"judge {name}: there is no function {function} in {path}")
    return open_function(found, name)


def open_function(function: Any, name: str | None = None) -> Scorer:
    """Return the scorer that is a function, or a node.

    Its step is keyed by the function's source and by what it reads of its module, or for a node with
    a version by that.

    Args:
        function: takes `question`, `reference` and `response` by name, or some of them, and returns a
            number from 0 to 1, or several in a dict.
        name: as reports call it; the function's if not given.

    Raises:
        InputError: it is no function, or takes other arguments.
    """
    plain = function.function if isinstance(function, Node) else function
    if not isinstance(plain, FunctionType):
        raise InputError(
            f"judge {name or repr(function)}: is a {type(plain).__name__}; a scorer is a function, made "
            "with def"
        )
    name = name or plain.__name__
    step = _step(plain, _taken(plain, name), function if isinstance(function, Node) else None)

    def bind(question: Question, answer: Call[Generation]) -> Call[Verdict]:
        return step(question=asked(question), reference=question.reference, response=answer)

    # Bound once, so that a function whose key cannot be told is refused at once, and that its
    # source is read before somebody edits the file.
    step(question="", reference=None, response=Generation(""))
    return Scorer(name, step, bind, _mean)


def installed() -> list[str]:
    """Return the names of the scorers and judges of installed packages."""
    return sorted(entry_points(GROUP))


def open_installed(name: str) -> "Scorer | Judge | None":
    """Return the scorer or judge of an installed package; None if there is none of that name.

    The entry point is a scorer function, or a function of one argument: what follows the name and a
    colon. The latter returns a scorer function or a `Judge`.

    Raises:
        InputError: it cannot be imported, or is neither.
    """
    entry, _, given = name.strip().partition(":")
    reference = entry_points(GROUP).get(entry)
    if reference is None:
        return None
    try:
        found = load(reference)
        if not _is_scorer(found):
            found = found(given)
    except CachedevalError:
        raise
    except Exception as error:
        raise InputError(
            f"judge {name}: the entry point {reference} cannot be used: "
            f"{type(error).__name__}: {error}"
        ) from error
    if _is_scorer(found):
        return open_function(found, name.strip())
    if not hasattr(found, "prepare"):
        raise InputError(
            f"judge {name}: {reference} is neither a function of {', '.join(_TAKES)}, nor returns "
            "one or a judge"
        )
    return found  # type: ignore[no-any-return]


def _is_scorer(found: Any) -> bool:
    plain = found.function if isinstance(found, Node) else found
    if not isinstance(plain, FunctionType):
        return False
    code = plain.__code__
    return bool({*_TAKES} & {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]})


def _taken(function: FunctionType, name: str) -> tuple[str, ...]:
    """Return which of the inputs a function takes.

    Raises:
        InputError: it takes others, or none of them.
    """
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    optional = {*names[code.co_argcount - len(function.__defaults__ or ()) : code.co_argcount]}
    optional |= {*(function.__kwdefaults__ or ())}
    others = [each for each in names if each not in _TAKES and each not in optional]
    taken = _TAKES if code.co_flags & _HAS_KEYWORDS else tuple(n for n in _TAKES if n in names)
    if others or not taken or code.co_posonlyargcount:
        raise InputError(
            f"judge {name}: takes ({', '.join(names)}); a scorer takes question, reference and "
            "response by these names, or some of them"
        )
    return taken


def _step(function: FunctionType, taken: tuple[str, ...], given: Node[Any] | None) -> Node[Verdict]:
    """Return the step that calls a function; its key holds the function's source."""
    version = None if given is None else given.version

    # Three parameters and a closure: `function` and `taken` become part of the key.
    if function.__code__.co_flags & _IS_ASYNC:

        async def score_async(
            question: str, reference: str | None, response: Generation
        ) -> Verdict:
            inputs = {"question": question, "reference": reference, "response": response.text}
            try:
                return verdict_of(await function(**{name: inputs[name] for name in taken}))
            except Exception as error:
                raise _failure(function, error) from error

        return Node(score_async, version=version, name=_NODE)

    def score(question: str, reference: str | None, response: Generation) -> Verdict:
        inputs = {"question": question, "reference": reference, "response": response.text}
        try:
            return verdict_of(function(**{name: inputs[name] for name in taken}))
        except Exception as error:
            raise _failure(function, error) from error

    return Node(score, version=version, name=_NODE)


def verdict_of(returned: Any) -> Verdict:
    """Return the verdict that a scorer's result is.

    Raises:
        ValueError: it is neither a number from 0 to 1 nor a dict of them.
    """
    scores = returned if isinstance(returned, Mapping) else {"score": returned}
    if not scores:
        raise ValueError("returned an empty dict: a scorer returns at least one score")
    return Verdict({_named(name): _number(score) for name, score in scores.items()})


def _named(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"returned a dict with the key {name!r}: keys are names")  # noqa: TRY004
    return name


def _number(score: Any) -> float:
    try:
        found = float(score) if not isinstance(score, str | bytes) else None
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or not 0 <= found <= 1:
        raise ValueError(f"returned {score!r}: a scorer returns a number from 0 to 1")
    return found


def _failure(function: FunctionType, error: Exception) -> ScorerError:
    """Return the error of an item: what the scorer raised, and on which line of its file."""
    file = function.__code__.co_filename
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = "" if line is None else f" (line {line})"
    what = (
        str(error)
        if isinstance(error, ValueError) and line is None
        else (f"raised {type(error).__name__}: {error}")
    )
    return ScorerError(f"{Path(file).name}:{function.__qualname__} {what}{where}")


def _mean(scores: Mapping[str, float]) -> float:
    from math import fsum  # noqa: PLC0415

    return fsum(scores.values()) / len(scores)


_modules: dict[tuple[str, int], ModuleType] = {}


def _imported(path: Path, name: str) -> ModuleType:
    """Return the module of a file, imported once for each of its states."""
    try:
        known = str(path.resolve()), path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"judge {name}: {path} cannot be read: {error.strerror}") from None
    if known in _modules:
        return _modules[known]
    spec = spec_from_file_location(f"scorer_in_{path.stem}", known[0])
    if spec is None or spec.loader is None:
        raise InputError(f"judge {name}: {path} cannot be imported")
    module = module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # at the end: it must not hide an installed module
    sys.modules[spec.name] = module  # where classes of the file look themselves up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(spec.name, None)
        line = getattr(error, "lineno", None)
        trace = error.__traceback__
        while trace is not None and line is None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == known[0] else None
            trace = trace.tb_next
        where = "" if line is None else f" (line {line})"
        raise InputError(
            f"judge {name}: {path} cannot be imported: {type(error).__name__}: "
            f"{' '.join(str(error).split())}{where}"
        ) from error
    _modules[known] = module
    return module
