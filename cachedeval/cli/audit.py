"""`cachedeval cache audit`: computes stored answers again and reports any that differ."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cachedeval.cli.figures import plural, show_age
from cachedeval.cli.options import evaluation_options, evaluator_of
from cachedeval.cli.output import short
from cachedeval.cli.progress import progress_of

if TYPE_CHECKING:
    from cachedeval.evals.audit import Audit, Finding

__all__ = ["command"]

_FOUND = 3


@click.command("audit")
@evaluation_options
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="How many stored answers are computed again; others each time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(**options: Any) -> int:
    """Compute a sample of a run's stored answers again and report any that differ.

    Takes the options of `cachedeval run`, and leaves what is stored as it is. The exit status is 3
    if an answer differs or cannot be computed.
    """
    from cachedeval.evals.audit import audit_answers  # noqa: PLC0415  not for --help

    with evaluator_of(options) as evaluator, progress_of(sys.stderr) as progress:
        found = audit_answers(
            evaluator,
            options["adapters"] or [None],
            options["data"],
            options["num_questions"],
            options["sample"],
            on_progress=progress,
        )
    if options["as_json"]:
        told = {
            "stored": found.stored,
            "audited": found.audited,
            "same": found.same,
            "differ": [_as_json(each) for each in found.differ],
            "failed": [_as_json(each) for each in found.failed],
        }
        click.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        click.echo(_shown(found))
    return _FOUND if found.differ or found.failed else 0


def _as_json(each: "Finding") -> dict[str, Any]:
    return {
        "key": each.key.hex(),
        "question": _question(each),
        "created": each.created,
        "differences": [difference._asdict() for difference in each.differences],
        "error": each.error,
    }


def _shown(found: "Audit") -> str:
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
            "the cache's answers are not this machine's and software's: evaluate again with "
            "--refresh, and please report it"
        )
    return "\n".join(lines)


def _question(each: "Finding") -> str:
    return str(each.call.inputs["messages"][-1]["content"])
