"""The judges that a user can name."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Node
from cachedeval.evals.judging.judge import Judge
from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.rubric import load_rubric
from cachedeval.evals.judging.rubric_judges import LocalJudge, LocalModelOf, RemoteJudge
from cachedeval.evals.judging.scorers import BUILT_IN, open_scorer
from cachedeval.evals.judging.spec import parse_judge

__all__ = ["BY_RUBRIC", "NamedJudge", "open_judge", "open_judges"]

NamedJudge = str | Callable[..., Any] | Node[Any]
"""How a judge is given: by name, or as a function that scores."""

_OVER_HTTP = ("cerebras", "openai")
BY_RUBRIC = (*_OVER_HTTP, "mlx")
"""What the names of judges that are models begin with."""

_AS_USUAL = JudgeOptions()


def open_judges(
    names: Sequence[NamedJudge],
    *,
    primary: str | None = None,
    criteria: str = "default",
    per_criterion: bool = False,
    repeats: int = 1,
    limits: str | None = None,
    options: JudgeOptions = _AS_USUAL,
    local_model: LocalModelOf,
) -> list[Judge]:
    """Return several judges, the primary one first.

    The rubric counts for those that score by one, `repeats` and `options` for those over HTTP.

    Args:
        names: at least one.
        primary: which of them is the primary one; the first if not given.
        criteria: as of `open_judge`.
        per_criterion: likewise.
        repeats: likewise.
        limits: likewise.
        options: likewise.
        local_model: likewise.

    Raises:
        InputError: as `open_judge`; or two have the same name, or none has that of `primary`.
    """
    by_rubric = any(_provider(name) in BY_RUBRIC for name in names)
    over_http = any(_provider(name) in _OVER_HTTP for name in names)

    def opened(name: NamedJudge) -> Judge:
        provider = _provider(name)
        return open_judge(
            name,
            criteria=criteria if provider in BY_RUBRIC or not by_rubric else "default",
            per_criterion=per_criterion,
            repeats=repeats if provider in _OVER_HTTP or not over_http else 1,
            limits=limits,
            options=options if provider in _OVER_HTTP or not over_http else _AS_USUAL,
            local_model=local_model,
        )

    judges = [opened(name) for name in names]
    counts = Counter(judge.name for judge in judges)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"judge {twice[0]}: is given twice, or is the name of two; leave one out")
    if primary is None:
        return judges
    for given, judge in zip(names, judges, strict=True):
        if primary in {given, judge.name}:
            return [judge, *(other for other in judges if other is not judge)]
    raise InputError(f"primary {primary}: is none of the judges ({', '.join(counts)})")


def open_judge(
    name: NamedJudge,
    *,
    criteria: str = "default",
    per_criterion: bool = False,
    repeats: int = 1,
    limits: str | None = None,
    options: JudgeOptions = _AS_USUAL,
    local_model: LocalModelOf,
) -> Judge:
    """Return the judge that a user names.

    Args:
        name: `cerebras:MODEL`, `openai:MODEL`, `mlx:PATH`, a built-in scorer, `FILE.py:FUNCTION`, the
            name of an installed one, or a function.
        criteria: name or file of the rubric; scorers have none.
        per_criterion: ask for each criterion apart.
        repeats: independent verdicts a question; only of judges over HTTP.
        limits: the file of the judge's settings.
        options: of the requests; only of judges over HTTP. They count before those of the file.
        local_model: returns the resource of a model folder.

    Raises:
        InputError: there is no such judge or rubric, or a setting is bad.
    """
    judge = None if _provider(name) in BY_RUBRIC else _scorer(name)
    if repeats != 1 and _provider(name) not in _OVER_HTTP:
        shown = name if judge is None else judge.name
        raise InputError(
            f"repeats {repeats}: judge {shown} gives the same verdict every time; leave it out"
        )
    if options != _AS_USUAL and _provider(name) not in _OVER_HTTP:
        shown = name if judge is None else judge.name
        raise InputError(
            f"judge {shown}: takes no temperature, --judge-max-tokens or other options of a request;"
            " leave them out, or take a judge over HTTP"
        )
    if judge is not None:
        if criteria != "default":
            raise InputError(
                f"criteria {criteria!r}: judge {judge.name} has no criteria; leave them out, or "
                "take a judge that scores by a rubric"
            )
        return judge
    spec = parse_judge(str(name))
    rubric = load_rubric(criteria)
    if spec.over_http:
        return RemoteJudge(
            spec,
            rubric,
            per_criterion=per_criterion,
            repeats=repeats,
            limits=limits,
            options=options,
        )
    return LocalJudge(spec, rubric, local_model, per_criterion=per_criterion)


def _provider(name: NamedJudge) -> str | None:
    return name.strip().partition(":")[0] if isinstance(name, str) else None


def _scorer(name: NamedJudge) -> Judge:
    if isinstance(name, str) and (found := open_scorer(name)) is not None:
        return found
    # Scorers of others are keyed by their source, which takes modules that a run of hits does without.
    from cachedeval.evals.judging import custom  # noqa: PLC0415

    if not isinstance(name, str):
        return custom.open_function(name)
    if (file := custom.file_and_function(name.strip())) is not None:
        return custom.open_file(*file)
    if (theirs := custom.open_installed(name)) is not None:
        return theirs
    others = "".join(f", {other}" for other in custom.installed())
    raise InputError(
        f"judge {name!r}: no such judge; give cerebras:MODEL, openai:MODEL, mlx:PATH, "
        f"{', '.join(BUILT_IN)}{others} or FILE.py:FUNCTION"
    )
