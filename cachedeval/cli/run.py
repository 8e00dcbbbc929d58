"""`cachedeval run`: evaluate, show the scores, say by the exit status whether all were scored."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from cachedeval.cli.options import evaluation_options, evaluator_of
from cachedeval.cli.output import show_report, show_run
from cachedeval.cli.progress import progress_of
from cachedeval.engine.errors import InputError
from cachedeval.evals.report import Report

__all__ = ["command"]

_SOME_FAILED = 3


@click.command("run")
@evaluation_options
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache.")
@click.option("--refresh", is_flag=True, help="Compute all anew and write it to the cache.")
@click.option("--offline", is_flag=True, help="Only read the cache; what is missing is an error.")
@click.option("--json", "as_json", is_flag=True, help="Print report and run as JSON.")
@click.option("--out", metavar="DIR", help="Write each report to a file in this folder.")
@click.option("--verbose", is_flag=True, help="Log what happens.")
def command(**options: Any) -> int:
    """Evaluate a model and its adapters on questions, computing only what is not known yet."""
    modes = {"off": "no_cache", "refresh": "refresh", "offline": "offline"}
    chosen = [mode for mode, option in modes.items() if options[option]]
    if len(chosen) > 1:
        raise click.UsageError("--no-cache, --refresh and --offline exclude each other")
    if options["verbose"]:
        import logging  # noqa: PLC0415

        logging.basicConfig(stream=sys.stderr)
        logging.getLogger("cachedeval").setLevel(logging.DEBUG)
    out = _folder(options["out"])
    with (
        evaluator_of(options, mode=chosen[0] if chosen else "use") as evaluator,
        progress_of(sys.stderr) as progress,
    ):
        reports = evaluator.evaluate_adapters(
            options["adapters"] or [None],
            options["data"],
            num_questions=options["num_questions"],
            on_progress=progress,
        )
    run = reports[0].run
    if out is not None:
        _write(out, reports)
    if options["as_json"]:
        click.echo(json.dumps(_as_json(reports, run), indent=2, allow_nan=False))
    else:
        for report in reports:
            click.echo(show_report(report))
        click.echo(show_run(run))
    return _SOME_FAILED if any(report.failed for report in reports) else 0


def _as_json(reports: list[Report], run: dict[str, Any]) -> dict[str, Any]:
    if len(reports) == 1:
        return {"report": reports[0].to_dict(), "run": run}
    return {"reports": [report.to_dict() for report in reports], "run": run}


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {name}: cannot be made: {error.strerror}") from None
    return Path(name)


def _write(folder: Path, reports: list[Report]) -> None:
    """Write each report under its adapter's name; two of one name get a number."""
    used: dict[str, int] = {}
    for report in reports:
        name = report["adapter"] or "base"
        count = used[name] = used.get(name, 0) + 1
        path = folder / (f"{name}.json" if count == 1 else f"{name}-{count}.json")
        try:
            path.write_text(report.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {path}: cannot be written: {error.strerror}") from None
