"""What a check is, and how to run the checks on a backend: as pytest tests, or in one call."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cachedeval.engine.backend import Backend, completed

__all__ = [
    "CHECKS",
    "BackendContract",
    "BackendUnderTest",
    "Check",
    "FailedCheckError",
    "check",
    "check_backend",
    "expect",
    "key",
]


class FailedCheckError(AssertionError):
    """A backend failed a check; the message starts with the check's name.

    Example:
        >>> raise FailedCheckError("reports_sizes: a value of 10 bytes has size 0")
        Traceback (most recent call last):
        cachedeval.testing.contract.FailedCheckError: reports_sizes: a value of 10 bytes has size 0
    """


class BackendUnderTest:
    """The backend that a check examines, at one place.

    Args:
        open_backend: opens the backend that stores its values at a place.
        place: a folder, empty at first.

    Example:
        >>> from cachedeval import open_backend
        >>> tested = BackendUnderTest(lambda place: open_backend(f"disk:{place}"), Path("cache"))
        >>> backend = tested.open()
        >>> tested.close()
    """

    def __init__(self, open_backend: Callable[[Path], Backend], place: Path) -> None:
        self._open_backend = open_backend
        self._place = place
        self._opened: list[Backend] = []

    def open(self) -> Backend:
        """Open another handle; `close` closes it after the check."""
        backend = completed(self._open_backend(self._place))
        self._opened.append(backend)
        return backend

    def close(self) -> None:
        """Close every handle."""
        while self._opened:
            self._opened.pop().close()


class Check(NamedTuple):
    """One thing that a backend must do.

    Attributes:
        name: the name of the check's function.
        function: examines a backend; raises `FailedCheckError`.
        persistent: whether it applies only to backends whose values survive closing.
        shared: whether it applies only to backends whose handles share values and leases.
        leases: whether it applies only to backends that have leases.
        uses: whether it applies only to backends that record uses.

    Example:
        >>> from cachedeval.testing import CHECKS
        >>> check = next(check for check in CHECKS if check.name == "records_uses")
        >>> check.applies(persistent=True, shared=True, leases=True, uses=False)
        False
    """

    name: str
    function: Callable[[BackendUnderTest], None]
    persistent: bool
    shared: bool
    leases: bool
    uses: bool

    def applies(self, *, persistent: bool, shared: bool, leases: bool, uses: bool) -> bool:
        """Return whether the check applies to a backend with these properties."""
        return (
            persistent >= self.persistent
            and shared >= self.shared
            and leases >= self.leases
            and uses >= self.uses
        )

    def run(self, open_backend: Callable[[Path], Backend], place: Path) -> None:
        """Run the check on a backend.

        Args:
            open_backend: opens the backend that stores its values at a place.
            place: an empty folder.

        Raises:
            FailedCheckError: the backend fails the check, or raises an exception.
        """
        tested = BackendUnderTest(open_backend, place)
        try:
            self.function(tested)
            tested.close()
        except FailedCheckError as error:
            raise FailedCheckError(f"{self.name}: {error}") from None
        except Exception as error:
            raise FailedCheckError(
                f"{self.name}: the backend raised {type(error).__name__}: {error}"
            ) from error
        finally:
            with contextlib.suppress(Exception):  # the first failure is the one to report
                tested.close()


CHECKS: list[Check] = []
"""All checks, in the order in which they run."""


def check(
    *, persistent: bool = False, shared: bool = False, leases: bool = False, uses: bool = False
) -> Callable[[Callable[[BackendUnderTest], None]], Callable[[BackendUnderTest], None]]:
    """Register a function as a check, under its name; the arguments are those of `Check`."""

    def register(
        function: Callable[[BackendUnderTest], None],
    ) -> Callable[[BackendUnderTest], None]:
        CHECKS.append(Check(function.__name__, function, persistent, shared, leases, uses))
        return function

    return register


def expect(condition: object, failure: str) -> None:
    """Fail the check unless the condition is true.

    Args:
        condition: anything with a truth value.
        failure: what the backend did, as a message.

    Raises:
        FailedCheckError: the condition is false.
    """
    if not condition:
        raise FailedCheckError(failure)


def key(number: int) -> bytes:
    """Return the key of a number, 16 bytes; near numbers have near keys."""
    return number.to_bytes(16, "big")


class BackendContract:
    """A test for each check that applies; pytest collects them in a subclass named `Test…`.

    A subclass defines `open_backend` and sets the properties of its backend.

    Example:
        >>> from cachedeval import open_backend
        >>> class TestMemory(BackendContract):
        ...     persistent = shared = False
        ...
        ...     def open_backend(self, place):
        ...         return open_backend("memory:")
        >>> callable(TestMemory.test_replaces_existing_values)
        True
    """

    persistent: ClassVar[bool] = True
    """Whether stored values survive closing and opening again."""
    shared: ClassVar[bool] = True
    """Whether all handles and processes that open one place share values and leases."""
    leases: ClassVar[bool] = True
    """Whether leases are exclusive. The default methods of `Backend` grant every lease."""
    uses: ClassVar[bool] = True
    """Whether the backend records uses. The default `touch_many` of `Backend` does not."""

    def open_backend(self, place: Path) -> Backend:
        """Open the backend that stores its values at a place.

        Args:
            place: a folder, empty at first; the same folder is the same backend.
        """
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for one in CHECKS:
            applies = one.applies(
                persistent=cls.persistent, shared=cls.shared, leases=cls.leases, uses=cls.uses
            )
            setattr(cls, f"test_{one.name}", _test(one) if applies else None)


def _test(one: Check) -> Callable[[BackendContract, Path], None]:
    def test(self: BackendContract, tmp_path: Path) -> None:
        one.run(self.open_backend, tmp_path)

    test.__doc__ = one.function.__doc__
    return test


def check_backend(
    open_backend: Callable[[Path], Backend],
    *,
    persistent: bool,
    shared: bool,
    leases: bool = True,
    uses: bool = True,
) -> None:
    """Run all checks that apply to a backend.

    Args:
        open_backend: opens the backend that stores its values at a place: a folder, empty at first.
        persistent: whether stored values survive closing and opening again.
        shared: whether all handles and processes that open one place share values and leases.
        leases: whether leases are exclusive; False for the default methods of `Backend`.
        uses: whether the backend records uses; False for the default `touch_many`.

    Raises:
        FailedCheckError: the backend fails some checks; the message has a line for each.

    Example:
        >>> from cachedeval import open_backend
        >>> check_backend(lambda place: open_backend("memory:"), persistent=False, shared=False)
    """
    failures = []
    for one in CHECKS:
        if not one.applies(persistent=persistent, shared=shared, leases=leases, uses=uses):
            continue
        with tempfile.TemporaryDirectory(prefix="cachedeval-check-") as place:
            try:
                one.run(open_backend, Path(place))
            except FailedCheckError as error:
                failures.append(str(error))
    if failures:
        raise FailedCheckError("\n".join(failures))
