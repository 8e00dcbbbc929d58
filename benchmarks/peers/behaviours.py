"""What caches do with everyday cases: the same small programs on each, and the table of the results.

    python -m benchmarks.peers.behaviours            measure all that is installed, and write the table
    python -m benchmarks.peers.behaviours CASE…      measure some cases again
    python -m benchmarks.peers.behaviours --table    write the table from the stored results

A case is one program or two that run one after the other, each in a process of its own, on one
folder. The results are stored in `behaviours.json`, so that the table can be written, and cachedeval's
own column tested, where the peers are not installed. The peers' environment is that of the
benchmarks: `python -m benchmarks.peers.environment`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import REPOSITORY
from benchmarks.peers.environment import PYTHON

__all__ = [
    "BEGIN",
    "CACHES",
    "CASES",
    "END",
    "RESULTS",
    "interpreter",
    "measure",
    "stored",
    "table",
]

RESULTS = Path(__file__).with_name("behaviours.json")
PAGE = REPOSITORY / "docs" / "engine.md"
BEGIN = "<!-- peers: written by python -m benchmarks.peers.behaviours -->"
END = "<!-- /peers -->"

_LIMIT_S = 300

CACHES = {
    "cachedeval": """
from cachedeval import Engine, node as cached
engine = Engine("disk:" + FOLDER)
def get(f, *args, **kwargs): return engine.run(f(*args, **kwargs))
def aget(f, *args): return get(f, *args)
""",
    "functools": """
from functools import cache as cached
def get(f, *args, **kwargs): return f(*args, **kwargs)
""",
    "joblib": """
import joblib
cached = joblib.Memory(FOLDER, verbose=0).cache
def get(f, *args, **kwargs): return f(*args, **kwargs)
""",
    "diskcache": """
import diskcache
cached = diskcache.Cache(FOLDER).memoize()
def get(f, *args, **kwargs): return f(*args, **kwargs)
""",
    "redun": """
from redun import Scheduler, task
from redun.config import Config
os.makedirs(FOLDER, exist_ok=True)
scheduler = Scheduler(config=Config({"backend": {"db_uri": f"sqlite:///{FOLDER}/redun.db"}}))
scheduler.load()
def cached(f):
    options = {"cache": True, "check_valid": "shallow"} if f.__code__.co_flags & 0x80 else {}
    return task(namespace="case", name=f.__name__, **options)(f)
def get(f, *args, **kwargs): return scheduler.run(f(*args, **kwargs))
def aget(f, *args): return get(f, *args)
""",
    "Hamilton": """
import inspect
from hamilton import ad_hoc_utils, driver
def cached(f):
    module = ad_hoc_utils.create_temporary_module(f, module_name="case_" + f.__name__)
    return f, driver.Builder().with_modules(module).with_cache(path=FOLDER).build()
def get(cached, *args, **kwargs):
    f, graph = cached
    inputs = inspect.signature(f).bind(*args, **kwargs).arguments
    return graph.execute([f.__name__], inputs=inputs)[f.__name__]
""",
}
"""What opens each cache, by name: `cached` is its decorator, and `get` calls what it returns."""

_START = """
import logging, os, sys
from typing import Any
FOLDER = sys.argv[1]
logging.disable()
"""

_AWAIT = """
if "aget" not in globals():
    import asyncio
    def aget(f, *args):
        async def wait(): return await get(f, *args)
        return asyncio.run(wait())
"""

_TALLY = '''
import os, sys
PATH = sys.argv[1] + ".tally"
def tally() -> None:
    """Count a computation."""
    with open(PATH, "a") as file: file.write("x")
def computed() -> int:
    """Return how many computations there were."""
    return os.path.getsize(PATH) if os.path.exists(PATH) else 0
'''


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        question: what a user asks; the answer is yes or no.
        programs: run one after the other; each prints one line.
        answer: returns the answer from the lines.
        between: called with the folder between two programs.
        at_once: how many processes run the last program at the same time.
    """

    question: str
    programs: tuple[str, ...]
    answer: Callable[[list[str]], str]
    between: Callable[[Path], None] = lambda _: None
    at_once: int = 1


def _yes(*wanted: str) -> Callable[[list[str]], str]:
    """Return an answer: yes if the last line is a wanted one, or how it failed."""

    def answer(lines: list[str]) -> str:
        last = lines[-1]
        if last in wanted:
            return "yes"
        return last if last.startswith(("raises", "nothing")) else "no"

    return answer


def _damage(folder: Path) -> None:
    """Change one character of every stored text that has a run of a hundred `A`."""
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if b"A" * 100 in data:
                path.write_bytes(data.replace(b"A" * 100, b"A" * 99 + b"B"))


_HELPER = """
def helper(x: int) -> int: return x + {0}
@cached
def step(x: int) -> int: return helper(x)
print(get(step, 1))
"""
_BODY = """
@cached
def step(x: int) -> int:
    {0}
    return x + {1}
print(get(step, 1))
"""
_COUNTED = """
from tally import computed, tally
@cached
def step(x: int) -> int:
    {0}
    tally()
    return x
get(step, 1)
print(computed())
"""

CASES = {
    "persists": Case(
        "Is a result found by the next process?",
        (_COUNTED.format("'''Step.'''"),) * 2,
        _yes("1"),
    ),
    "edited": Case(
        "Is an edit of the function seen?",
        (_BODY.format("pass", 1), _BODY.format("pass", 2)),
        _yes("3"),
    ),
    "helper": Case(
        "Is an edit of a function that it calls seen?",
        (_HELPER.format(1), _HELPER.format(2)),
        _yes("3"),
    ),
    "comment": Case(
        "Does a result outlive an edited comment?",
        (_COUNTED.format("# one"), _COUNTED.format("# another")),
        _yes("1"),
    ),
    "kinds": Case(
        "Are `1`, `True` and `1.0` told apart?",
        (
            """
@cached
def step(x: Any) -> str: return type(x).__name__
print([get(step, 1), get(step, True), get(step, 1.0)])
""",
        ),
        _yes("['int', 'bool', 'float']"),
    ),
    "zeros": Case(
        "Are `0.0` and `-0.0` told apart?",
        (
            """
import math
@cached
def step(x: float) -> float: return math.copysign(1.0, x)
print([get(step, 0.0), get(step, -0.0)])
""",
        ),
        _yes("[1.0, -1.0]"),
    ),
    "order": Case(
        "Is the order of a dict seen?",
        (
            """
@cached
def step(d: dict) -> list: return list(d)
print([get(step, {"a": 1, "b": 2}), get(step, {"b": 2, "a": 1})])
""",
        ),
        _yes("[['a', 'b'], ['b', 'a']]"),
    ),
    "arguments": Case(
        "Are `f(1)`, `f(x=1)` and `f(1, y=2)` one result, if `y` is 2 by default?",
        (
            """
from tally import computed, tally
@cached
def step(x: int, y: int = 2) -> int:
    tally()
    return x
get(step, 1), get(step, x=1), get(step, 1, y=2)
print(computed())
""",
        ),
        _yes("1"),
    ),
    "mutation": Case(
        "Is a stored result safe from a caller that changes what it got?",
        (
            """
@cached
def step(x: int) -> list: return [x]
get(step, 1).append(2)
got = get(step, 1)
got.append(3)
print(get(step, 1))
""",
        ),
        _yes("[1]"),
    ),
    "failure": Case(
        "Is a step that failed tried again?",
        (
            """
from tally import computed, tally
@cached
def step(x: int) -> int:
    tally()
    raise ValueError(x)
for _ in range(2):
    try: get(step, 1)
    except Exception: pass
print(computed())
""",
        ),
        _yes("2"),
    ),
    "async": Case(
        "Are results of `async def` cached?",
        (
            _AWAIT
            + """
from tally import computed, tally
@cached
async def step(x: int) -> int:
    tally()
    return x + 1
aget(step, 1)
print([aget(step, 1), computed()])
""",
        ),
        _yes("[2, 1]"),
    ),
    "at once": Case(
        "Do four processes that need a result at once compute it once?",
        (
            "print(0)",  # creates the cache
            """
import time
from tally import computed, tally
@cached
def step(x: int) -> int:
    tally()
    time.sleep(3)
    return x
open(f"{FOLDER}.ready.{os.getpid()}", "w").close()
here, name = os.path.split(FOLDER)
end = time.monotonic() + 60  # another one may have failed to open the cache
while sum(each.startswith(name + ".ready.") for each in os.listdir(here)) < 4:
    if time.monotonic() > end: break
    time.sleep(0.01)
get(step, 1)
print(computed())
""",
        ),
        _yes("1"),
        at_once=4,
    ),
    "damage": Case(
        "Is a stored value that was damaged noticed?",
        (
            """
@cached
def step(x: int) -> str: return "A" * 2000
right = get(step, 1) == "A" * 2000
print(right if os.path.exists(FOLDER) else "nothing is stored")
""",
        )
        * 2,
        _yes("True"),
        between=_damage,
    ),
    "pickle": Case(
        "Is it free of pickle?",
        (
            """
@cached
def step(x: int) -> dict: return {"x": x}
get(step, 1)
files = [os.path.join(at, name) for at, _, names in os.walk(FOLDER) for name in names]
data = b"".join(open(path, "rb").read() for path in files)
print("nothing is stored" if not files else not any(b"\\x80" + bytes([n]) in data for n in (3, 4, 5)))
""",
        ),
        _yes("True"),
    ),
    "objects": Case(
        "Is a result of any class cached, without a codec?",
        (
            """
from tally import computed, tally
class Odd:
    def __init__(self, x: int) -> None: self.x = x
@cached
def step(x: int) -> Any:
    tally()
    return Odd(x)
print([get(step, 1).x, get(step, 1).x, computed()])
""",
        ),
        _yes("[1, 1, 1]"),
    ),
}
"""The rows, by name."""


def interpreter(cache: str) -> str | None:
    """Return the Python in which a cache is installed, or None."""
    if cache in {"cachedeval", "functools", "diskcache"}:
        return sys.executable
    return str(PYTHON) if PYTHON.exists() else None


def measure(cache: str, case: Case) -> str:
    """Run a case on a cache; return `yes`, `no`, or what it raises."""
    python = interpreter(cache)
    assert python is not None, f"{cache} is not installed"  # noqa: S101  the caller's part
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "cache")
        Path(root, "tally.py").write_text(_TALLY)
        lines: list[str] = []
        for number, program in enumerate(case.programs):
            if number:
                case.between(folder)
            script = Path(root, "program.py")
            script.write_text(_START + CACHES[cache] + program)
            last = number == len(case.programs) - 1
            lines += _run([python, str(script), str(folder)], case.at_once if last else 1)
        return case.answer(lines)


def _run(words: Sequence[str], at_once: int) -> list[str]:
    """Run a program in some processes; return the last line of each, the worst one last."""
    path = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'backends'}"
    running = [
        subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        for _ in range(at_once)
    ]
    lines = []
    for process in running:
        out, err = process.communicate(timeout=_LIMIT_S)
        if process.returncode:
            raised = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception))\b", err, re.MULTILINE)
            lines.append(f"raises `{raised[-1] if raised else 'Error'}`")
        else:
            lines.append((out.strip() or "").splitlines()[-1])
    return sorted(lines)


def stored() -> dict[str, dict[str, str]]:
    """Return the stored answers of each case, by cache."""
    answers: dict[str, dict[str, str]] = json.loads(RESULTS.read_text("utf-8"))["answers"]
    return answers


def table() -> str:
    """Return the table of the stored answers, with its markers."""
    results = json.loads(RESULTS.read_text("utf-8"))
    names = list(CACHES)
    lines = [BEGIN, "| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for name, case in CASES.items():
        answers = results["answers"].get(name, {})
        lines.append(
            f"| {case.question} | " + " | ".join(answers.get(each, "?") for each in names) + " |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines += ["", f"Measured with {versions}.", END]
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json; print(json.dumps({n: m.version(d) for n, d in "
        "{'joblib': 'joblib', 'redun': 'redun', 'Hamilton': 'apache-hamilton'}.items()}))"
    )
    found: dict[str, str] = json.loads(subprocess.check_output([str(PYTHON), "-c", code]))
    from importlib.metadata import version  # noqa: PLC0415  only here

    python = ".".join(map(str, sys.version_info[:3]))
    return {"Python": python, "diskcache": version("diskcache"), **found}


def main() -> None:
    """Measure, store the results, and write the table into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.behaviours")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="cases; by default all")
    options = parser.parse_args()
    if not options.table:
        answers = stored() if options.cases else {}
        for name in options.cases or CASES:
            answers[name] = {cache: measure(cache, CASES[name]) for cache in CACHES}
            print(name, answers[name], flush=True)
        text = json.dumps({"versions": _versions(), "answers": answers}, indent=2)
        RESULTS.write_text(text + "\n", "utf-8")
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + table() + after, "utf-8")


if __name__ == "__main__":
    main()
