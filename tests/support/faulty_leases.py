"""Backends with one fault each, in their leases."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from support.faulty_backends import Wrapped

from cachedeval.engine.backend import Backend


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


class StoresLeases(Wrapped):
    """A lease is an empty value."""

    @contextlib.contextmanager
    def lease(self, key: bytes) -> Iterator[bool]:
        with self.sound.lease(key) as granted:
            if granted:
                self.sound.put_many({key: b""})
            yield granted


LEASE_FAULTS: list[tuple[type[Wrapped], str]] = [
    (GrantsEveryLease, "leases_are_exclusive"),
    (GrantsEveryLease, "lease_excludes_threads"),
    (LeasesInProcess, "lease_excludes_processes"),
    (LeasesByFile, "lease_ends_with_its_process"),
    (WaitsForLeases, "leases_never_wait"),
    (LeaksLeasesAfterErrors, "leases_end_after_errors"),
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
    (LooksBeforeItLeases, "leases_exclude_handles"),
    (LeasesManyInProcess, "lease_many_excludes_processes"),
    (ReleasesInProcess, "lease_many_excludes_processes"),
    (LeasesManyByFile, "leases_exclude_handles"),
    (LeasesManyByFile, "lease_many_excludes_processes"),
    (LeasesManyByFile, "lease_many_ends_with_its_process"),
    (StoresLeases, "leases_are_separate_from_values"),
]
"""Each backend with a fault, and the check that it fails."""
