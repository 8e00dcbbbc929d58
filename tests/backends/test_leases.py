"""Leases of many keys at once, on both backends."""

import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.forked import Fork, forked

from cachedeval import open_backend
from cachedeval.backend import Backend


def key(number: int) -> bytes:
    return (number << 70 | number * 7).to_bytes(16, "big")


KEYS = [key(number) for number in range(1, 3001)]


@pytest.fixture(params=["disk", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    url = "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"
    with closing(open_backend(url)) as opened:
        yield opened


def test_what_is_free_is_granted(backend: Backend) -> None:
    assert backend.lease_many([]) == set()
    assert backend.lease_many(KEYS[:10]) == {*KEYS[:10]}
    assert backend.lease_many(KEYS[5:15]) == {*KEYS[10:15]}
    assert backend.lease_many(KEYS[:15]) == set()
    backend.release_many(iter(KEYS[:7]))
    assert backend.lease_many(KEYS[:15]) == {*KEYS[:7]}
    backend.release_many(KEYS)  # those that are not leased too
    backend.release_many([])
    assert backend.lease_many(KEYS) == {*KEYS}
    backend.release_many(KEYS)


def test_a_key_given_twice_is_leased_once(backend: Backend) -> None:
    assert backend.lease_many([KEYS[0], KEYS[1], KEYS[0]]) == {KEYS[0], KEYS[1]}
    backend.release_many([KEYS[0], KEYS[0]])
    assert backend.lease_many(KEYS[:2]) == {KEYS[0]}
    backend.release_many(KEYS[:2])


def test_one_at_a_time_and_many_exclude_each_other(backend: Backend) -> None:
    with backend.lease(KEYS[0]) as mine:
        assert mine
        assert backend.lease_many(KEYS[:2]) == {KEYS[1]}
        with backend.lease(KEYS[1]) as second:
            assert not second
    assert backend.lease_many(KEYS[:2]) == {KEYS[0]}
    backend.release_many(KEYS[:2])
    with backend.lease(KEYS[1]) as mine:
        assert mine


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), max_size=12)), max_size=20))
def test_leases_are_a_set(steps: list[tuple[bool, list[int]]]) -> None:
    backend, held = open_backend("memory:"), set[bytes]()
    for takes, numbers in steps:
        some = [key(number) for number in numbers]
        if takes:
            assert backend.lease_many(some) == {*some} - held
            held.update(some)
        else:
            backend.release_many(some)
            held.difference_update(some)


def test_two_handles_on_one_folder(tmp_path: Path) -> None:
    one, other = open_backend(f"disk:{tmp_path}"), open_backend(f"disk:{tmp_path}")
    assert one.lease_many(KEYS[:10]) == {*KEYS[:10]}
    assert other.lease_many(KEYS[:12]) == {*KEYS[10:12]}
    other.release_many(KEYS[:10])  # the other's are not this one's to release
    assert other.lease_many(KEYS[:10]) == set()
    other.close()
    with closing(open_backend(f"disk:{tmp_path}")) as third:
        assert third.lease_many(KEYS[:10]) == set()
    one.release_many(KEYS[:10])
    one.close()


def test_threads_share_out_the_keys(backend: Backend) -> None:
    start = threading.Barrier(6)
    granted: list[set[bytes]] = []

    def run() -> None:
        start.wait(60)
        granted.append(backend.lease_many(KEYS))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(map(len, granted)) == len(KEYS)
    assert set().union(*granted) == {*KEYS}
    backend.release_many(KEYS)


def test_processes_share_out_the_keys_and_death_frees_them(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    taken = threading.Event()

    def take() -> None:
        assert backend.lease_many(KEYS[:100]) == {*KEYS[50:100]}

    assert backend.lease_many(KEYS[:50]) == {*KEYS[:50]}
    for _ in range(3):
        with forked(take):
            pass
    assert backend.lease_many(KEYS[:100]) == {*KEYS[50:100]}

    def wait() -> None:
        assert backend.lease_many(KEYS[100:200]) == {*KEYS[100:200]}
        (tmp_path / "taken").touch()
        threading.Event().wait(60)

    child = Fork(wait)
    while not (tmp_path / "taken").exists():
        taken.wait(0.01)
    assert backend.lease_many(KEYS[:200]) == set()
    child.kill()
    assert backend.lease_many(KEYS[:200]) == {*KEYS[100:200]}
    backend.release_many(KEYS)
    backend.close()


def test_an_inherited_lease_is_the_parents(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    assert backend.lease_many(KEYS[:10]) == {*KEYS[:10]}

    def work() -> None:
        assert backend.lease_many(KEYS[:10]) == set()
        backend.release_many(KEYS[:10])
        assert backend.lease_many(KEYS[:11]) == {KEYS[10]}
        backend.close()

    with forked(work):
        pass
    with forked(lambda: backend.lease_many(KEYS[:10]) == set() or 1 / 0):
        pass
    backend.release_many(KEYS[:10])
    with forked(lambda: backend.lease_many(KEYS[:10]) == {*KEYS[:10]} or 1 / 0):
        pass
    backend.close()


def test_a_folder_that_cannot_be_written_to_holds_no_lease(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path / 'cache'}")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "lock").mkdir()
    with pytest.raises(OSError, match="directory"):
        backend.lease_many(KEYS[:10])
    (tmp_path / "cache" / "lock").rmdir()
    assert backend.lease_many(KEYS[:10]) == {*KEYS[:10]}
    backend.release_many(KEYS[:10])
    with suppress(OSError):
        backend.close()
