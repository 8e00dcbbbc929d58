import math
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.faulty import FaultyBackend

from cachedeval import Engine, Entry, InputError, node
from cachedeval.engine.errors import BackendError
from cachedeval.engine.labels import price_class, text_of
from cachedeval.engine.maintenance import choose, lines_of

NOW = 1_000_000.0


def entry(name: int, size: int = 10, used: float = NOW, created: float = 0.0) -> Entry:
    return Entry(bytes([name]) * 16, size, created, used, 0)


def kept(entries: list[Entry], **bounds: Any) -> list[int]:
    bounds = {"older_than": None, "max_bytes": None, **bounds}
    gone, stay = choose(entries, now=NOW, **bounds)
    assert sorted([*gone, *stay]) == sorted(entries)
    return sorted(entry.key[0] for entry in stay)


def test_by_age() -> None:
    entries = [entry(n, used=NOW - n * 10) for n in range(5)]
    assert kept(entries, older_than=20) == [0, 1, 2]
    assert kept(entries, older_than=0) == [0]
    assert kept(entries, older_than=1e9) == [0, 1, 2, 3, 4]


def test_by_size_what_was_used_least_recently_goes_first() -> None:
    entries = [entry(n, used=NOW - n) for n in range(5)]
    assert kept(entries, max_bytes=50) == [0, 1, 2, 3, 4]
    assert kept(entries, max_bytes=49) == [0, 1, 2, 3]
    assert kept(entries, max_bytes=25) == [0, 1]
    assert kept(entries, max_bytes=0) == []


def test_by_both() -> None:
    entries = [entry(n, used=NOW - n * 10) for n in range(5)]
    assert kept(entries, older_than=35, max_bytes=1000) == [0, 1, 2, 3]
    assert kept(entries, older_than=35, max_bytes=20) == [0, 1]
    assert kept(entries, older_than=5, max_bytes=1000) == [0]


def test_what_comes_from_the_future_counts_as_used_now() -> None:
    entries = [entry(0, used=NOW + 1e6), entry(1, used=NOW - 1), entry(2, used=NOW)]
    assert kept(entries, older_than=0.5) == [0, 2]
    assert kept(entries, max_bytes=20) == [0, 2]


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.binary(min_size=16, max_size=16),
        st.integers(0, 100),
        st.floats(0, 2 * NOW),
        st.floats(0, 2 * NOW),
        st.integers(0, 9),
    ),
    unique_by=lambda entry: entry.key,
)


@given(ENTRIES, st.none() | st.floats(0, NOW), st.none() | st.integers(0, 1000))
def test_the_bounds_hold_and_nothing_goes_without_need(
    entries: list[Entry], older_than: float | None, max_bytes: int | None
) -> None:
    gone, stay = choose(entries, now=NOW, older_than=older_than, max_bytes=max_bytes)
    assert {*gone, *stay} == {*entries}
    assert max_bytes is None or sum(e.size for e in stay) <= max_bytes
    assert older_than is None or all(NOW - e.used <= older_than for e in stay)
    young = [e for e in gone if older_than is None or NOW - e.used <= older_than]
    if young:
        assert max_bytes is not None
        assert sum(e.size for e in stay) + young[-1].size > max_bytes
    if young and stay:
        assert max(map(_rank, young)) <= min(map(_rank, stay))


def _rank(entry: Entry) -> tuple[int, float]:
    return price_class(entry), min(entry.used, NOW)


def test_what_is_cheap_to_compute_goes_before_what_is_expensive() -> None:
    prices = [
        (None, 0.0),
        (text_of("cheap", (), ()), 0.005),
        (text_of("slow", (), ()), 3.0),
        (text_of("slower", (), ()), 300.0),
        (text_of("(file)", (), ()), 0.0),
        (text_of("judge", (), ("prompt_tokens",)), 0.5),
        (text_of("judge", (), ("prompt_tokens",)), 50.0),
    ]
    entries = [
        entry(n, used=NOW - n)._replace(label=label, seconds=seconds)
        for n, (label, seconds) in enumerate(prices)
    ]
    for left in range(1, 6):
        assert kept(entries, max_bytes=10 * left) == list(range(7 - left, 7))
    assert kept(entries, max_bytes=0) == []


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 1e300])
def test_a_price_that_makes_no_sense_is_one(seconds: float) -> None:
    assert 0 <= price_class(entry(1)._replace(seconds=seconds)) < 1000


@node(version="1", name="tagged", tags=("mine", "old"))
def tagged(x: int) -> int:
    return x


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("which", "left"),
    [
        ({"node": "text"}, ["tagged", "tagged"]),
        ({"tag": "mine"}, ["text", "text", "text"]),
        ({"tag": "mine", "node": "text"}, ["tagged", "tagged", "text", "text", "text"]),
        ({"node": "tagged", "older_than": timedelta(days=1)}, ["tagged"] * 2 + ["text"] * 3),
        ({"node": "tagged", "max_bytes": 0}, ["text"] * 3),
    ],
)
def test_a_prune_of_a_node_or_a_tag_leaves_the_others(
    which: dict[str, Any], left: list[str], *, labelled: bool
) -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run([*map(text, range(3)), *map(tagged, range(2))])
        if not labelled:  # as an older version stored them
            backend.put_many(backend.get_many([entry.key for entry in backend.scan()]))
            assert {entry.label for entry in backend.scan()} == {None}
        assert engine.prune(**which).kept + engine.prune(**which).deleted <= 5
        assert [line.node for line in lines_of(engine.store)] == left


@node(version="1", name="text")
def text(x: int) -> str:
    return f"{x}" * 1000


def test_an_engine_prunes_what_was_used_least_recently() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        for n in range(10):
            engine.run(text(n))
            time.sleep(0.002)
        engine.run([text(n) for n in (0, 1, 2)])  # not noted yet, and yet it counts
        total = sum(entry.size for entry in backend.scan())
        dry = engine.prune(max_bytes=total // 2, dry_run=True)
        assert (dry.deleted, dry.kept, dry.dry_run) == (5, 5, True)
        assert len(list(backend.scan())) == 10
        real = engine.prune(max_bytes=total // 2)
        assert real == dry._replace(dry_run=False)
        assert (real.freed, real.kept_bytes) == (total // 2, total // 2)
        assert sum(entry.size for entry in backend.scan()) <= total // 2
        plan = {n: engine.plan([text(n)])["text"].hits for n in range(10)}
        assert [n for n, hits in plan.items() if hits] == [0, 1, 2, 8, 9]
        assert engine.prune(older_than=timedelta(days=1)).deleted == 0
        time.sleep(0.02)
        assert engine.prune(older_than=timedelta(seconds=0.01)).deleted == 5
        assert engine.run(text(1)) == "1" * 1000


def test_a_clock_that_is_set_back_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(FaultyBackend()) as engine:
        engine.run([text(n) for n in range(3)])
        then = time.time()
        monkeypatch.setattr(time, "time", lambda: then - 1e6)
        assert engine.prune(older_than=timedelta(hours=1)).deleted == 0
        engine.run(text(0))
        assert engine.prune(older_than=timedelta(hours=1)).deleted == 0
        monkeypatch.setattr(time, "time", lambda: then + 7200)
        assert engine.prune(older_than=timedelta(hours=1)).kept == 0


def test_many_are_deleted_in_parts() -> None:
    backend = FaultyBackend()
    backend.put_many({n.to_bytes(16, "big"): b"x" for n in range(2500)})
    with Engine(backend) as engine:
        assert engine.prune(max_bytes=0).deleted == 2500
    assert backend.counts["delete"] == 3


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "give an age"),
        ({"older_than": timedelta(seconds=-1)}, "cannot be negative"),
        ({"max_bytes": -1}, "cannot be negative"),
    ],
)
def test_bounds_are_checked(bounds: dict[str, Any], message: str) -> None:
    with Engine() as engine, pytest.raises(InputError, match=message):
        engine.prune(**bounds)


@pytest.mark.parametrize("operation", ["scan", "delete"])
def test_a_cache_that_cannot_be_pruned(operation: str) -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run(text(1))
        backend.broken = {operation}
        with pytest.raises(BackendError, match=r"the cache cannot be pruned: .*no room"):
            engine.prune(max_bytes=0)
