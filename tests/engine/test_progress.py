"""What a run reports while it works, and errors in the places of values."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.cancellable import ends, until

from cachedeval import CachedevalError, Engine, Outcome, node


@node(version="1", name="progress.double")
def double(x: int) -> int:
    if x < 0:
        raise ValueError(x)
    return 2 * x


@node(version="1", name="progress.add")
async def add(x: int, y: int) -> int:
    return x + y


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    ends(engine.close)


class Shown:
    def __init__(self) -> None:
        self.all: list[tuple[str, int, int | None]] = []

    def __call__(self, name: str, done: int, total: int | None) -> None:
        self.all.append((name, done, total))

    def last(self) -> dict[str, tuple[int, int | None]]:
        return {name: (done, total) for name, done, total in self.all}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_calls_of_each_node_are_counted(
    engine: Engine, *, known: bool, asynchronous: bool
) -> None:
    calls = [add(double(x), double(x + 1)) for x in range(50)]
    if known:
        engine.run(calls)
    shown, seen = Shown(), list[Outcome]()
    if asynchronous:
        ends(lambda: asyncio.run(engine.arun(calls, progress=shown, on_outcome=seen.append)))
    else:
        ends(lambda: engine.run(calls, progress=shown, on_outcome=seen.append))
    assert shown.last() == {"progress.double": (100, 100), "progress.add": (50, 50)}
    assert len(seen) == 150
    for name in ("progress.double", "progress.add"):
        counts = [done for each, done, _ in shown.all if each == name]
        assert counts == sorted(counts)


def test_a_map_does_not_know_how_many_there_are(engine: Engine) -> None:
    shown = Shown()
    assert sum(engine.map(double, range(3000), progress=shown)) == 8997000
    assert shown.last() == {"progress.double": (3000, None)}


def test_bars_are_drawn_on_a_terminal(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    calls = [double(x) for x in range(3)]
    assert engine.run(calls, progress=True) == [0, 2, 4]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    before = set(threading.enumerate())
    assert engine.run(calls, progress=True) == [0, 2, 4]
    assert engine.run(calls[1], progress=True) == 2
    assert list(engine.map(double, range(3), progress=True)) == [0, 2, 4]
    with pytest.raises(ValueError, match="-1"):
        engine.run(double(-1), progress=True)
    drawn = capsys.readouterr().err
    assert "progress.double" in drawn
    assert "3/3" in drawn
    until(lambda: set(threading.enumerate()) <= before, "a thread is left behind")


def test_errors_are_returned_in_the_places_of_values(engine: Engine) -> None:
    calls = [double(1), double(-1), add(double(-2), 1), double(2)]
    for found in (
        engine.run(iter(calls), return_exceptions=True),
        asyncio.run(engine.arun(iter(calls), return_exceptions=True)),
    ):
        assert [found[0], found[3]] == [2, 4]
        assert [str(error) for error in found[1:3]] == ["-1", "-2"]
        assert all(isinstance(error, ValueError) for error in found[1:3])
    alone: Any = engine.run(double(-3), return_exceptions=True)
    assert isinstance(alone, ValueError)
    assert engine.run(double(3), return_exceptions=True) == 6
    assert engine.run([], return_exceptions=True) == []


def test_a_fatal_error_is_raised_nevertheless(engine: Engine) -> None:
    class FatalError(CachedevalError):
        fatal = True

    @node(version="1", name="progress.fatal")
    def fatal(x: int) -> int:
        raise FatalError(x)

    with pytest.raises(FatalError):
        engine.run([fatal(1), double(1)], return_exceptions=True)
