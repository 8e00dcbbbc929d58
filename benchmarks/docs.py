"""Writes the documents' figures from results: `python -m benchmarks.docs RESULTS.json`.

`docs/benchmarks.md` is written whole; of `README.md`, what stands between its two markers.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks import check, pictures, results, tables
from benchmarks.measure import REPOSITORY
from benchmarks.results import Results

__all__ = ["BEGIN", "END", "page", "readme_table", "replace_between", "write"]

BEGIN = "<!-- benchmarks: written by python -m benchmarks.docs -->"
END = "<!-- /benchmarks -->"

_HOW = """\
# Benchmarks

{where}, by

```sh
python -m benchmarks.peers.environment   # once: the peers, in an environment of their own
{command}
python -m benchmarks.docs RESULTS.json   # writes this page and the table in the README
```

It took {minutes:.0f} minutes. The times are wall times of whole commands, the interpreter's start
included, and medians; the noise is half the distance between the quartiles, of n samples. What is
compared was sampled in turns, so that whatever else the machine did slowed all of it alike{busy}. A
measurement that takes long has fewer samples. Run it yourself: the ratios matter, not the seconds.

## The scenarios

- **Original**: what a simple script does. For each question a new Python process imports mlx_lm,
  loads model and adapter, generates and exits; then the judge is called once after the other. It is
  really run, on {part} questions a sample, and scaled to all of them. On Linux it is given the same
  fast BLAS as ours.
- **Judge**: a server on loopback that takes a declared second for each answer, and counts what it
  was asked (*asked*).
- **Of ideal**: ours over the work that cannot be avoided, measured in the same run with nothing but
  mlx_lm: start, import, load, decoding the new questions together, one judge latency.
- **Loads, batching, concurrency, cache**: where the speed-up comes from. The factors multiply to
  it. The last holds our own overhead as well, so it is below 1 where nothing was cached.
"""

_NOTES = {
    "Reproducibility": "Each line evaluates the same, and compares the report byte by byte.",
    "Start-up": "The judge is the one over HTTP; the 20 questions are all in the cache.",
    "One hit, one store": (
        "One call at a time, of about 700 bytes. *Ours* verifies the record's seal and compares "
        "its recipe. *diskcache, bytes* makes the same key, then gets or sets bytes, and verifies "
        "nothing. DSPy and ours in memory answer from a dictionary; the others read a disk."
    ),
    "Warm pipeline": (
        "A generation and a judge call for each question and a mean over them, all cached, in a "
        "new process. *Floor*: keys by msgspec and xxh3, batched SQLite selects, msgspec; no "
        "graph, no verification. lm-eval and inspect_ai cache no mean. ≈ is scaled from the "
        "smaller size, where filling or reading the larger would take minutes."
    ),
}


def write(found: Results, root: Path = REPOSITORY) -> None:
    """Write page, pictures and the README's table."""
    folder = root / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    pictures.write(folder, found)
    results.write(folder / f"{found['mode']}.json", found)
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
    if "rivals" in found:
        parts.append("Peers: " + ", ".join(found["rivals"]["pins"]) + ".")
    return "\n\n".join(parts) + "\n"


def _targets(found: Results) -> str:
    short = check.shortfalls(found, check.load_targets(check.TARGETS))
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
            tables.seconds(one["original"]),
            tables.seconds(one["seconds"]["median"]),
            tables.factor(one["speedup"]),
        )
        for one in profile["scenarios"].values()
    ]
    about = (
        f"{profile['about']}, {profile['questions']} questions, a judge that takes "
        f"{profile['latency']:g} s. {_where(found)}, by `{found['command']}`; "
        "[docs/benchmarks.md](docs/benchmarks.md) tells how, and what else was measured."
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
        f"Measured on {found['date']} on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}"
    )


def _busy(machine: dict[str, Any]) -> str:
    load = machine.get("load", 0.0)
    if load < 1:
        return ""
    return f" (it was not idle: its load average was {load:g} when the run began)"


def main() -> None:
    """Write from the file that is given."""
    if len(sys.argv) != 2:  # noqa: PLR2004  one argument
        sys.exit("usage: python -m benchmarks.docs RESULTS.json")
    write(results.read(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
