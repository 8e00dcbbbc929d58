"""`cachedeval cache audit`: computes stored answers again and reports any that differ."""

import sys
import time
from typing import TYPE_CHECKING, Any

from cachedeval.cli.format import plural, short, show, show_age, show_json
from cachedeval.cli.options import (
    Namespace,
    Parser,
    add_cache,
    add_evaluation,
    add_json,
    at_least,
    evaluator_of,
)
from cachedeval.cli.progress import progress_of

if TYPE_CHECKING:
    from cachedeval.evals.audit import Audit, Finding

__all__ = ["declare", "execute"]

_FOUND = 3


def declare(parser: Parser) -> None:
    """Add the options."""
    add_evaluation(parser)
    add_cache(parser)
    parser.add_argument(
        "--sample",
        type=at_least(1),
        default=5,
        metavar="N",
        help="How many stored answers are computed again; each time others (default: %(default)s).",
    )
    add_json(parser, "the result")


def execute(options: Namespace) -> int:
    """Compute a sample of a run's stored answers again, and report any that differ.

    Takes the options of `cachedeval run`, and changes nothing that is stored. The exit status is 3
    if an answer differs or cannot be computed.
    """
    from cachedeval.evals.audit import audit_answers

    with evaluator_of(options) as evaluator, progress_of(sys.stderr) as progress:
        found = audit_answers(
            evaluator,
            options.adapters or [None],
            options.data,
            options.num_questions,
            options.sample,
            on_progress=progress,
        )
    if options.json:
        show_json(
            {
                "stored": found.stored,
                "audited": found.audited,
                "same": found.same,
                "differ": [_as_json(each) for each in found.differ],
                "failed": [_as_json(each) for each in found.failed],
            }
        )
    else:
        show(_show_audit(found))
    return _FOUND if found.differ or found.failed else 0


def _as_json(each: "Finding") -> dict[str, Any]:
    return {
        "key": each.key.hex(),
        "question": _question(each),
        "created": each.created,
        "differences": [difference._asdict() for difference in each.differences],
        "error": each.error,
    }


def _show_audit(found: "Audit") -> str:
    counts = f"{found.same:,} the same, {len(found.differ):,} differ, {len(found.failed):,} failed"
    lines = [
        f"{found.audited:,} of {plural(found.stored, 'stored answer')} computed again: {counts}"
    ]
    now = time.time()
    for each in found.differ:
        lines.append(
            f"differs: {short(_question(each))} (key {each.key.hex()}, stored "
            f"{show_age(each.created, now)} ago)"
        )
        for difference in each.differences:
            lines.append(f"  {difference.where} stored:   {difference.was}")
            lines.append(f"  {difference.where} computed: {difference.now}")
    lines += [
        f"failed: {short(_question(each))}: {short(each.error or '', 160)}" for each in found.failed
    ]
    if found.differ:
        lines.append(
            "these answers were not computed by this machine and software: evaluate again with "
            "--refresh, and please report it"
        )
    return "\n".join(lines)


def _question(each: "Finding") -> str:
    return str(each.call.inputs["prompt"].inputs["messages"][-1]["content"])
