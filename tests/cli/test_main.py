"""The way in: help, mistakes in one line, and nothing imported that is not needed."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from support.workplace import Finished, Workplace, environment

from cachedeval import __version__
from cachedeval.cli.main import COMMANDS, execute, main
from cachedeval.engine.errors import BackendError, InputError, MissingError
from cachedeval.services.errors import AuthenticationError, RateLimitError

pytestmark = pytest.mark.slow

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


def test_the_list_of_commands_imports_none_of_them(tmp_path: Path) -> None:
    found = imported(["--help"], tmp_path)
    assert {name for name in found if name.startswith("cachedeval")} == {
        *["cachedeval", "cachedeval.cli", "cachedeval.cli.main", "cachedeval.cli.streams"],
        *["cachedeval.engine", "cachedeval.engine.errors"],
    }
    assert found & {"argparse", "typing", "re", "json"} == set()


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
        (["cache", "sats"], "no command 'sats'; did you mean stats? (see cachedeval cache --help)"),
        (["nothing-like-it"], "there is no command 'nothing-like-it' (see cachedeval --help)"),
        (["run"], "--data is missing (see cachedeval run --help)"),
        (["--verbos"], "there is no option '--verbos'; did you mean --version?"),
        (["plan", "--modl", "x"], "there is no option --modl; did you mean --model?"),
        (["plan", "--modl=x"], "there is no option --modl; did you mean --model?"),
        (["plan", "--mode", "x"], "there is no option --mode"),
        (["plan", "--data", "x", "y"], "unexpected argument 'y' (see cachedeval plan --help)"),
        (["run", "--data", "x", "--num-questions", "many"], "'many' is not a whole number"),
        (["run", "--data", "x", "--memory-budget", "much"], "'much' is not a size; give one like"),
        (["cache", "prune", "--older-than", "long"], "'long' is not a duration; give one like 30d"),
        (["cache", "prune", "--older-than", "99999999999999d"], "is not a duration"),
        (["cache", "ls", "--limit", "-1"], "-1 is too small; give 0 or more"),
        (["compare", "a"], "B is missing (see cachedeval compare --help)"),
        (["compare", "--data", "x"], "A is missing"),
        (["compare", "a", "b", "--adapter", "c"], "there is no option --adapter"),
        (["run", "--data", "x", "--offline", "--no-cache"], "not allowed with argument --offline"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_usage_error_is_one_line(place: Workplace, arguments: list[str], said: str) -> None:
    assert said in complaint(place.run(*arguments))


def test_no_command_at_all_shows_the_help(place: Workplace) -> None:
    for arguments in ([], ["cache"]):
        done = place.run(*arguments)
        assert "Commands:" in done.out + done.err


def test_every_command_is_listed_and_has_help(place: Workplace) -> None:
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


def test_every_command_has_a_module_that_declares_and_executes() -> None:
    def modules(package: str, commands: Iterable[str]) -> Iterator[ModuleType]:
        for command in commands:
            module = import_module(f"{package}.{command}")
            if hasattr(module, "COMMANDS"):
                yield from modules(module.__name__, module.COMMANDS)
            else:
                yield module

    found = list(modules("cachedeval.cli", COMMANDS))
    assert len(found) > len(COMMANDS)
    for module in found:
        assert module.__all__[:2] == ["declare", "execute"]
        assert module.execute.__doc__, "it is the command's help"


_ENDS = """
import atexit, sys, threading, time
from cachedeval.cli.main import console
atexit.register(lambda: print("exit function", flush=True))
def work():
    time.sleep(0.3)
    print("thread")
threading.Thread(target=work).start()
sys.argv[1:] = {arguments!r}
console()
"""


@pytest.mark.parametrize(
    ("arguments", "status", "out"),
    [
        (["--version"], 0, f"cachedeval {__version__}\nthread\nexit function\n"),
        (["nothing-like-it"], 2, "thread\nexit function\n"),
    ],
)
def test_the_program_ends_as_every_program_does(
    arguments: list[str], status: int, out: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENDS.format(arguments=arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, out)


def test_a_profiler_sees_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cProfile", "-m", "cachedeval", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "function calls" in done.stdout


def test_the_library_s_main_leaves_the_process_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        main(["run", "--bad"])
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == f"cachedeval {__version__}\n"
    assert shown.err == "cachedeval: there is no option --bad (see cachedeval run --help)\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("bad\x1b[2J\ninput"), 2),
        (MissingError("not there"), 2),
        (BackendError("the server went away"), 3),
        (RateLimitError("too fast"), 3),
        (AuthenticationError("wrong key"), 2),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_a_command_fails(
    error: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cachedeval.evals.doctor.examine", fail)
    assert execute(["doctor"]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "\x1b" not in shown.err
    assert shown.err.strip().startswith("cachedeval: ")
    assert len(shown.err.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["doctor"], ["doctor", "--json"]])
def test_a_full_disk_is_one_line(place: Workplace, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cachedeval", *arguments],
            cwd=place.root,
            env=environment({"CACHEDEVAL_JUDGE": "f1"}),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr == ("cachedeval: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize(("closed", "status"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)])
def test_closed_streams_are_no_error(place: Workplace, closed: str, status: int) -> None:
    program = f"exec '{sys.executable}' -m cachedeval --version {closed}"
    done = subprocess.run(["sh", "-c", program], cwd=place.root, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (status, b"")


def test_a_cache_in_the_environment_is_used(place: Workplace, tmp_path: Path) -> None:
    done = place.run("cache", "stats", "--json", env={"CACHEDEVAL_CACHE": f"disk:{tmp_path}"})
    assert json.loads(done.out)["cache"] == f"disk:{tmp_path}"


@pytest.mark.parametrize("columns", [60, 200])
def test_help_fits_the_terminal(place: Workplace, columns: int) -> None:
    shown = place.run("compare", "--help", env={"COLUMNS": str(columns)}).out
    widths = [len(line) for line in shown.splitlines()]
    assert columns * 0.7 < max(widths) <= columns
    assert "\n\nA and B are two reports" in shown
