"""Writes results into the documents, and compares them with the targets.

`python -m benchmarks report RESULTS.json` writes `docs/benchmarks.md` whole, and in `README.md` the
part between its two markers.

A target in `targets.toml` names a figure by its path in the results and bounds it: `at_least`,
`at_most` or `equals`. With `per` it bounds the figure divided by another. A figure that was not
measured is skipped, unless the target says `needed`.
"""

import argparse
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pictures, tables
from benchmarks.measure import REPOSITORY, Results, read_results, write_results

__all__ = [
    "BEGIN",
    "END",
    "TARGETS",
    "load_targets",
    "main",
    "page",
    "readme_table",
    "replace_between",
    "shortfalls",
    "value_at",
    "write",
]

TARGETS = Path(__file__).with_name("targets.toml")

BEGIN = "<!-- benchmarks: written by python -m benchmarks report -->"
END = "<!-- /benchmarks -->"

_FAST = 50

_HOW = """\
# Benchmarks

{where}, by

```sh
python -m benchmarks.peers.environment   # once: the peers, in an environment of their own
{command}
python -m benchmarks report RESULTS.json # writes this page and the table in the README
```

It took {minutes:.0f} minutes. The times are wall times of whole commands, the interpreter's start
included, and medians; the noise is half the distance between the quartiles, of n samples. What is
compared was sampled in turns, so that whatever else the machine did slowed all of it alike{busy}. A
measurement that takes long has fewer samples. Run it yourself: the ratios matter, not the seconds.

`python -m benchmarks engine` times misses, hits and start-up, `judge` the judging, `decode` the
decoding beside mlx_lm, and `storage` the backends and the digests of files. Each has `--help`.

## What the figures say

{plainly}

## The scenarios

- **Original**: what a simple script does. For each question a new Python process imports mlx_lm,
  loads model and adapter, generates and exits; then the judge is called once after the other. It is
  really run, on {part} questions a sample, and scaled to all of them. On Linux it is given the same
  fast BLAS as ours.
- **Peer script** (`benchmarks/peers/script.py`): what a good engineer writes in an hour. It loads
  the model once, answers with `mlx_lm.batch_generate`, asks the judge for all verdicts at once, and
  saves answers and verdicts in JSON files. It imports mlx_lm and the SDK only when something is new.
- **Judge**: a server on loopback that takes a declared second for each answer, and counts what it
  was asked (*asked*).
- **Questions** have unequal lengths, of one to four sentences.
- **Of bound**: ours over the lower bound, the work that cannot be avoided, measured in the same run
  with nothing but mlx_lm: start, import, load, decoding the new questions together, one judge
  latency.
- **Loads, batching, concurrency, cache**: where the speed-up comes from. The factors multiply to
  it. The last holds our own overhead as well, so it is below 1 where nothing was cached.
"""

_NOTES = {
    "Reproducibility": "Each line evaluates the same, and compares the report byte by byte.",
    "Start-up": "The judge is the one over HTTP; the 20 questions are all in the cache.",
    "One hit, one miss": (
        "One call at a time, of about 700 bytes. *Ours* verifies the record's checksum and compares "
        "its recipe. *diskcache, bytes* makes the same key, then gets or sets bytes, and verifies "
        "nothing. DSPy and ours in memory answer from a dictionary; the others read a disk."
    ),
    "Warm pipeline": (
        "A generation and a judge call for each question and a mean over them, all cached, in a "
        "new process. *Lower bound*: keys by msgspec and xxh3, batched SQLite selects, msgspec; no "
        "graph, no verification. lm-eval and inspect_ai cache no mean. ≈ is scaled from the "
        "smaller size, where filling or reading the larger would take minutes."
    ),
    "Cold pipeline": (
        "The same pipeline into an empty cache: the first run of a process, its start included. "
        "What is on disk is measured after a second run."
    ),
    "Four writers": (
        "Four processes run the smaller pipeline at the same time on one empty cache. A cache that "
        "shares the work computes each answer once."
    ),
}


def write(found: Results, root: Path = REPOSITORY) -> None:
    """Write page, pictures and the README's table."""
    folder = root / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    pictures.write(folder, found)
    write_results(folder / f"{found['mode']}.json", found)
    (root / "docs" / "benchmarks.md").write_text(page(found), encoding="utf-8")
    readme = root / "README.md"
    text = replace_between(readme.read_text(encoding="utf-8"), readme_table(found))
    readme.write_text(text, encoding="utf-8")


def page(found: Results) -> str:
    """Return `docs/benchmarks.md`."""
    profiles = list(found["profiles"].values())
    parts = [
        _HOW.format(
            where=_where(found),
            command=found["command"],
            minutes=found.get("seconds", 0) / 60,
            busy=_busy(found["machine"]),
            part=profiles[0]["part"] if profiles else "some",
            plainly="\n".join(f"- {line}" for line in _plainly(found)),
        )
    ]
    for table in tables.tables_of(found):
        title = table[0]
        heading, _, rest = title.partition(":")
        if heading in found["profiles"]:
            about = found["profiles"][heading]["about"]
            parts.append(f"### {about}\n\n{rest.strip()}.")
            parts.append(tables.markdown(table))
            parts.append(f"![Times faster](benchmarks/scenarios-{heading}.svg)")
            continue
        parts.append(f"## {title}")
        if title in _NOTES:
            parts.append(_NOTES[title])
        parts.append(tables.markdown(table))
        if heading == "Scale":
            parts.append("![Growth](benchmarks/scale.svg)")
    parts.append(f"## Targets\n\n{_targets(found)}")
    versions = ", ".join(f"{n} {v}" for n, v in found["machine"]["versions"].items())
    parts.append(f"## Versions\n\nPython {found['machine']['python']}, {versions}.")
    if "peers" in found:
        parts.append("Peers: " + ", ".join(found["peers"]["pins"]) + ".")
    return "\n\n".join(parts) + "\n"


def _targets(found: Results) -> str:
    short = shortfalls(found, load_targets())
    if not short:
        return "All of `benchmarks/targets.toml` are met."
    missed = "\n".join(f"- {line}" for line in short)
    return f"Of `benchmarks/targets.toml`, these are missed, and all others met:\n\n{missed}"


def readme_table(found: Results) -> str:
    """Return the README's table: the first profile's scenarios, in short."""
    profile = next(iter(found["profiles"].values()))
    heads = ("after a first evaluation", "original", "cachedeval", "faster")
    rows = [
        (
            one["title"],
            tables.seconds(tables.rounded(one["original"])),
            tables.seconds(one["seconds"]["median"]),
            tables.factor(one["speedup"]),
        )
        for one in profile["scenarios"].values()
    ]
    rests = _baseline(profile)
    about = (
        f"{profile['about']}, {profile['questions']} questions, a judge that takes "
        f"{profile['latency']:g} s. {rests} {_where(found)}, by `{found['command']}`; "
        "[docs/benchmarks.md](docs/benchmarks.md) says how, what a good script reaches, and what else "
        "was measured."
    )
    return f"{tables.markdown(('', heads, list(rows)))}\n\n{about}"


def replace_between(text: str, new: str) -> str:
    """Return a document with what stands between the markers replaced.

    Raises:
        ValueError: it does not have both markers once, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the document must have one {BEGIN!r} and one {END!r} after it")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def _where(found: Results) -> str:
    machine = found["machine"]
    return (
        f"Measured on {found['date']}{_commit(found)} on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}"
    )


def _commit(found: Results) -> str:
    commit = found.get("commit", "")
    return f" at commit {commit}" if commit else ""


def _plainly(found: Results) -> Iterator[str]:
    """Yield what a reader should know before the tables, good or bad."""
    for profile in found["profiles"].values():
        about, scenarios = profile["about"], profile["scenarios"]
        fast = sum(one["speedup"] >= _FAST for one in scenarios.values())
        cold = (
            f" Cold: {tables.factor(scenarios['cold']['speedup'])}." if "cold" in scenarios else ""
        )
        yield (
            f"{about}: {fast} of {len(scenarios)} scenarios are at least {_FAST} times as fast as "
            f"the original.{cold} {_baseline(profile)}"
        )
        if "criterion" in scenarios:
            one = scenarios["criterion"]
            ratio = one["original_with_answers"] / one["seconds"]["median"]
            yield (
                f"{about}: after a changed criterion, an original that had saved its answers would "
                f"take {tables.factor(ratio)} our time, not {tables.factor(one['speedup'])}."
            )
        for name, one in profile.get("script", {}).items():
            yield (
                f"{about}: {scenarios[name]['title']}, we take {one['ours']['median']:.2f} times "
                f"the peer script's time ({tables.noise(one['ours'])})."
            )
    if "scale" in found:
        size, one = list(found["scale"]["sizes"].items())[-1]
        yield (
            f"{int(size):,} questions take {one['cold_peak_mb']:.0f} MB cold and "
            f"{one['peak_mb']:.0f} MB warm."
        )
    if "peers" in found:
        for size, ours in found["peers"]["pipelines"]["ours, disk"].items():
            faster = [
                f"{name} ({tables.factor(one[size]['cold'] / ours['cold'])})"
                for name, one in found["peers"]["pipelines"].items()
                if name != "lower bound" and one.get(size, {}).get("cold", 1e9) < ours["cold"]
            ]
            if faster:
                yield f"Faster than ours at {int(size):,} questions cold: {', '.join(faster)}."


def _baseline(profile: Mapping[str, Any]) -> str:
    """Return how many questions the original's figure rests on, and its noise."""
    one = profile["original"]["generating"]
    noise = "" if one["noise"] is None else f", \N{PLUS-MINUS SIGN}{100 * one['noise'] / 2:.0f}%"
    return f"The original's figure rests on {one['n']} questions{noise}, and is scaled."


def _busy(machine: dict[str, Any]) -> str:
    load = machine.get("load", 0.0)
    if load < 1:
        return ""
    return f" (it was not idle: its load average was {load:g} when the run began)"


def load_targets(path: Path = TARGETS) -> dict[str, list[dict[str, Any]]]:
    """Read targets: a list of tables for each mode, and one for `all`."""
    targets: dict[str, list[dict[str, Any]]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return targets


def value_at(results: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return the figure at a path of names, or None where nothing was measured."""
    found: Any = results
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def shortfalls(results: Results, targets: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a line for each target that is missed."""
    lines = []
    for target in (*targets.get("all", ()), *targets.get(results["mode"], ())):
        value, per = value_at(results, target["figure"]), 1.0
        if "per" in target:
            per = value_at(results, target["per"])
        if value is None or per is None:
            if target.get("needed", False):
                lines.append(f"{target['name']}: not measured")
            continue
        figure = value if "equals" in target else value / per
        if "at_least" in target and figure < target["at_least"]:
            lines.append(f"{target['name']}: {figure:.4g}, wanted at least {target['at_least']}")
        if "at_most" in target and figure > target["at_most"]:
            lines.append(f"{target['name']}: {figure:.4g}, wanted at most {target['at_most']}")
        if "equals" in target and figure != target["equals"]:
            lines.append(f"{target['name']}: {figure!r}, wanted {target['equals']!r}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the documents from a file of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    write(read_results(parser.parse_args(arguments).results))
    return 0
