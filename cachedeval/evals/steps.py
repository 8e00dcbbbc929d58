"""What users call the steps of an evaluation: `generation` and `judge`, whatever the nodes are."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachedeval.engine.explain import Explanation
    from cachedeval.engine.reasons import Reason

__all__ = ["PARSING", "reasons_of", "step_of"]

PARSING = "judge_parse"
"""The node that reads a judge's reply. It takes no time, and users need not know of it."""

_JUDGE = "judge"
_STEPS = {PARSING: _JUDGE, "reference": _JUDGE, "local_judge": _JUDGE}


def step_of(node: str) -> str:
    """Return the step that a node belongs to.

    Example:
        >>> step_of("reference")
        'judge'
    """
    return _STEPS.get(node, node)


def reasons_of(explanations: "Iterable[Explanation]") -> "list[Reason]":
    """Group explanations by reason, as `cachedeval.engine.reasons` does, named by step.

    A node that only waits for another node of its own step is left out.
    """
    from cachedeval.engine import reasons  # noqa: PLC0415  a run needs `step_of` alone

    return [
        _named(reason)
        for reason in reasons.reasons_of(explanations)
        if not (
            reason.state == "waits" and {*map(step_of, reason.waits_for)} == {step_of(reason.node)}
        )
    ]


def _named(reason: "Reason") -> "Reason":
    waits_for = Counter[str]()
    for node, calls in reason.waits_for.items():
        waits_for[step_of(node)] += calls
    return reason._replace(
        node=step_of(reason.node),
        waits_for=dict(waits_for),
        because=[_named(cause) for cause in reason.because],
    )
