"""Tests of the conformance kit: it names the check that a faulty backend fails."""

import doctest
import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from support.faulty_backends import FAULTS, NeverDeletes, Wrapped
from support.faulty_leases import LEASE_FAULTS, GrantsTheFirstKeyOnly, LeasesMany, RefusesEveryLease

from cachedeval.engine.backend import Backend, Entry
from cachedeval.testing import CHECKS, BackendContract, FailedCheckError, check_backend

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("broken", "check"), [*FAULTS, *LEASE_FAULTS])
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
    assert {check for _, check in [*FAULTS, *LEASE_FAULTS]} == {check.name for check in CHECKS}


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
