"""What commands do with finished reports beside printing them: files, and gates for CI."""

import math
import os
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from cachedeval.cli.options import Namespace, Parser, number
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachedeval.evals.gates import Gate
    from cachedeval.evals.report import Report

__all__ = ["add_gates", "add_outputs", "gates_of", "new_file", "write_outputs"]

_MOST = 100.0


def add_outputs(parser: Parser) -> None:
    """Add `--html`, `--export` and `--summary`."""
    parser.add_argument(
        "--html",
        type=new_file,
        metavar="FILE",
        help="Write a page with scores, differences and all answers, which any browser opens.",
    )
    parser.add_argument(
        "--export",
        type=_export_file,
        action="append",
        default=[],
        metavar="FILE",
        help="Write a row for each question and judge: .csv, .jsonl, .parquet, or .xml for JUnit. "
        "Again for more files.",
    )
    parser.add_argument(
        "--summary",
        type=new_file,
        metavar="FILE",
        help="Append the scores as Markdown to a file, such as $GITHUB_STEP_SUMMARY.",
    )


def add_gates(parser: Parser) -> None:
    """Add `--fail-under`, `--not-worse-than` and `--margin`."""
    parser.add_argument(
        "--fail-under",
        type=_score,
        metavar="SCORE",
        help="Exit with 1 if a mean score is below this, 0 to 100.",
    )
    parser.add_argument(
        "--not-worse-than",
        metavar="REPORT",
        help="Exit with 1 if it is certain that a score is worse than that of a saved report, by "
        "the 95%% interval of the paired differences.",
    )
    parser.add_argument(
        "--margin",
        type=_score,
        default=0.0,
        metavar="POINTS",
        help="How many points --not-worse-than lets go (default: 0).",
    )


def gates_of(options: Namespace) -> "Callable[[Sequence[Report]], list[Gate]]":
    """Return what decides the gates that the options name, once there are reports.

    Raises:
        InputError: the baseline cannot be read.
    """
    if options.fail_under is None and options.not_worse_than is None:
        if options.margin:
            raise InputError("--margin needs --not-worse-than REPORT")
        return lambda _: []
    from cachedeval.evals.gates import fail_under, not_worse_than
    from cachedeval.evals.report import read_report

    baseline = None if options.not_worse_than is None else read_report(options.not_worse_than)

    def decide(reports: "Sequence[Report]") -> "list[Gate]":
        gates = []
        for report in reports:
            if options.fail_under is not None:
                gates.append(fail_under(report, options.fail_under))
            if baseline is not None:
                gates.append(not_worse_than(report, baseline, options.margin))
        return gates

    return decide


def write_outputs(
    options: Namespace, reports: "Sequence[Report]", gates: "Sequence[Gate]" = ()
) -> None:
    """Write the files that the options name.

    Raises:
        InputError: one cannot be written.
    """
    if options.html is not None:
        from cachedeval.evals.page.render import write_page

        write_page(options.html, reports)
    if options.export:
        from cachedeval.evals.export import export

        for path in options.export:
            export(reports, path)
    if options.summary is not None:
        from cachedeval.evals.summary import summarize

        try:
            with open(options.summary, "a", encoding="utf-8") as file:  # noqa: PTH123
                file.write(summarize(reports, gates))
        except OSError as error:
            raise InputError(
                f"--summary {options.summary}: cannot be written: {error.strerror}"
            ) from None


def new_file(path: str) -> str:
    """Check, before any work is done, that a file can be written here."""
    folder = os.path.dirname(path) or "."  # noqa: PTH120  pathlib takes long to import
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ArgumentTypeError(f"there is no folder {folder!r}; make it first")
    if os.path.isdir(path):  # noqa: PTH112
        raise ArgumentTypeError(f"{path!r} is a folder; give the name of a file")
    return path


def _export_file(path: str) -> str:
    from cachedeval.evals.export import check_export

    try:
        check_export(path)
    except InputError as error:
        raise ArgumentTypeError(str(error).partition(": ")[2]) from None
    return new_file(path)


def _score(text: str) -> float:
    if not 0 <= (value := number(text)) <= _MOST or math.isnan(value):
        raise ArgumentTypeError(f"{text} is not from 0 to 100")
    return value
