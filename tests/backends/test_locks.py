"""The rules that POSIX locks have, and that the lock file's module exists to keep."""

import gc
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import locks
from cachedeval_disk.forks import Guard
from cachedeval_disk.locks import Lease, Leases, attach
from cachedeval_disk.patience import Patience

PATIENCE = Patience(Path("cache"), (), Guard)


def _lease(path: Path, key: bytes) -> Lease:
    return Lease(lambda: attach(path), key)


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208  the same with pathlib opens more


def test_ten_thousand_leases_cost_one_descriptor(tmp_path: Path) -> None:
    keys = [os.urandom(16) for _ in range(10_000)]
    gc.collect()  # closes what earlier tests left open
    before, known = _descriptors(), len(locks._table)
    leases = Leases(lambda: attach(tmp_path / "lock"))
    assert leases.acquire(keys[:9_000]) == {*keys[:9_000]}
    assert all(leases.acquire([key]) for key in keys[9_000:])
    assert leases.acquire(keys) == set()
    assert _descriptors() == before + 1
    assert before + 1 < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    leases.release([*keys[5_000:], *keys[9_000:], b"unknown"])
    assert _descriptors() == before + 1
    leases.release(keys)
    assert _descriptors() == before
    assert len(locks._table) == known


def test_the_descriptor_stays_open_while_a_lease_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lease = _lease(path, b"1" * 16)
    assert lease.__enter__()
    for _ in range(3):
        attach(path).detach()
        with _lease(path, b"1" * 16) as second, _lease(path, b"2" * 16) as other:
            assert (second, other) == (False, True)

    def ask(channel: Channel) -> None:
        with _lease(path, b"1" * 16) as mine:
            channel.send(b"y" if mine else b"n")

    with ForkedProcess(ask) as child:
        assert child.channel.receive() == b"n"
    lease.__exit__(None, None, None)
    lease.__exit__(None, None, None)  # once is enough
    with ForkedProcess(ask) as child:
        assert child.channel.receive() == b"y"


def test_a_lock_file_under_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "same").hardlink_to(tmp_path / "lock")
    with _lease(tmp_path / "lock", b"1" * 16) as mine, _lease(tmp_path / "same", b"1" * 16) as same:
        assert (mine, same) == (True, False)


def test_a_descriptor_that_a_race_opened_is_not_closed_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    lease = _lease(path, b"1" * 16)
    assert lease.__enter__()
    before = _descriptors()

    class Late(type(path)):  # type: ignore[misc]
        def stat(self, **_: bool) -> os.stat_result:
            raise FileNotFoundError  # as if it were made only after the look

    attach(Late(path)).detach()
    assert _descriptors() == before + 1
    with ForkedProcess(
        lambda channel: channel.send(b"y" if _lease(path, b"1" * 16).__enter__() else b"n")
    ) as c:
        assert c.channel.receive() == b"n"
    lease.__exit__(None, None, None)
    assert _descriptors() == before - 1
    monkeypatch.undo()


def test_a_link_for_a_lock_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        _lease(tmp_path / "lock", b"1" * 16).__enter__()
    assert not (tmp_path / "precious").exists()


def test_the_write_lock_is_shared_or_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = attach(path)

    def stay(*, exclusive: bool) -> None:
        def work(channel: Channel) -> None:
            with attach(path).writing(PATIENCE, exclusive=exclusive):
                channel.send()
                channel.receive()

        with ForkedProcess(work) as child:
            assert child.channel.receive()
            if not exclusive:
                with lock.writing(PATIENCE, exclusive=False):
                    pass
            waited = threading.Event()

            def enter() -> None:
                with lock.writing(PATIENCE, exclusive=True):
                    waited.set()

            thread = threading.Thread(target=enter)
            thread.start()
            assert not waited.wait(0.1)
            child.channel.send()
            assert waited.wait(10)
            thread.join()
            child.finish()

    stay(exclusive=False)
    stay(exclusive=True)
    lock.detach()


def test_shared_locks_do_not_starve_an_exclusive_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def crowd(_: Channel) -> None:
        lock = attach(path)
        while True:
            with lock.writing(PATIENCE, exclusive=False):
                time.sleep(0.004)

    with ForkedProcess(crowd), ForkedProcess(crowd), ForkedProcess(crowd):
        lock = attach(path)
        time.sleep(0.1)
        for _ in range(5):
            with lock.writing(PATIENCE, exclusive=True):
                pass
        lock.detach()


def test_the_write_lock_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"

    def stay(channel: Channel) -> None:
        with attach(path).writing(PATIENCE, exclusive=False):
            channel.send()
            channel.receive()

    monkeypatch.setattr("cachedeval_disk.patience._SILENCE", 0.1)
    lock = attach(path)
    with ForkedProcess(stay) as child:
        assert child.channel.receive()
        with (
            pytest.raises(TimeoutError, match="another program"),
            lock.writing(PATIENCE, exclusive=True),
        ):
            pass
        with lock.writing(PATIENCE, exclusive=False):  # and the turnstile is free again
            pass
        child.kill()
        with lock.writing(PATIENCE, exclusive=True):
            pass
    entered = threading.Event()
    leave = threading.Event()

    def inside() -> None:
        with lock.writing(PATIENCE, exclusive=False):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=inside)
    thread.start()
    entered.wait(10)
    with (
        pytest.raises(TimeoutError, match="another program"),
        lock.writing(PATIENCE, exclusive=False),
    ):
        pass
    leave.set()
    thread.join()
    lock.detach()
