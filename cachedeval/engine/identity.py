"""Which functions a name and a version stand for: live nodes, and records of other programs.

Two nodes share results if they have one name and one version. So they must be one function:

- Two live nodes of one name and version with other source are an error: at once if both stand in one
  module, else (of two modules, or made by functions) when one meets a result of the other. But a function that is defined again in
  the same place (a cell of a notebook that runs again, a reloaded module) replaces the one before.
- A record says which source computed it, and in which file. Other source in the same file is an
  edit: the version says that the results are the same, and a warning says that it was used. Other
  source in another file is another function, and its record is a miss.
"""

# Lazy import: only two nodes of one name need `gc`.

import sys
import types
import weakref
from contextlib import suppress
from typing import Literal

from cachedeval.engine.closure import Step
from cachedeval.engine.errors import InputError
from cachedeval.engine.origin import module_name, namespace_of, place_of
from cachedeval.engine.source import code_fingerprint, drifted, source_fingerprint

__all__ = [
    "Standing",
    "conflict_of",
    "named",
    "refuse_method",
    "register",
    "rival_of",
    "standing_of",
]

Standing = Literal["same", "edited", "other"]
"""Whether a function is the one that computed a record, an edited version of it, or another one."""


def named(function: types.FunctionType) -> str:
    """Return the default name of a node: module and qualified name of its function."""
    module = module_name(function.__module__ or "", namespace_of(function))
    return f"{module}.{function.__qualname__}"


def standing_of(function: types.FunctionType, code: str, source: str, file: str) -> Standing:
    """Return how a function stands to the one that computed a record.

    Args:
        function: the function.
        code: the fingerprint of the code that computed the record.
        source: the fingerprint of its source; empty if it could not be read.
        file: where it was, as `place_of` says it; empty if that is not known.
    """
    if not drifted(function, code, source):
        return "same"
    return "edited" if not file or file == place_of(function) else "other"


# Live nodes.

_live: dict[tuple[str, str], "dict[int, weakref.WeakSet[Step]]"] = {}
"""The nodes of each name and version, by the ids of their code objects."""


def register(step: Step) -> None:
    """Note a new node with a version.

    Raises:
        InputError: another live node of its name, version and file has other source.
    """
    if step.version is None:  # the source is in the key
        return
    groups = _live.setdefault((step.name, step.version), {})
    own = groups.get(id(step.function.__code__))
    if own:  # made by a function that makes many
        own.add(step)
        return
    where = None
    for code, group in [*groups.items()]:
        other = next(iter(group), None)
        if other is None:
            del groups[code]
            continue
        where = where or _where(step.function)
        error = conflict_of(step, other.function) if _where(other.function) == where else None
        if error is None:
            continue
        names = other.function.__qualname__, step.function.__qualname__
        if names[0] != names[1]:
            if any("<locals>" in name for name in names):
                continue  # it may be one of many that a function made, and be of no use any more
            del other
            import gc

            gc.collect()  # a node that nobody uses may be in a cycle
            if group:
                raise error
        for replaced in group:
            replaced.replaced = True
        del groups[code]
    groups[id(step.function.__code__)] = weakref.WeakSet([step])


def rival_of(step: Step, code: str) -> InputError | None:
    """Return the error of two live nodes of one name and version, or None.

    Args:
        step: one of the nodes.
        code: the fingerprint of the other one's code.
    """
    groups = _live.get((step.name, step.version or ""), {})
    for collected in (False, True):
        others = [other.function for group in [*groups.values()] for other in [*group][:1]]
        errors = [conflict_of(step, o) for o in others if code_fingerprint(o) == code]
        error = next(filter(None, errors), None)
        del others
        if error is None or collected:
            return error
        import gc

        gc.collect()  # a node that nobody uses may be in a cycle
    return None


def conflict_of(step: Step, other: types.FunctionType) -> InputError | None:
    """Return the error of a node and another function of its name and version, or None.

    Args:
        step: the node.
        other: the other function; None is returned if its source is the same.
    """
    if step.version is None or _is_same(step.function, other):
        return None
    return InputError(
        f"{_shown(other)} and {_shown(step.function)} are nodes of the name {step.name!r} and the "
        f"version {step.version!r}, and would share results, but their source differs: give one of "
        "them a name of its own, @node(name=…)"
    )


def _is_same(one: types.FunctionType, other: types.FunctionType) -> bool:
    if one.__code__ is other.__code__ or code_fingerprint(one) == code_fingerprint(other):
        return True
    with suppress(InputError):
        return source_fingerprint((one,)) == source_fingerprint((other,))
    return False


def _where(function: types.FunctionType) -> tuple[str, str]:
    return module_name(function.__module__ or "", namespace_of(function)), place_of(function)


def _shown(function: types.FunctionType) -> str:
    code = function.__code__
    return f"{function.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


# Methods.


def refuse_method(function: types.FunctionType, owner: type | None = None) -> None:
    """Refuse a function that a class body makes a method.

    Args:
        function: the function of a node.
        owner: the class that has the node as an attribute. None while the class body runs: then
            the name of the first parameter tells, since `@staticmethod` may follow.

    Raises:
        InputError: it is a method.
    """
    inside, _, name = function.__qualname__.rpartition(".")
    if not inside or inside.endswith("<locals>"):
        return
    if owner is None:
        is_method = function.__code__.co_varnames[:1] in {
            ("self",),
            ("cls",),
        } and _runs_class_body(inside)
    else:
        is_method = inside == owner.__qualname__ and function.__module__ == owner.__module__
    if is_method:
        raise InputError(
            f"{function.__qualname__}: a method cannot be a node, because the object would be taken "
            f"for the first input: define {name} outside of the class and pass it what it needs of "
            "the object, or put @staticmethod above @node"
        )


def _runs_class_body(name: str) -> bool:
    """Return whether the body of a class runs now, by the class's qualified name."""
    frame: types.FrameType | None = sys._getframe()  # noqa: SLF001  the documented way
    while frame is not None:
        if "__qualname__" in frame.f_code.co_names and frame.f_locals.get("__qualname__") == name:
            return True
        frame = frame.f_back
    return False
