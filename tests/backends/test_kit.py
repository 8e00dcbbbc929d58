"""Tests of the conformance kit: each backend here has one fault, and the kit names the check."""

import contextlib
import doctest
import importlib
import itertools
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from cachedeval.engine.backend import Backend, Entry
from cachedeval.testing import CHECKS, BackendContract, FailedCheckError, check_backend
from cachedeval_disk import DiskBackend


class Wrapped(Backend):
    """A correct backend; each subclass adds one fault."""

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


class LosesAValue(Wrapped):
    puts = 0

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.puts += 1
        if self.puts != 7:
            self.sound.put_many(items)


class StoresInPart(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(dict(list(items.items())[:999]))


class StoresLate(Wrapped):
    waiting: Mapping[bytes, bytes] | None = None

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.close()
        self.waiting = dict(items)

    def close(self) -> None:
        if self.waiting:
            self.sound.put_many(self.waiting)
            self.waiting = None
        self.sound.close()


class CutsKeys(Wrapped):
    """Stores values under the first 15 bytes of their keys."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many([key[:15] for key in keys])
        return {key: found[key[:15]] for key in keys if key[:15] in found}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many({key[:15]: value for key, value in items.items()})


class ReturnsAllKeys(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many(keys)
        return self.sound.get_many([e.key for e in self.sound.scan()]) if found else found


class RaisesForMissingKeys(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many(keys)
        return {key: found[key] for key in keys}


class DropsEmptyValues(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: value for key, value in self.sound.get_many(keys).items() if value}


class ReturnsAnotherType(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: bytearray(value) for key, value in self.sound.get_many(keys).items()}  # type: ignore[misc]


class CutsLongValues(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many({key: value[: 2**17] for key, value in items.items()})


class NeverReplaces(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        held = self.sound.get_many(list(items))
        self.sound.put_many({key: value for key, value in items.items() if key not in held})


class ForgetsAfterClose(Wrapped):
    def close(self) -> None:
        self.sound.delete_many([entry.key for entry in self.sound.scan()])
        self.sound.close()


class CachesInMemory(Wrapped):
    """Other handles see its changes only when they are opened again."""

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


class NeverDeletes(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        return len(self.sound.get_many(list(keys)))


class DeleteMiscounts(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        self.sound.delete_many(keys)
        return len(keys)


class ScanSkipsAKey(Wrapped):
    def scan(self) -> Iterator[Entry]:
        yield from list(self.sound.scan())[1:]


class ScansDeletedKeys(Wrapped):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.shown: dict[bytes, Entry] = {}

    def scan(self) -> Iterator[Entry]:
        self.shown.update((entry.key, entry) for entry in self.sound.scan())
        yield from self.shown.values()


class ReportsWrongSizes(Wrapped):
    def scan(self) -> Iterator[Entry]:
        return (entry._replace(size=100) for entry in self.sound.scan())


class ReportsWrongTimes(Wrapped):
    def scan(self) -> Iterator[Entry]:
        return (entry._replace(created=1e6, used=1e6) for entry in self.sound.scan())


class IgnoresTouches(Wrapped):
    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        pass


class StoresTouchedKeys(Wrapped):
    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        held = self.sound.get_many(list(hits))
        self.sound.put_many({key: b"" for key in hits if key not in held})
        self.sound.touch_many(hits, when)


class GrantsEveryLease(Wrapped):
    def lease(self, key: bytes) -> AbstractContextManager[bool]:  # noqa: ARG002  that is the fault
        return contextlib.nullcontext(enter_result=True)


class LeasesInProcess(Wrapped):
    """Excludes the handles of its own process only."""

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
    """A lease is a file, so a killed process still holds its leases."""

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


class WaitsForLeases(Wrapped):
    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        with self.sound.lease(key) as mine:
            if not mine:
                time.sleep(0.25)
            yield mine


class LeaksLeasesAfterErrors(Wrapped):
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


class RecordsUsesInMemory(Wrapped):
    """Other handles never see the uses."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.hits: dict[bytes, int] = {}

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        del when
        self.hits.update(hits)

    def scan(self) -> Iterator[Entry]:
        for entry in self.sound.scan():
            yield entry._replace(hits=self.hits.get(entry.key, 0))


class LeasesMany(Wrapped):
    """A correct backend that leases many keys at a time; each subclass adds one fault."""

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        return self.sound.lease_many(keys)

    def release_many(self, keys: Iterable[bytes]) -> None:
        self.sound.release_many(keys)


class RefusesEveryLease(LeasesMany):
    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:  # noqa: ARG002  that is the fault
        return set()


class GrantsTheFirstKeyOnly(LeasesMany):
    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        return self.sound.lease_many(keys[:1])


class LeasesAListOfKeys(LeasesMany):
    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        return list(self.sound.lease_many(keys))  # type: ignore[return-value]


class RunsOutOfLeases(LeasesMany):
    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        return self.sound.lease_many(keys[:400])


class GrantsAllOrNothing(LeasesMany):
    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = self.sound.lease_many(keys)
        if granted == set(keys):
            return granted
        self.sound.release_many(granted)
        return set()


class ReleasesItsWholeCall(LeasesMany):
    """Releases all keys that one call granted as soon as one of them is released."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.calls: list[set[bytes]] = []

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        self.calls.append(self.sound.lease_many(keys))
        return self.calls[-1]

    def release_many(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            for call in self.calls:
                if key in call:
                    self.sound.release_many(call)


class CountsLeases(LeasesMany):
    """A key that was given twice needs two releases."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.counts: Counter[bytes] = Counter()

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = self.sound.lease_many(keys)
        self.counts.update(key for key in keys if key in granted)
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        keys = list(keys)
        self.counts.subtract(keys)
        self.sound.release_many([key for key in keys if self.counts[key] <= 0])


class RefusesARepeatedKey(LeasesMany):
    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        return {key for key in keys if keys.count(key) == 1 and self.sound.lease_many([key])}


class RaisesForUnleasedKeys(LeasesMany):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.leased: set[bytes] = set()

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = self.sound.lease_many(keys)
        self.leased |= granted
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        for key in set(keys):
            self.leased.remove(key)
            self.sound.release_many([key])


class ReleasesEverything(RaisesForUnleasedKeys):
    def release_many(self, keys: Iterable[bytes]) -> None:
        del keys
        self.sound.release_many(self.leased)


class LeasesManyApart(LeasesMany):
    """The leases of `lease_many` and of `lease` know nothing of each other."""

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = self.sound.lease_many([key[::-1] + b"many" for key in keys])
        return {key[-5::-1] for key in granted}

    def release_many(self, keys: Iterable[bytes]) -> None:
        self.sound.release_many([key[::-1] + b"many" for key in keys])


class LooksBeforeItLeases(Wrapped):
    """Looks which keys are free, and leases them later."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.leased: set[bytes] = set()

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = set(keys) - self.leased
        time.sleep(0.05)
        self.leased |= granted
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        self.leased.difference_update(keys)


class LeasesManyInProcess(Wrapped):
    """Excludes the handles of its own process only."""

    leased: set[tuple[Path, bytes]] = set()  # noqa: RUF012  that is the fault

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = {key for key in keys if (self.place, key) not in self.leased}
        self.leased.update((self.place, key) for key in granted)
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        self.leased.difference_update((self.place, key) for key in keys)


class LeasesManyInHandle(LooksBeforeItLeases):
    """Excludes the callers of one handle only."""


class ReleasesInProcess(LeasesMany):
    """Grants released keys again in its process; for other processes they stay leased."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.idle: set[bytes] = set()
        self.leased: set[bytes] = set()

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        again = self.idle & set(keys)
        self.idle -= again
        granted = again | self.sound.lease_many([key for key in keys if key not in again])
        self.leased |= granted
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        released = self.leased & set(keys)
        self.leased -= released
        self.idle |= released


class LeasesManyByFile(Wrapped):
    """A lease is a file: a killed process still holds it, and anybody can release it."""

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = set()
        for key in keys:
            with contextlib.suppress(FileExistsError):
                (self.place / key.hex()).touch(exist_ok=False)
                granted.add(key)
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            (self.place / key.hex()).unlink(missing_ok=True)

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        return Backend.lease(self, key)


class RaisesForNoKeys(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        next(iter(items))
        self.sound.put_many(items)


class StoresText(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        texts = {key: value.decode("utf-8", "replace").encode() for key, value in items.items()}
        self.sound.put_many(texts)


class CountsRepeatedKeys(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        stored = self.sound.get_many(keys)
        self.sound.delete_many(keys)
        return sum(key in stored for key in keys)


class StoresTheMapping(Wrapped):
    mapping: Mapping[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self.mapping[key] for key in keys if key in self.mapping}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.mapping = items


class ScansByOffset(Wrapped):
    """Reads the next entries by their number, which changes when others are deleted."""

    def scan(self) -> Iterator[Entry]:
        number = 0
        while entries := sorted(self.sound.scan())[number : number + 100]:
            yield from entries
            number += 100


class RecordsUsesForEver(Wrapped):
    """A deleted value's hits count for the next value of its key."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.hits: Counter[bytes] = Counter()

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        del when
        self.hits.update(hits)

    def scan(self) -> Iterator[Entry]:
        for entry in self.sound.scan():
            yield entry._replace(hits=self.hits[entry.key])


class StoresLeases(Wrapped):
    """A lease is an empty value."""

    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        with self.sound.lease(key) as granted:
            if granted:
                self.sound.put_many({key: b""})
            yield granted


class SharesAResult(Wrapped):
    """Each call stores its result in the object, where another thread replaces it."""

    found: dict[bytes, bytes]

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self.found = self.sound.get_many(keys)
        time.sleep(0.001)
        return self.found


class WritesOneFile(Wrapped):
    """Reads all values from one file and writes them back with the new ones."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        path = self.place / "values"
        stored = pickle.loads(path.read_bytes()) if path.exists() else {}  # noqa: S301  our own
        return {key: stored[key] for key in keys or stored if key in stored}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        stored = {**self.get_many([]), **items}
        time.sleep(0.002)
        new = self.place / f"values.{os.getpid()}"
        new.write_bytes(pickle.dumps(stored))
        new.replace(self.place / "values")


FAULTS: list[tuple[type[Wrapped], str]] = [
    (LosesAValue, "returns_stored_values"),
    (StoresInPart, "stores_many_keys_at_once"),
    (StoresLate, "persists_after_kill"),
    (CutsKeys, "distinguishes_keys"),
    (ReturnsAllKeys, "returns_only_requested_keys"),
    (RaisesForMissingKeys, "omits_missing_keys"),
    (DropsEmptyValues, "stores_empty_values"),
    (ReturnsAnotherType, "returns_stored_values"),
    (CutsLongValues, "stores_values_of_any_size"),
    (NeverReplaces, "replaces_existing_values"),
    (ForgetsAfterClose, "persists_after_close"),
    (CachesInMemory, "shares_values_between_handles"),
    (CachesInMemory, "shares_values_between_processes"),
    (NeverDeletes, "deletes_and_counts"),
    (DeleteMiscounts, "deletes_and_counts"),
    (ScanSkipsAKey, "scans_every_key_once"),
    (ScansDeletedKeys, "behaves_like_a_dictionary"),
    (ReportsWrongSizes, "reports_sizes"),
    (ReportsWrongTimes, "reports_creation_times"),
    (IgnoresTouches, "records_uses"),
    (StoresTouchedKeys, "ignores_touches_of_missing_keys"),
    (GrantsEveryLease, "leases_are_exclusive"),
    (GrantsEveryLease, "lease_excludes_threads"),
    (LeasesInProcess, "lease_excludes_processes"),
    (LeasesByFile, "lease_ends_with_its_process"),
    (WaitsForLeases, "leases_never_wait"),
    (LeaksLeasesAfterErrors, "leases_end_after_errors"),
    (ClosesOnce, "closes_twice"),
    (RecordsUsesInMemory, "shares_uses_between_handles"),
    (RefusesEveryLease, "grants_free_leases"),
    (GrantsTheFirstKeyOnly, "grants_free_leases"),
    (LeasesAListOfKeys, "grants_free_leases"),
    (RunsOutOfLeases, "leases_hundreds_of_keys"),
    (GrantsAllOrNothing, "lease_many_grants_the_free_keys"),
    (ReleasesItsWholeCall, "lease_many_grants_the_free_keys"),
    (CountsLeases, "lease_many_grants_a_repeated_key_once"),
    (RefusesARepeatedKey, "lease_many_grants_a_repeated_key_once"),
    (RaisesForUnleasedKeys, "release_many_ignores_unleased_keys"),
    (ReleasesEverything, "release_many_ignores_unleased_keys"),
    (LeasesManyApart, "lease_and_lease_many_exclude_each_other"),
    (LooksBeforeItLeases, "lease_many_excludes_threads"),
    (LeasesManyInHandle, "leases_exclude_handles"),
    (LeasesManyInProcess, "lease_many_excludes_processes"),
    (ReleasesInProcess, "lease_many_excludes_processes"),
    (LeasesManyByFile, "leases_exclude_handles"),
    (LeasesManyByFile, "lease_many_excludes_processes"),
    (LeasesManyByFile, "lease_many_ends_with_its_process"),
    (RaisesForNoKeys, "accepts_empty_calls"),
    (StoresText, "stores_any_bytes"),
    (CountsRepeatedKeys, "accepts_repeated_keys"),
    (StoresTheMapping, "copies_mappings"),
    (ScansByOffset, "scans_while_keys_change"),
    (RecordsUsesForEver, "deletes_uses_with_values"),
    (StoresLeases, "leases_are_separate_from_values"),
    (SharesAResult, "supports_threads"),
    (WritesOneFile, "supports_processes"),
]
"""A backend with a fault, and the check that it fails."""


@pytest.mark.parametrize(("broken", "check"), FAULTS)
def test_the_kit_names_the_failed_check(broken: type[Wrapped], check: str, tmp_path: Path) -> None:
    (found,) = (one for one in CHECKS if one.name == check)
    with pytest.raises(FailedCheckError, match=f"^{check}: "):
        found.run(broken, tmp_path)


@pytest.mark.parametrize("backend", [Wrapped, LeasesMany])
def test_a_correct_backend_passes(backend: type[Wrapped]) -> None:
    check_backend(backend, persistent=True, shared=True)


def test_one_call_names_all_failed_checks() -> None:
    with pytest.raises(FailedCheckError) as raised:
        check_backend(NeverDeletes, persistent=True, shared=True)
    names = {line.partition(":")[0] for line in str(raised.value).splitlines()}
    assert {"deletes_and_counts", "stores_many_keys_at_once"} <= names
    assert names < {check.name for check in CHECKS}


def example_of_backend() -> type[Backend]:
    """Return the class in the docstring of `Backend`, which has the four required methods alone."""
    (example,) = doctest.DocTestFinder(recurse=False).find(Backend)
    names: dict[str, Any] = {"Backend": Backend, "Entry": Entry}
    exec(example.examples[0].source, names)  # noqa: S102  our docstring
    found: type[Backend] = names["DictBackend"]
    return found


def test_a_backend_of_four_methods_passes() -> None:
    backend = example_of_backend()
    public = {name for name in vars(backend) if not name.startswith("_")}
    assert public == {"get_many", "put_many", "delete_many", "scan"}
    check_backend(lambda _: backend(), persistent=False, shared=False, leases=False, uses=False)


def test_a_backend_that_does_not_inherit_passes() -> None:
    defined = {name: each for name, each in vars(example_of_backend()).items() if callable(each)}
    duck = type("Duck", (), defined)
    assert Backend not in duck.__mro__
    check_backend(lambda _: duck(), persistent=False, shared=False, leases=False, uses=False)


@pytest.mark.parametrize(
    ("flags", "failed"),
    [
        ({"uses": False}, {"leases_are_exclusive", "lease_many_excludes_threads"}),
        ({"leases": False}, {"records_uses"}),
        ({}, {"records_uses", "leases_are_exclusive"}),
    ],
)
def test_the_defaults_fail_the_checks_of_leases_and_uses(
    flags: dict[str, bool], failed: set[str]
) -> None:
    backend = example_of_backend()
    with pytest.raises(FailedCheckError) as raised:
        check_backend(lambda _: backend(), persistent=False, shared=False, **flags)
    names = {line.partition(":")[0] for line in str(raised.value).splitlines()}
    assert failed <= names
    needs = {check.name for check in CHECKS if check.leases or check.uses}
    assert names <= needs


@pytest.mark.parametrize("broken", [RefusesEveryLease, GrantsTheFirstKeyOnly])
def test_without_leases_every_lease_is_granted(broken: type[Wrapped]) -> None:
    with pytest.raises(FailedCheckError, match=r"^grants_free_leases: "):
        check_backend(broken, persistent=True, shared=True, leases=False)


@pytest.mark.parametrize("properties", list(itertools.product([True, False], repeat=4)))
def test_a_contract_has_a_test_for_each_check_that_applies(properties: tuple[bool, ...]) -> None:
    class Some(BackendContract):
        persistent, shared, leases, uses = properties

        def open_backend(self, place: Path) -> Backend:
            return Wrapped(place)

    tests = {name for name in dir(Some) if name[:5] == "test_" and callable(getattr(Some, name))}
    wanted = {
        f"test_{check.name}"
        for check in CHECKS
        if all(
            has or not needs
            for has, needs in zip(
                properties, (check.persistent, check.shared, check.leases, check.uses), strict=True
            )
        )
    }
    assert tests == wanted
    assert len(wanted) > 20
    assert ("test_persists_after_close" in tests) == Some.persistent
    assert ("test_lease_many_grants_the_free_keys" in tests) == Some.leases
    assert ("test_records_uses" in tests) == Some.uses


def test_every_check_has_a_backend_that_fails_it() -> None:
    assert {check for _, check in FAULTS} == {check.name for check in CHECKS}


def test_every_check_has_a_description() -> None:
    assert all(check.function.__doc__ for check in CHECKS)
    assert len({check.name for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("name", ["contract", "processes"])
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"cachedeval.testing.{name}")
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
