import threading
import time
from collections.abc import Iterator

import pytest

from cachedeval.engine.lane import Lane
from cachedeval.engine.threads import Threads


def test_steps_take_turns_on_one_thread() -> None:
    lane = Lane("test")
    turns: list[tuple[str, int]] = []
    threads = set()
    done = threading.Semaphore(0)
    ready = threading.Event()

    def steps(name: str, count: int) -> Iterator[None]:
        ready.wait()
        for n in range(count):
            turns.append((name, n))
            threads.add(threading.current_thread())
            yield
        done.release()

    lane.add(steps("long", 5))
    lane.add(steps("short", 2))
    ready.set()
    for _ in range(2):
        assert done.acquire(timeout=5)
    lane.close()
    assert turns == [
        *[
            ("long", 0),
            ("short", 0),
            ("long", 1),
            ("short", 1),
            ("long", 2),
            ("long", 3),
            ("long", 4),
        ]
    ]
    assert threads == {lane.thread}
    assert not lane.thread.is_alive()


def test_what_is_left_is_closed_on_the_lane() -> None:
    lane = Lane("test")
    ended: list[threading.Thread] = []
    started = threading.Event()

    def endless() -> Iterator[None]:
        try:
            while True:
                started.set()
                yield
        finally:
            ended.append(threading.current_thread())

    lane.add(endless())
    assert started.wait(5)
    lane.close()
    assert ended == [lane.thread]


def test_a_step_that_hangs_is_left_behind() -> None:
    lane = Lane("test")
    go, started = threading.Event(), threading.Event()

    def stuck() -> Iterator[None]:
        started.set()
        go.wait(10)
        yield

    lane.add(stuck())
    assert started.wait(5)
    lane.close(timeout=0.05)
    assert lane.thread.is_alive()
    assert lane.thread.daemon
    go.set()
    lane.thread.join(5)


# Threads.


def test_threads_are_as_many_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    threads = Threads()
    seen: set[threading.Thread] = set()
    for _ in range(20):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            seen.add(threading.current_thread())
            done.set()

        threads.run(work)
        assert done.wait(5)
        while threads._free < 1:
            time.sleep(0.001)
    assert len(seen) == 1
    busy, go = threading.Semaphore(0), threading.Event()

    def block() -> None:
        seen.add(threading.current_thread())
        busy.release()
        go.wait(10)

    for _ in range(12):
        threads.run(block)
    for _ in range(5):
        assert busy.acquire(timeout=5)
    assert not busy.acquire(timeout=0.05)
    go.set()
    for _ in range(7):
        assert busy.acquire(timeout=5)
    assert len(seen) == 5
    threads.close()
    for thread in seen:
        thread.join(5)
        assert thread.daemon


def test_a_thread_that_waits_for_its_like_has_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: -3)  # one thread
    threads = Threads()
    inner, outer = threading.Event(), threading.Event()

    def wait() -> None:
        with threads.waiting():
            threads.run(inner.set)
            inner.wait(5)
        outer.set()

    threads.run(wait)
    assert outer.wait(5)
    assert inner.is_set()
    with threads.waiting():  # any other thread makes no difference
        pass
    threads.close()
