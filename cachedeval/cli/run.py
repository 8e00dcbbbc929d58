"""`cachedeval run`: evaluate, and show the scores."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachedeval.cli.format import log_all, plural, short, show, show_json, table
from cachedeval.cli.options import (
    Namespace,
    Parser,
    add_config,
    add_evaluation,
    add_json,
    add_mode,
    evaluator_of,
)
from cachedeval.cli.outputs import add_gates, add_outputs, gates_of, write_outputs
from cachedeval.cli.progress import progress_of
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachedeval.evals.report import JudgeSummary, Report

__all__ = ["declare", "execute", "show_run", "some_failed"]

_GATE_FAILED, _SOME_FAILED = 1, 3
_BASE = "base"
_JUDGE_WIDTH = 32
_SHOWN = 3
"""How many failed questions are shown."""


def declare(parser: Parser) -> None:
    """Add the options."""
    add_config(parser)
    add_evaluation(parser)
    add_mode(parser)
    add_json(parser, "report and run")
    parser.add_argument("--out", metavar="DIR", help="Write each report to a file in this folder.")
    add_outputs(parser)
    add_gates(parser)
    parser.add_argument("--verbose", action="store_true", help="Log what happens to stderr.")


def execute(options: Namespace) -> int:
    """Evaluate a model and its adapters on questions, computing only what is not in the cache.

    The exit status is 0 if all questions have a score, 1 if a gate failed, 3 if some questions
    failed, 2 for bad input. Run the same command again to retry exactly the failed questions.
    """
    if options.verbose:
        log_all()
    out = None if options.out is None else _folder(options.out)
    decide = gates_of(options)  # what is wrong with the baseline is better known before the work
    with evaluator_of(options) as evaluator, progress_of(sys.stderr) as progress:
        reports = evaluator.evaluate_adapters(
            options.adapters or [None],
            options.data,
            num_questions=options.num_questions,
            on_progress=progress,
        )
    if out is not None:
        _write(out, reports)
    gates = decide(reports)
    write_outputs(options, reports, gates)
    run = reports[0].run
    if options.json:
        all_of = [report.to_dict() for report in reports]
        show_json({"report": all_of[0], "reports": all_of, "run": run})
    else:
        for report in reports:
            show(_show_report(report))
        show(show_run(run))
    for gate in gates:
        show(gate.message, error=True)
    if not all(gate.passed for gate in gates):
        return _GATE_FAILED
    return _SOME_FAILED if some_failed(reports) else 0


def some_failed(reports: "Iterable[Report]") -> bool:
    """Return whether a question lacks a score, by any judge."""
    return any(
        report.failed or any(each.failed for each in report.by_judge.values()) for report in reports
    )


def _show_report(report: "Report") -> str:
    """Return a report for people: the score of each judge, its parts, and what failed."""
    name = short(report.adapter or _BASE, 200)
    if len(report.by_judge) > 1:
        lines = [f"{name}:", *_show_judges(report)]
    else:
        lines = [f"{name}: {_show_score(report)}", *_show_criteria(report.criteria)]
    for judge, names in report.judge_refused.items():
        lines.append(f"  {short(judge)} refuses {', '.join(names)}: not sent")
    failed = [
        (item.question, judge, error)
        for item in report.items
        for judge, error in (
            (report.judge, item.error),
            *((other, found.error) for other, found in item.others.items()),
        )
        if error
    ]
    for question, judge, error in failed[:_SHOWN]:
        by = f" ({short(judge)})" if len(report.by_judge) > 1 else ""
        lines.append(f"  failed: {short(question)}{by} — {short(error, 160)}")
    if len(failed) > _SHOWN:
        lines.append(f"  … and {len(failed) - _SHOWN} more; --json shows all of them")
    if report.truncated:
        lines.append(
            f"  warning: {plural(report.truncated, 'answer')} cut off at the bound; raise "
            "--max-tokens, and only these are decoded again"
        )
    lines += [f"  note: {short(note, 300)}" for note in report.notes]
    return "\n".join(lines)


def _show_score(report: "Report") -> str:
    score = "no score" if report.score is None else f"{report.score:.1f}"
    certain = _show_interval(report)
    certain = f", 95% interval {certain}" if report.interval else certain and f", {certain}"
    truncated = f", {report.truncated} truncated" if report.truncated else ""
    return f"{score}{certain}  ({report.scored} scored, {report.failed} failed{truncated})"


def _show_judges(report: "Report") -> list[str]:
    """Return a table with a line for each judge, and the criteria of those that have several."""
    rows = [
        [
            short(judge, _JUDGE_WIDTH),
            "—" if found.score is None else f"{found.score:.1f}",
            _show_interval(found) or "—",
            found.scored,
            found.failed,
        ]
        for judge, found in report.by_judge.items()
    ]
    lines = table(["judge", "score", "95% interval", "scored", "failed"], rows).splitlines()
    lines = [f"  {line}" for line in lines]
    for judge, found in report.by_judge.items():
        lines += [
            f"  {short(judge, _JUDGE_WIDTH)}: {line.strip()}"
            for line in _show_criteria(found.criteria)
        ]
    return lines


def _show_interval(found: "Report | JudgeSummary") -> str:
    if found.interval is not None:
        return "{:.1f} to {:.1f}".format(*found.interval)
    return "" if found.score is None else "too few to tell"


def _show_criteria(criteria: dict[str, float]) -> list[str]:
    if len(criteria) < 2:  # noqa: PLR2004  one criterion is the score
        return []
    parts = (f"{criterion} {mean:.2f}" for criterion, mean in criteria.items())
    return ["  " + ", ".join(parts)]


def show_run(run: dict[str, Any]) -> str:
    """Return what a run did, in one line for each step."""
    loads = run["loads"]
    lines = [f"{run['seconds']:.2f} s, {loads} model load{'' if loads == 1 else 's'}"]
    for name, counts in run["nodes"].items():
        lines.append(
            f"  {name}: {counts['calls']} calls, {counts['hits']} from the cache, "
            f"{counts['computed']} computed, {counts['failed']} failed"
        )
    for what, cost in (("used", run["judge_spent"]), ("saved by the cache", run["judge_saved"])):
        if cost["prompt_tokens"] or cost["completion_tokens"]:
            money = "" if cost["usd"] is None else f", ${cost['usd']:.4f} at list price"
            lines.append(
                f"  judge tokens {what}: {cost['prompt_tokens']} in, "
                f"{cost['completion_tokens']} out{money}"
            )
    if (rejected := run["judge_rejected"])["replies"]:
        lines.append(
            f"  of these for {rejected['replies']} replies of no use: "
            f"{rejected['prompt_tokens']} in, {rejected['completion_tokens']} out"
        )
    if run["near_ties"]["met"]:
        lines.append(
            f"  near ties: {run['near_ties']['met']} met, {run['near_ties']['changed']} changed a "
            "token"
        )
    if run["one_by_one"]["answers"]:
        lines.append(
            f"  decoded one by one, which takes longer: {run['one_by_one']['answers']} answers; "
            f"batches of this model cannot be trusted: {short(run['one_by_one']['reason'], 160)}"
        )
    return "\n".join(lines)


def _folder(name: str) -> Path:
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {name}: cannot be created: {error.strerror}") from None
    return Path(name)


def _write(folder: Path, reports: "list[Report]") -> None:
    """Write each report under its adapter's name; further ones of the same name get a number."""
    used: dict[str, int] = {}
    for report in reports:
        name = report.adapter or _BASE
        count = used[name] = used.get(name, 0) + 1
        path = folder / (f"{name}.json" if count == 1 else f"{name}-{count}.json")
        try:
            path.write_text(report.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {path}: cannot be written: {error.strerror}") from None
