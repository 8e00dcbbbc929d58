"""`cachedeval explain`: why results of a run are not in the cache."""

from typing import TYPE_CHECKING, Any

from cachedeval.cli.format import show, show_json
from cachedeval.cli.options import (
    Namespace,
    Parser,
    add_cache,
    add_config,
    add_evaluation,
    add_json,
    evaluator_of,
)

if TYPE_CHECKING:
    from cachedeval.engine.explain import Reason

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    add_config(parser)
    add_evaluation(parser)
    add_cache(parser)
    add_json(parser, "the reasons")


def execute(options: Namespace) -> None:
    """Show for each step that a run would compute what differs from the nearest stored result.

    Takes the options of `cachedeval run`. Loads no model and opens no connection.
    """
    from cachedeval.evals.steps import reasons_of

    with evaluator_of(options) as evaluator:
        reasons = reasons_of(
            evaluator.explain(options.adapters or [None], options.data, options.num_questions)
        )
    if options.json:
        show_json({"reasons": list(map(_as_json, reasons))})
    else:
        show("\n".join(map(str, reasons)) or "everything is in the cache")


def _as_json(reason: "Reason") -> dict[str, Any]:
    return {
        **reason._asdict(),
        "changed": [field._asdict() for field in reason.changed],
        "because": list(map(_as_json, reason.because)),
    }
