"""What a law is: a function that tries a backend and says what it did wrong."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cachedeval.engine.backend import Backend

__all__ = ["LAWS", "BrokenLawError", "Law", "Subject", "expect", "key", "law"]


class BrokenLawError(AssertionError):
    """A backend did what a backend must not do; the message names the law."""


class Subject:
    """The backend on trial, at one place.

    Args:
        open_backend: opens the backend that is kept at a place.
        place: an empty folder.
    """

    def __init__(self, open_backend: Callable[[Path], Backend], place: Path) -> None:
        self._open_backend = open_backend
        self._place = place
        self._opened: list[Backend] = []

    def open(self) -> Backend:
        """Open another handle; it is closed when the law has been tried."""
        backend = self._open_backend(self._place)
        self._opened.append(backend)
        return backend

    def close(self) -> None:
        """Close every handle."""
        while self._opened:
            self._opened.pop().close()


class Law(NamedTuple):
    """One thing that a backend does."""

    name: str
    check: Callable[[Subject], None]
    persistent: bool
    """Whether it is for backends alone that keep values after they are closed."""
    shared: bool
    """Whether it is for backends alone whose handles share what they keep."""

    def applies(self, *, persistent: bool, shared: bool) -> bool:
        """Whether a backend of this kind has to keep the law."""
        return persistent >= self.persistent and shared >= self.shared

    def hold(self, open_backend: Callable[[Path], Backend], place: Path) -> None:
        """Hold a backend against the law.

        Args:
            open_backend: opens the backend that is kept at a place.
            place: an empty folder.

        Raises:
            BrokenLawError: it breaks the law.
        """
        subject = Subject(open_backend, place)
        try:
            self.check(subject)
            subject.close()
        except BrokenLawError as error:
            raise BrokenLawError(f"{self.name}: {error}") from None
        except Exception as error:
            raise BrokenLawError(f"{self.name}: raised {type(error).__name__}: {error}") from error
        finally:
            with contextlib.suppress(Exception):  # what goes wrong first is what is told
                subject.close()


LAWS: list[Law] = []
"""All the laws, in the order in which they are told."""


def law(
    *, persistent: bool = False, shared: bool = False
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Make a function one of the laws, under its name."""

    def enter(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        LAWS.append(Law(check.__name__, check, persistent, shared))
        return check

    return enter


def expect(condition: object, complaint: str) -> None:
    """Complain unless the condition is true.

    Raises:
        BrokenLawError: it is not.
    """
    if not condition:
        raise BrokenLawError(complaint)


def key(number: int) -> bytes:
    """Return the 16 bytes of one of 2**128 keys; near numbers have near keys."""
    return number.to_bytes(16, "big")
