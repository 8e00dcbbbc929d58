"""`python -m benchmarks`: measures, shows, writes JSON and pictures, and checks the targets.

`python -m benchmarks NAME` runs one benchmark with options of its own: `engine`, `judge`, `decode`,
`storage`. `python -m benchmarks report RESULTS.json` writes the documents.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from benchmarks import pictures, tables
from benchmarks.measure import Results, command, new_results, write_results
from benchmarks.peers.compare import measure_peers
from benchmarks.report import TARGETS, load_targets, shortfalls
from benchmarks.reproducibility import measure_reproducibility
from benchmarks.scale import measure_scale, measure_sharing
from benchmarks.scenarios import SCENARIOS, measure_profile
from benchmarks.startup import measure_startup
from benchmarks.workplace import HEAVY, QUICK, SMALL, Workplace

SECTIONS = ("startup", "scenarios", "heavy", "reproducibility", "peers", "scale")
_FURTHER = ("engine", "judge", "decode", "storage", "report")
"""Benchmarks with options of their own, each a module with a `main`."""

_LIMIT_S = 90
"""Seconds for one run of a peer's pipeline."""


class _Say:
    """Says on standard error what is being measured, and since when."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.section = ""

    def __call__(self, text: str) -> None:
        minutes, seconds = divmod(int(time.perf_counter() - self._begun), 60)
        print(f"{minutes:3d}:{seconds:02d} {self.section}: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 1 where a target is missed and `--check` is given."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] and words[0] in _FURTHER:
        return int(import_module(f"benchmarks.{words[0]}").main(words[1:]))
    given = _parse(arguments)
    names = {scenario.name for scenario in SCENARIOS}
    unknown = set(given.only) - set(SECTIONS) - names
    if unknown:
        known = ", ".join((*SECTIONS, *sorted(names)))
        sys.exit(f"benchmarks: no such part: {', '.join(sorted(unknown))} (there are {known})")
    given.out.mkdir(parents=True, exist_ok=True)
    found = new_results("quick" if given.quick else "default")
    file = given.out / f"{found['mode']}.json"
    root = Path(tempfile.mkdtemp(prefix="cachedeval-benchmarks-"))
    try:
        begun = time.perf_counter()
        for _ in _measure(given, root, _Say(), found):
            # After each part, so that an interrupted run leaves what it measured.
            found["seconds"] = time.perf_counter() - begun
            write_results(file, found)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    pictures.write(given.out, found)
    print(tables.show(found))
    print(f"\n{file}")
    if not given.check:
        return 0
    short = shortfalls(found, load_targets(given.targets))
    print("\n".join(short) if short else "all targets are met")
    return 1 if short else 0


def _measure(given: argparse.Namespace, root: Path, say: _Say, found: Results) -> Iterator[None]:
    """Measure part by part into the results; yield after each."""
    sections = {"heavy"} if given.load_heavy and not given.only else set(given.only or SECTIONS)
    if given.quick and not given.load_heavy:
        sections.discard("heavy")
    scenarios = sections - set(SECTIONS)
    if scenarios:
        sections.add("scenarios")
    tiny = _weights("tiny", root / "tiny")
    if "startup" in sections:
        say.section = "startup"
        found["startup"] = measure_startup(root / "startup", tiny, say)
        yield
    if sections & {"scenarios", "reproducibility"}:
        profile = QUICK if given.quick else SMALL
        model = given.model or (tiny if given.quick else _demo_model(say))
        if given.model:
            profile = replace(profile, about=given.model.name)
        workplace = Workplace(root / "small", profile, model)
        if "scenarios" in sections:
            say.section = "scenarios"
            found["profiles"][profile.name] = measure_profile(workplace, scenarios, say)
            yield
        if "reproducibility" in sections:
            say.section = "reproducibility"
            # Fewer and shorter: some of its ways decode every answer alone.
            small = replace(
                profile,
                questions=min(8, profile.questions),
                more=min(20, profile.more),
                max_tokens=min(16, profile.max_tokens),
            )
            workplace = Workplace(root / "reproducibility", small, model)
            found["reproducibility"] = measure_reproducibility(workplace, say)
            yield
    if "heavy" in sections:
        say.section = "heavy"
        say("making the model")
        heavy = Workplace(root / "heavy", HEAVY, _weights("heavy", root / "heavy-model"))
        found["profiles"]["heavy"] = measure_profile(heavy, {"cold", "warm"}, say)
        shutil.rmtree(root / "heavy-model")
        yield
    yield from _measure_engine(given, root, say, sections, found=found)


def _measure_engine(
    given: argparse.Namespace, root: Path, say: _Say, sections: set[str], *, found: Results
) -> Iterator[None]:
    if "peers" in sections:
        say.section = "peers"
        sizes = (100, 1000) if given.quick else (1000, 10_000)
        peers_too = not given.quick
        found["peers"] = measure_peers(root / "peers", sizes, _LIMIT_S, say, peers_too=peers_too)
        yield
    if "scale" in sections:
        say.section = "scale"
        grown = (100, 1000) if given.quick else (100, 1000, 10_000, 100_000)
        found["scale"] = measure_scale(root / "scale", grown, say)
        shared = 100 if given.quick else 1000
        found["sharing"] = measure_sharing(root / "sharing", shared, (1, 2, 4), say)
        yield


def _demo_model(say: _Say) -> Path:
    from cachedeval.evals.demo import ensure_demo_model  # noqa: PLC0415  not for --quick

    return ensure_demo_model(progress=say)


def _weights(kind: str, folder: Path) -> Path:
    command([sys.executable, "-m", "benchmarks.models", kind, folder])
    return folder


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model and small sizes")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--model", type=Path, help="another model's folder")
    parser.add_argument("--load-heavy", action="store_true", help="the load-heavy profile alone")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="sections or scenarios by name"
    )
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--targets", type=Path, default=TARGETS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
