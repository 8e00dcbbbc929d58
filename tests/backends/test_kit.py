"""The kit is tested too: each backend here breaks one law, and the kit has to say which."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cachedeval.engine.backend import Backend, Entry
from cachedeval.testing import LAWS, BackendContract, BrokenLawError, check_backend
from cachedeval_disk import DiskBackend


class Wrapped(Backend):
    """A sound backend, to be broken in one way."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.sound = DiskBackend(place / "cache")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self.sound.get_many(keys)

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        return self.sound.delete_many(keys)

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        self.sound.touch_many(hits, when)

    def scan(self) -> Iterator[Entry]:
        return self.sound.scan()

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        return self.sound.lease(key)

    def close(self) -> None:
        self.sound.close()


class LosesAWrite(Wrapped):
    puts = 0

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.puts += 1
        if self.puts != 7:
            self.sound.put_many(items)


class PutsInPart(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(dict(list(items.items())[:999]))


class PutsLate(Wrapped):
    waiting: Mapping[bytes, bytes] | None = None

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.close()
        self.waiting = dict(items)

    def close(self) -> None:
        if self.waiting:
            self.sound.put_many(self.waiting)
            self.waiting = None
        self.sound.close()


class ReturnsANeighbours(Wrapped):
    """Keeps values under the first fifteen bytes of their keys."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many([key[:15] for key in keys])
        return {key: found[key[:15]] for key in keys if key[:15] in found}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many({key[:15]: value for key, value in items.items()})


class ReturnsAllItHas(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many(keys)
        return self.sound.get_many([e.key for e in self.sound.scan()]) if found else found


class RaisesWithoutAKey(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many(keys)
        return {key: found[key] for key in keys}


class TakesEmptyForMissing(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: value for key, value in self.sound.get_many(keys).items() if value}


class ReturnsAnotherType(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: bytearray(value) for key, value in self.sound.get_many(keys).items()}  # type: ignore[misc]


class CutsLongValues(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many({key: value[: 2**17] for key, value in items.items()})


class KeepsTheFirst(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        held = self.sound.get_many(list(items))
        self.sound.put_many({key: value for key, value in items.items() if key not in held})


class ForgetsAfterClose(Wrapped):
    def close(self) -> None:
        self.sound.delete_many([entry.key for entry in self.sound.scan()])
        self.sound.close()


class KeepsToItself(Wrapped):
    """Another handle sees nothing of it until it is opened anew."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        entries = [entry.key for entry in self.sound.scan()]
        self.seen = self.sound.get_many(entries)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self.seen[key] for key in keys if key in self.seen}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(items)
        self.seen.update(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        for key in keys:
            self.seen.pop(key, None)
        return self.sound.delete_many(keys)


class DeleteLies(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        return len(self.sound.get_many(list(keys)))


class DeleteMiscounts(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        self.sound.delete_many(keys)
        return len(keys)


class ScanMissesAKey(Wrapped):
    def scan(self) -> Iterator[Entry]:
        yield from list(self.sound.scan())[1:]


class ScanShowsTheDeleted(Wrapped):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.shown: dict[bytes, Entry] = {}

    def scan(self) -> Iterator[Entry]:
        self.shown.update((entry.key, entry) for entry in self.sound.scan())
        yield from self.shown.values()


class TellsWrongSizes(Wrapped):
    def scan(self) -> Iterator[Entry]:
        return (entry._replace(size=100) for entry in self.sound.scan())


class TellsWrongTimes(Wrapped):
    def scan(self) -> Iterator[Entry]:
        return (entry._replace(created=0.0, used=0.0) for entry in self.sound.scan())


class IgnoresTouches(Wrapped):
    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        pass


class TouchesMakeEntries(Wrapped):
    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        held = self.sound.get_many(list(hits))
        self.sound.put_many({key: b"" for key in hits if key not in held})
        self.sound.touch_many(hits, when)


class LeasesToAll(Wrapped):
    def lease(self, key: bytes) -> AbstractContextManager[bool]:  # noqa: ARG002  that is the fault
        return contextlib.nullcontext(enter_result=True)


class LeasesInProcess(Wrapped):
    """Knows nothing of other processes."""

    held: set[tuple[Path, bytes]] = set()  # noqa: RUF012  that is the fault

    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        mine = (self.place, key) not in self.held
        self.held.add((self.place, key))
        try:
            yield mine
        finally:
            if mine:
                self.held.remove((self.place, key))


class LeasesByFile(Wrapped):
    """The lease is a file: what the dead held stays held."""

    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        path = self.place / key.hex()
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink()


class LeasesAfterWaiting(Wrapped):
    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        with self.sound.lease(key) as mine:
            if not mine:
                time.sleep(0.25)
            yield mine


class KeepsLeasesAfterErrors(Wrapped):
    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        lease = self.sound.lease(key)
        yield lease.__enter__()
        lease.__exit__(None, None, None)


class ClosesOnce(Wrapped):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        self.sound.close()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (LosesAWrite, "returns_what_it_was_given"),
        (PutsInPart, "keeps_many_at_once"),
        (PutsLate, "outlives_its_process"),
        (ReturnsANeighbours, "tells_keys_apart"),
        (ReturnsAllItHas, "returns_only_what_was_asked_for"),
        (RaisesWithoutAKey, "leaves_out_what_it_does_not_hold"),
        (TakesEmptyForMissing, "keeps_empty_values"),
        (ReturnsAnotherType, "returns_what_it_was_given"),
        (CutsLongValues, "keeps_values_of_any_size"),
        (KeepsTheFirst, "overwrites"),
        (ForgetsAfterClose, "outlives_its_handle"),
        (KeepsToItself, "shows_one_handle_what_another_does"),
        (KeepsToItself, "shows_one_process_what_another_does"),
        (DeleteLies, "deletes"),
        (DeleteMiscounts, "deletes"),
        (ScanMissesAKey, "scans_every_key_once"),
        (ScanShowsTheDeleted, "does_as_a_dictionary_does"),
        (TellsWrongSizes, "tells_sizes"),
        (TellsWrongTimes, "tells_when_a_value_was_put"),
        (IgnoresTouches, "notes_use"),
        (TouchesMakeEntries, "ignores_touches_of_what_it_does_not_hold"),
        (LeasesToAll, "leases_to_one_holder"),
        (LeasesToAll, "leases_to_one_thread"),
        (LeasesInProcess, "leases_to_one_process"),
        (LeasesByFile, "frees_the_leases_of_the_dead"),
        (LeasesAfterWaiting, "leases_without_waiting"),
        (KeepsLeasesAfterErrors, "ends_a_lease_with_an_error"),
        (ClosesOnce, "closes_twice"),
    ],
)
def test_the_kit_names_the_broken_law(broken: type[Wrapped], law: str, tmp_path: Path) -> None:
    (found,) = (one for one in LAWS if one.name == law)
    with pytest.raises(BrokenLawError, match=f"^{law}: "):
        found.hold(broken, tmp_path)


def test_a_sound_backend_passes_in_one_call() -> None:
    check_backend(Wrapped, persistent=True, shared=True)


def test_one_call_names_all_that_is_broken() -> None:
    with pytest.raises(BrokenLawError) as raised:
        check_backend(DeleteLies, persistent=True, shared=True)
    names = {line.partition(":")[0] for line in str(raised.value).splitlines()}
    assert {"deletes", "keeps_many_at_once"} <= names
    assert names < {law.name for law in LAWS}


def test_a_contract_has_a_test_for_each_law_that_applies() -> None:
    class Alone(BackendContract):
        persistent = False
        shared = False

        def open_backend(self, place: Path) -> Backend:
            return Wrapped(place)

    tests = {name for name in dir(Alone) if callable(getattr(Alone, name)) and name[:5] == "test_"}
    wanted = {f"test_{law.name}" for law in LAWS if not law.persistent and not law.shared}
    assert tests == wanted
    assert len(wanted) > 20
    assert "test_outlives_its_handle" not in tests


def test_every_law_says_what_it_asks() -> None:
    assert all(law.check.__doc__ for law in LAWS)
    assert len({law.name for law in LAWS}) == len(LAWS)
