"""The way in: help, mistakes in one line, and nothing imported that is not needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.workplace import Finished, Workplace, environment

_LOOK = """
import sys
from cachedeval.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    status = end.code
sys.stderr.write("MODULES " + " ".join(sys.modules) + " STATUS " + str(status))
"""


def imported(arguments: list[str], cwd: Path) -> set[str]:
    """Return the modules that are imported once a command has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK.format(arguments=arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *_, told = done.stderr.partition("MODULES ")
    modules, _, status = told.partition(" STATUS ")
    assert status == "0", done.stderr
    return set(modules.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in ("run", "plan", "explain", "compare", "doctor", "cache")),
        ["cache", "verify", "--help"],
        ["cache", "audit", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    heavy = {"rich", "mlx", "mlx_lm", "transformers", "diskcache", "asyncio", "httpx", "sqlite3"}
    heavy |= {"cerebras", "openai", "numpy", "concurrent.futures"}
    assert imported(arguments, tmp_path) & heavy == set()


def complaint(finished: Finished) -> str:
    """Return the one line of a command that was used wrongly."""
    assert finished.status == 2
    assert finished.out == ""
    assert finished.err.startswith("cachedeval: ")
    assert finished.err.count("\n") == 1
    assert finished.err.endswith("\n")
    return finished.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pln"], "no command 'pln'; did you mean plan? (see cachedeval --help)"),
        (["prune"], "did you mean cache prune?"),
        (["audit", "--sample", "3"], "did you mean cache audit?"),
        (["cache", "sats"], "stats"),
        (["run"], "Missing option '--data' (see cachedeval run --help)"),
        (["plan", "--modl", "x"], "No such option '--modl'"),
        (["run", "--data", "x", "--num-questions", "many"], "'many' is not a valid integer"),
        (["run", "--data", "x", "--memory-budget", "much"], "'much' is no size; give one like"),
        (["cache", "prune", "--older-than", "long"], "'long' is no time; give one like 30d"),
        (["cache", "prune", "--older-than", "99999999999999d"], "is no time"),
        (["compare", "a"], "Missing argument 'B'"),
        (["compare", "a", "b", "--adapter", "c"], "No such option '--adapter'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(place: Workplace, arguments: list[str], said: str) -> None:
    assert said in complaint(place.run(*arguments))


def test_no_command_at_all_shows_the_help(place: Workplace) -> None:
    for arguments in ([], ["cache"]):
        done = place.run(*arguments)
        assert "Commands:" in done.out + done.err


def test_every_command_is_listed_and_tells_its_options(place: Workplace) -> None:
    listed = place.run("--help").out
    for name in ("cache", "compare", "demo", "doctor", "explain", "plan", "run"):
        assert f"\n  {name} " in listed
        done = place.run(name, "--help")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(f"Usage: cachedeval {name}")


def test_a_reader_that_leaves_early_is_no_error(place: Workplace) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cachedeval", "doctor", "--json"],
        cwd=place.root,
        env=environment({"CACHEDEVAL_JUDGE": "f1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 128 + 13


def test_a_cache_in_the_environment_is_used(place: Workplace, tmp_path: Path) -> None:
    done = place.run("cache", "stats", "--json", env={"CACHEDEVAL_CACHE": f"disk:{tmp_path}"})
    assert json.loads(done.out)["cache"] == f"disk:{tmp_path}"
