"""Gates: whether a report is good enough for CI to go on, and how certain that is."""

from typing import NamedTuple

from cachedeval.engine.errors import InputError
from cachedeval.evals.report import Report, compare
from cachedeval.evals.statistics import FEWEST_PAIRS

__all__ = ["Gate", "fail_under", "not_worse_than"]


class Gate(NamedTuple):
    """The decision of a gate."""

    passed: bool
    message: str
    """One line: which gate, the figures, and how certain they are."""


def fail_under(report: Report, least: float) -> Gate:
    """Require a mean score.

    Args:
        report: the report; one without a score fails.
        least: the least mean that passes, 0 to 100.

    Example:
        >>> from cachedeval.evals.report import ItemResult, build_report
        >>> items = [ItemResult(id=str(n), question="?", score=70.0, criteria={}) for n in range(9)]
        >>> fail_under(build_report(items, failures_count_zero=False, judge="f1"), 75.0).message
        'fail-under failed: base has 70.0, 5.0 below 75.0 (95% interval 46.4 to 80.1)'
    """
    name = report.adapter or "base"
    if report.score is None:
        return Gate(passed=False, message=f"fail-under failed: {name} has no score")
    passed = report.score >= least
    word = "passed" if passed else "failed"
    side = "above" if passed else "below"
    certain = ""
    if report.interval is not None:
        certain = " (95% interval {:.1f} to {:.1f})".format(*report.interval)
    return Gate(
        passed,
        f"fail-under {word}: {name} has {report.score:.1f}, {abs(report.score - least):.1f} {side} "
        f"{least:.1f}{certain}",
    )


def not_worse_than(report: Report, baseline: Report, margin: float = 0.0) -> Gate:
    """Require that a report is not worse than a baseline, question by question.

    It fails where it is certain that more than the margin is lost: where the 95% interval of the
    mean paired difference lies below it. The means alone do not decide, so a small sample does not
    fail by chance: without a loss beyond the margin, at most 5 of 100 evaluations fail (about 2.5).

    Args:
        report: the new report.
        baseline: the one to compare with, by the same judge.
        margin: how many points may be lost, 0 to 100.

    Raises:
        InputError: the two cannot be compared.
    """
    try:
        found = compare(baseline, report)
    except InputError as error:
        raise InputError(f"--not-worse-than: {error}") from None
    name = report.adapter or "base"
    test = found.paired
    pairs = f"{test.n} pair{'' if test.n == 1 else 's'}"
    if test.n < FEWEST_PAIRS:
        return Gate(
            passed=True,
            message=f"not-worse-than passed, since {pairs} are too few to tell: {name} differs by "
            f"{test.difference:+.1f}",
        )
    passed = test.high >= -margin
    says = (
        f"{name} differs by {test.difference:+.1f}, 95% interval {test.low:+.1f} to "
        f"{test.high:+.1f} on {pairs}"
    )
    if passed:
        return Gate(
            passed, f"not-worse-than passed: {says}: no loss beyond {margin:.1f} is certain"
        )
    return Gate(passed, f"not-worse-than failed: {says}: more than {margin:.1f} is lost")
