"""Edits of all that a node without a version can reach: no value of before is returned."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.edits import KINDS, REFUSED, Kind, load, modules_of

from cachedeval import Engine, InputError

EDITS = 500


@pytest.fixture(autouse=True)
def _no_bytecode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The cache of compiled files knows an edit by seconds and size.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    json: Any = sys.modules.get("json")
    if hasattr(json, "edited_dumps"):
        del json.edited_dumps


def run(folder: Path, engine: Engine, kind: Kind, value: int) -> tuple[Any, Any, bool]:
    """Return a step's result from an engine, that of a new computation, and whether it was a hit."""
    with load(folder, modules_of(kind, value)) as module:
        got = engine.run(module.step(module.argument()))
        hit = not module.ran
        argument = module.argument()
        if not isinstance(argument, int | dict) and hasattr(argument, "upstream"):
            argument = engine.run(argument)
        return got, module.step.function(argument), hit


@pytest.mark.parametrize("name", KINDS)
def test_an_edit_is_a_miss(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    thorough = request.config.getoption("--thorough")
    count = 100 if thorough else -(-EDITS // len(KINDS))
    chance = random.Random(name)
    seen: set[int] = set()
    value = 0
    with Engine() as engine:
        for _ in range(count):
            value = chance.choice([each for each in range(1, 10) if each != value])
            for again in (False, True):
                got, wanted, hit = run(tmp_path, engine, KINDS[name], value)
                assert got == wanted, f"{name}: {value}"
                # What is the same as before is a hit: edits are not noticed by luck.
                assert hit or not (again or value in seen), f"{name}: {value} is computed again"
            seen.add(value)


@pytest.mark.parametrize("name", KINDS)
def test_a_script_and_its_import_are_one(name: str, tmp_path: Path) -> None:
    texts = modules_of(KINDS[name], 3)
    with Engine() as engine:
        for main in (False, True):
            with load(tmp_path, texts, main=main) as module:
                assert module.step.name == "edited.step"
                engine.run(module.step(module.argument()))
                assert not (main and module.ran)


CHANGES: dict[str, tuple[str, str, str]] = {
    "global": ("K = 1\n", "x + K", "K = 2"),
    "global that comes later": (
        "def h(x):\n    try: return x + K\n    except NameError: return x\n",
        "h(x)",
        "K = 2",
    ),
    "item": ("T = {'a': [1]}\n", "x + T['a'][0]", "T['a'][0] = 2"),
    "helper": ("def h(x): return x\n", "h(x)", "def h(x): return x + 1"),
    "builtin": ("", "len([x])", "len = sum"),
    "code of a helper": (
        "def h(x): return x\ndef i(x): return x + 1\n",
        "h(x)",
        "h.__code__ = i.__code__",
    ),
    "default": ("def h(x, k=1): return x + k\n", "h(x)", "h.__defaults__ = (2,)"),
    "attribute of a helper": (
        "def h(x): return x + getattr(h, 'k', 0)\n",
        "h(x)",
        "h.k = 2",
    ),
    "cell": (
        (
            "def make():\n    k = 1\n    def h(x): return x + k\n    def put(n):\n"
            "        nonlocal k\n        k = n\n    return h, put\nh, put = make()\n"
        ),
        "h(x)",
        "put(2)",
    ),
    "class attribute": ("class C:\n    K = 1\n", "x + C.K", "C.K = 2"),
    "new class attribute": ("class C:\n    pass\n", "x + getattr(C, 'K', 1)", "C.K = 2"),
    "method": (
        "class C:\n    def go(self, x): return x\n",
        "C().go(x)",
        "C.go = lambda self, x: x + 1",
    ),
    "base": (
        "class A:\n    k = 1\nclass B:\n    k = 2\nclass C(A):\n    pass\n",
        "x + C.k",
        "C.__bases__ = (B,)",
    ),
    "class of an instance": (
        "class A:\n    k = 1\nclass B:\n    k = 2\nc = A()\n",
        "x + c.k",
        "c.__class__ = B",
    ),
    "attribute of an instance": ("class C:\n    k = 1\nc = C()\n", "x + c.k", "c.k = 2"),
    "attribute within": (
        "class C:\n    pass\nc = C()\nc.d = C()\nc.d.k = [1]\n",
        "x + c.d.k[0]",
        "c.d.k[0] = 2",
    ),
    "slot": ("class C:\n    __slots__ = ('k',)\nc = C()\nc.k = 1\n", "x + c.k", "c.k = 2"),
    "table": ("def a(x): return x\nT = {'a': a}\n", "T['a'](x)", "T['a'] = lambda x: x + 1"),
    "list": ("def a(x): return x\nT = [a]\n", "len(T) + T[-1](x)", "T.append(a)"),
    "array": ("import array\nA = array.array('i', [1])\n", "x + A[0]", "A[0] = 2"),
    "numpy array": ("import numpy as np\nA = np.array([1])\n", "int(x + A[0])", "A[0] = 2"),
    "deque": ("from collections import deque\nD = deque([1])\n", "x + len(D)", "D.append(2)"),
    "partial": (
        "def g(t, x): return x + t[0]\nh = functools.partial(g, [1])\n",
        "h(x)",
        "h.args[0][0] = 2",
    ),
    "dispatch": (
        "@functools.singledispatch\ndef h(x): return x\n",
        "h(x)",
        "h.register(int)(lambda x: x + 1)",
    ),
    "module": ("import edited_lib\n", "x + edited_lib.K", "edited_lib.K = 2"),
    "function of a module": (
        "import edited_lib\n",
        "edited_lib.h(x)",
        "edited_lib.h = lambda x: x + 1",
    ),
    "function of a package": (
        "import json\njson.edited_dumps = json.dumps\n",
        "json.edited_dumps(x)",
        "json.edited_dumps = lambda x: x + 1",
    ),
    "enum": (
        "import enum\nclass E(enum.Enum):\n    A = 1\nE.k = lambda self: 1\n",
        "x + E.A.k()",
        "E.k = lambda self: 2",
    ),
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\np = P(1)\n",
        "x + p.a",
        "p.a = 2",
    ),
}
"""What a module holds, what its step returns, and what changes while the program runs."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_while_the_program_runs_is_a_miss(name: str, tmp_path: Path) -> None:
    prelude, result, change = CHANGES[name]
    texts = modules_of(Kind(prelude, result, "K = 1\ndef h(x): return x\n"), 0)
    with Engine() as engine, load(tmp_path, texts) as module:
        for _ in range(2):
            assert engine.run(module.step(3)) == module.step.function(3)
        exec(change, vars(module))  # noqa: S102  that is the case
        for _ in range(2):
            assert engine.run(module.step(3)) == module.step.function(3)
        assert engine.stats["edited.step"].computed == 2


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_is_refused(name: str, tmp_path: Path) -> None:
    kind, message = REFUSED[name]
    with Engine() as engine, load(tmp_path, modules_of(kind, 1)) as module:
        with pytest.raises(InputError, match="give the node a version") as raised:
            engine.run(module.step(module.argument()))
        assert message in str(raised.value)
        assert not module.ran
        for each in ("F", "c"):  # close what the module has opened
            held: Any = getattr(module, each, None)
            held = getattr(held, "s", held)
            if hasattr(held, "close"):
                held.close()
        other: Any = sys.modules.get("edited_lib")
        if hasattr(other, "F"):
            other.F.close()
