"""`cachedeval compare`: two adapters or two saved reports, question by question."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cachedeval.cli.figures import plural
from cachedeval.cli.options import evaluation_options, evaluator_of
from cachedeval.cli.output import short
from cachedeval.cli.progress import progress_of
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from cachedeval.evals.comparison import Comparison
    from cachedeval.evals.statistics import Paired

__all__ = ["command"]

_SOME_FAILED = 3
_BASE = "base"
_SURE = 0.05


@click.command("compare")
@click.argument("a")
@click.argument("b")
@evaluation_options
@click.option("--top", default=5, show_default=True, help="Questions shown that changed most.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(a: str, b: str, **options: Any) -> int:
    """Compare A with B, question by question: is B better, and how sure is that?

    A and B are two reports that `cachedeval run` wrote (--out, or the output of --json), or two
    adapters, which are then evaluated in one run with the options of `cachedeval run`; `base`
    stands for the base model without an adapter.
    """
    from cachedeval.evals.comparison import compare_reports, read_report  # noqa: PLC0415  not for --help

    saved = [_is_report(given) for given in (a, b)]
    if saved[0] != saved[1]:
        raise InputError(
            f"compare: {(a, b)[saved[1]]} is a saved report and {(a, b)[saved[0]]} is not; give "
            "two reports or two adapters"
        )
    status = 0
    if all(saved):
        reports: list[Any] = [read_report(a), read_report(b)]
    else:
        if options["data"] is None:
            raise click.UsageError("two adapters are compared on questions; give --data")
        with evaluator_of(options) as evaluator, progress_of(sys.stderr) as progress:
            reports = list(
                evaluator.evaluate_adapters(
                    [None if name == _BASE else name for name in (a, b)],
                    options["data"],
                    options["num_questions"],
                    on_progress=progress,
                )
            )
        status = _SOME_FAILED if any(report.failed for report in reports) else 0
    found = compare_reports(*reports)
    if options["as_json"]:
        click.echo(json.dumps(_as_json(a, b, found), indent=2, allow_nan=False))
    else:
        click.echo(_shown(a, b, found, options["top"]))
    return status


def _narrow(compare: click.Command) -> None:
    """Fit run's options: saved reports need no data, and the adapters are the arguments."""
    compare.params = [each for each in compare.params if each.name != "adapters"]
    for each in compare.params:
        if each.name == "data":
            each.required = False


_narrow(command)


def _is_report(given: str) -> bool:
    if Path(given).is_file():
        return True
    if given.endswith(".json") and not Path(given).exists():
        raise InputError(f"report {given}: there is no such file")
    return False


def _as_json(a: str, b: str, found: "Comparison") -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "mean_a": found.mean_a,
        "mean_b": found.mean_b,
        **found.paired._asdict(),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "failed": found.failed,
        "items": [change._asdict() for change in found.changes],
    }


def _shown(a: str, b: str, found: "Comparison", top: int) -> str:
    test = found.paired
    sure = f"95% interval {test.low:+.1f} to {test.high:+.1f}, p = {test.p_value:.2g}"
    lines = [
        f"A  {found.mean_a:5.1f}  {a}",
        f"B  {found.mean_b:5.1f}  {b}",
        f"B is {_verdict(test)}: {test.difference:+.1f}, {sure}, {plural(test.n, 'pair')}",
        f"B better on {test.better}, worse on {test.worse}, the same on {test.same}",
    ]
    left_out = [
        f"{count} {what}"
        for count, what in (
            (found.failed, "without a score in both"),
            (found.only_a, "only in A"),
            (found.only_b, "only in B"),
        )
        if count
    ]
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    changed = [change for change in found.changes[: max(top, 0)] if change.a != change.b]
    if changed:
        lines.append("changed most:")
    lines += [
        f"  {each.b - each.a:+6.1f}  {each.a:5.1f} → {each.b:5.1f}  {short(each.question)}"
        for each in changed
    ]
    return "\n".join(lines)


def _verdict(test: "Paired") -> str:
    if (test.low > 0 or test.high < 0) and test.p_value < _SURE:
        return "better" if test.difference > 0 else "worse"
    return "the same" if test.same == test.n else "not clearly different"
