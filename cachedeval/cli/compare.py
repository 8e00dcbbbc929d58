"""`cachedeval compare`: two adapters or two saved reports, question by question."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachedeval.cli.format import plural, short, show, show_json
from cachedeval.cli.options import (
    Namespace,
    Parser,
    add_evaluation,
    add_json,
    add_mode,
    evaluator_of,
    whole,
)
from cachedeval.cli.outputs import add_outputs, write_outputs
from cachedeval.cli.progress import progress_of
from cachedeval.cli.run import show_run, some_failed
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from cachedeval.evals.report import Comparison

__all__ = ["declare", "execute"]

_SOME_FAILED = 3


def declare(parser: Parser) -> None:
    """Add the options; the adapters are the arguments, and saved reports need no questions."""
    about = "A saved report, or an adapter: a folder, a name in ./adapters/, or `base`."
    parser.add_argument("a", metavar="A", help=about)
    parser.add_argument("b", metavar="B", help="Likewise.")
    add_evaluation(parser, adapters=False, data=False)
    add_mode(parser)
    parser.add_argument(
        "--top",
        type=whole,
        default=5,
        metavar="N",
        help="How many of the questions that changed most are shown (default: %(default)s).",
    )
    add_json(parser, "the comparison")
    add_outputs(parser)


def execute(options: Namespace) -> int:
    """Compare A with B, question by question: is B better, and how certain is that?

    A and B are two reports that `cachedeval run` wrote (--out, or the output of --json), or two
    adapters, which are then evaluated in one run with the options of `cachedeval run`. `base` is
    the base model without an adapter.
    """
    from cachedeval.evals.report import compare, read_report

    a, b = options.a, options.b
    saved = [_is_report(given) for given in (a, b)]
    if saved[0] != saved[1]:
        raise InputError(
            f"compare: {(a, b)[saved[1]]} is a saved report and {(a, b)[saved[0]]} is not; give "
            "two reports or two adapters"
        )
    status, run = 0, None
    if all(saved):
        reports = [read_report(a), read_report(b)]
    else:
        if options.data is None:
            raise InputError(
                f"compare: {a} and {b} are adapters, which need questions; give --data"
            )
        with evaluator_of(options) as evaluator, progress_of(sys.stderr) as progress:
            reports = evaluator.evaluate_adapters(
                [a, b], options.data, options.num_questions, on_progress=progress
            )
        status = _SOME_FAILED if some_failed(reports) else 0
        run = reports[0].run
    found = compare(reports[0], reports[1])
    others = {
        judge: compare(reports[0], reports[1], judge)
        for judge in reports[0].by_judge
        if judge != reports[0].judge and judge in reports[1].by_judge
    }
    write_outputs(options, reports)
    if options.json:
        further = {judge: _as_json(a, b, each) for judge, each in others.items()}
        show_json({**_as_json(a, b, found), "others": further})
    else:
        show(_show_comparison(a, b, found, options.top))
        for judge, each in others.items():
            show(f"by {short(judge)}:\n  {_show_test(each)}")
        if run is not None:
            show(show_run(run))
    return status


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
        "verdict": found.verdict,
        **found.paired._asdict(),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "failed": found.failed,
        "items": [change._asdict() for change in found.changes],
    }


def _show_comparison(a: str, b: str, found: "Comparison", top: int) -> str:
    lines = [
        f"A  {found.mean_a:5.1f}  {a}",
        f"B  {found.mean_b:5.1f}  {b}",
        _show_test(found),
        "B is better on {}, worse on {}, the same on {}".format(*found.paired[-3:]),
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


def _show_test(found: "Comparison") -> str:
    """Return the verdict of a comparison, and how certain it is."""
    from cachedeval.evals.statistics import FEWEST_PAIRS

    test = found.paired
    pairs = plural(test.n, "pair")
    if test.n < FEWEST_PAIRS:
        return (
            f"too few to tell: {test.difference:+.1f} on {pairs}; whether B is better can be said "
            f"from {FEWEST_PAIRS} pairs on"
        )
    interval = f"95% interval {test.low:+.1f} to {test.high:+.1f}, p = {test.p_value:.2g}"
    return f"B is {found.verdict}: {test.difference:+.1f}, {interval}, {pairs}"
