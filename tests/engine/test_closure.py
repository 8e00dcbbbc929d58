import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cachedeval import Call, Engine, InputError, Node, node
from cachedeval.engine.reads import only_written

SCALE = 2
TABLE = {"a": 1}
seen: list[int] = []
counts: dict[str, int] = {"n": 0}
LOCK = threading.Lock()


def times(factor: Any, *, version: str | None = "1") -> Node[int]:
    def multiply(x: int) -> int:
        return int(x * factor)

    return node(version=version)(multiply)


@pytest.mark.parametrize("version", ["1", None])
def test_a_closure_is_known_by_what_it_closes_over(version: str | None) -> None:
    with Engine() as engine:
        assert engine.run([times(k, version=version)(10) for k in (1, 2, 1.0, 2)]) == [
            10,
            20,
            10,
            20,
        ]
        stats = engine.stats[times(1).name]
        assert (stats.computed, stats.hits) == (3, 1)


def test_a_loop_that_changes_a_closure_is_reported() -> None:
    calls: list[Call[int]] = []
    for k in range(3):

        @node(version="1", name="looped")
        def f(x: int) -> int:
            return x * k  # noqa: B023  that is the case

        calls.append(f(10))
    with Engine() as engine:
        outcomes = engine.settle(calls)
        assert [o.state for o in outcomes] == ["failed", "failed", "computed"]
        assert "reads 'k' from its closure or module, which has changed" in str(outcomes[0].error)
        assert outcomes[2].value == 20


def test_a_default_is_bound_at_once() -> None:
    calls: list[Call[int]] = []
    for k in range(3):

        @node(version="1", name="looped")
        def f(x: int, k: int = k) -> int:
            return x * k

        calls.append(f(10))
    with Engine() as engine:
        assert engine.run(calls) == [0, 10, 20]


def test_a_global_counts_without_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    @node
    def scaled(x: int) -> int:
        return x * SCALE + TABLE["a"]

    with Engine() as engine:
        assert engine.run(scaled(1)) == 3
        monkeypatch.setitem(globals(), "SCALE", 3)
        assert engine.run(scaled(1)) == 4
        monkeypatch.setitem(TABLE, "a", 5)
        assert engine.run(scaled(1)) == 8
        monkeypatch.undo()
        assert engine.run(scaled(1)) == 3
        assert engine.stats[scaled.name].computed == 3


def test_a_version_answers_for_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    @node(version="1")
    def scaled(x: int) -> int:
        return x * SCALE

    with Engine() as engine:
        assert engine.run(scaled(1)) == 2
        monkeypatch.setitem(globals(), "SCALE", 3)
        assert engine.run(scaled(1)) == 2


def test_a_global_changed_before_the_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    @node
    def scaled(x: int) -> int:
        return x * SCALE

    call = scaled(1)
    monkeypatch.setitem(globals(), "SCALE", 3)
    with Engine() as engine, pytest.raises(InputError, match=r"'SCALE'.*changed since the call"):
        engine.run(call)


def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


def test_helpers_that_call_each_other() -> None:
    @node
    def parity(n: int) -> str:
        return "even" if even(n) else "odd"

    with Engine() as engine:
        assert engine.run([parity(4), parity(5)]) == ["even", "odd"]


def test_closures_that_call_each_other() -> None:
    def make() -> Node[bool]:
        def one(n: int) -> bool:
            return n == 0 or other(n - 1)

        def other(n: int) -> bool:
            return n != 0 and one(n - 1)

        return node(version="1")(one)

    with Engine() as engine:
        assert engine.run(make()(4)) is True


@pytest.mark.parametrize("version", ["1", None])
def test_a_function_that_calls_itself(version: str | None) -> None:
    def make() -> Node[int]:
        @node(version=version)
        def factorial(n: int) -> int:
            return 1 if n == 0 else n * factorial.function(n - 1)

        return factorial

    with Engine() as engine:
        assert engine.run(make()(5)) == 120


def test_captured_lambdas_of_one_line_differ() -> None:
    def make(score: Callable[[int], int]) -> Node[int]:
        @node(version="1")
        def f(x: int) -> int:
            return score(x)

        return f

    double, triple = (lambda x: x * 2), (lambda x: x * 3)
    with Engine() as engine:
        assert engine.run([make(double)(1), make(triple)(1)]) == [2, 3]


class Scorer:
    def __call__(self, x: int) -> int:
        return x + 1


class OtherScorer:
    def __call__(self, x: int) -> int:
        return x + 2


@pytest.mark.parametrize(
    "scorers",
    [
        (partial(pow, 2), partial(pow, 3)),
        (Scorer(), OtherScorer()),
        (Scorer().__call__, OtherScorer().__call__),
        (int, float),
        (math.floor, math.ceil),
    ],
)
def test_with_a_version_captured_code_counts(scorers: Any) -> None:
    def make(score: Any) -> Node[Any]:
        @node(version="1")
        def f(x: int) -> Any:
            return score(x)

        return f

    with Engine() as engine:
        engine.run([make(score)(3) for score in scorers])
        assert engine.stats[make(len).name].computed == 2


def test_a_captured_function_counts_by_its_code() -> None:
    def make(score: Callable[[int], int]) -> Node[int]:
        @node(version="1")
        def f(x: int) -> int:
            return score(x)

        return f

    def double(x: int) -> int:
        return x * 2

    def triple(x: int) -> int:
        return x * 3

    with Engine() as engine:
        assert engine.run([make(double)(1), make(triple)(1)]) == [2, 3]


def test_a_client_needs_a_version() -> None:
    def make(version: str | None) -> Node[int]:
        words = iter(["a"])

        def f(x: int) -> int:
            return x + len(list(words))

        return node(version=version)(f)

    with pytest.raises(InputError, match="reads 'words', a list_iterator that cannot be part of a"):
        make(None)(1)
    with Engine() as engine:
        assert engine.run(make("1")(1)) == 2


def test_a_lock_needs_none() -> None:
    slots = threading.Semaphore(2)

    @node
    def f(x: int) -> int:
        with LOCK, slots:
            return x

    with Engine() as engine:
        assert engine.run([f(1), f(2)]) == [1, 2]


def test_what_is_only_written_to_is_no_input() -> None:
    log: list[int] = []
    raised = 0

    @node(version="1")
    def f(x: int) -> int:
        nonlocal raised
        raised += 1
        log.append(x)
        return x

    @node
    def g(x: int) -> int:
        seen.append(x)
        counts["n"] += 1
        return x

    with Engine() as engine:
        assert [engine.run([f(1), g(1)]) for _ in range(3)] == [[1, 1]] * 3
    assert (raised, log, counts["n"]) == (1, [1], 1)


def test_what_is_read_is_an_input_even_if_it_is_written_to_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memo: dict[int, int] = {}

    @node(version="1")
    def f(x: int) -> int:
        if x not in memo:
            memo[x] = len(memo)
        return memo[x]

    with Engine() as engine, caplog.at_level(logging.WARNING, "cachedeval"):
        assert engine.run(f(7)) == 0
        memo[0] = 5
        assert engine.run([f(7), f(0), f(8)]) == [0, 5, 2]
        memo[8] = 9
        assert engine.run(f(8)) == 9
    assert [": memo / 7 changed while it ran" in r.getMessage() for r in caplog.records] == [True]


def test_a_nonlocal_that_is_read_is_an_input() -> None:
    count = 0

    @node(version="1")
    def f(x: int) -> int:
        nonlocal count
        count += 1
        return x * count

    with Engine() as engine:
        assert [engine.run(f(1)) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ("out.append(1)", True),
        ("out[0] = 1", True),
        ("out[0] += 1", True),
        ("out.append(len(out))", False),
        ("out[0] = out", False),
        ("return out.append(1)", False),
        ("out.pop()", False),
        ("return out", False),
        ("out.append(1); return out[0]", False),
        ("return [out for x in ()]", False),
        ("pass", False),
    ],
)
def test_only_written(tmp_path: Any, body: str, written: bool) -> None:  # noqa: FBT001
    path = tmp_path / "made.py"
    path.write_text(f"def outer(out):\n    def f():\n        {body}\n    return f\n")
    made: dict[str, Any] = {}
    exec(compile(path.read_text(), path, "exec"), made)  # noqa: S102  it needs a file of its own
    assert only_written(made["outer"]([]).__code__, "out") is written
