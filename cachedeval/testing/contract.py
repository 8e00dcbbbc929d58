"""Holding a backend against the laws: as tests, or in one call."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from cachedeval.engine.backend import Backend

# Importing them enters their laws.
from cachedeval.testing import entries, leases, sharing, values  # noqa: F401
from cachedeval.testing.law import LAWS, BrokenLawError, Law

__all__ = ["BackendContract", "check_backend"]


class BackendContract:
    """A test for each law, for pytest to find in a derived class `Test…`."""

    persistent: ClassVar[bool] = True
    """Whether what is kept at a place is there when it is opened again."""
    shared: ClassVar[bool] = True
    """Whether all who open a place, in any process, share what is kept there."""

    def open_backend(self, place: Path) -> Backend:
        """Open the backend that is kept at a place.

        Args:
            place: a folder, empty at first; the same one for the same backend.
        """
        raise NotImplementedError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for law in LAWS:
            applies = law.applies(persistent=cls.persistent, shared=cls.shared)
            setattr(cls, f"test_{law.name}", _test(law) if applies else None)


def _test(law: Law) -> Callable[[BackendContract, Path], None]:
    def test(self: BackendContract, tmp_path: Path) -> None:
        law.hold(self.open_backend, tmp_path)

    test.__doc__ = law.check.__doc__
    return test


def check_backend(
    open_backend: Callable[[Path], Backend], *, persistent: bool, shared: bool
) -> None:
    """Hold a backend against all the laws that it has to keep.

    Args:
        open_backend: opens the backend that is kept at a place: a folder, empty at first.
        persistent: whether what is kept at a place is there when it is opened again.
        shared: whether all who open a place, in any process, share what is kept there.

    Raises:
        BrokenLawError: it breaks some; the message has a line for each.
    """
    broken = []
    for law in LAWS:
        if not law.applies(persistent=persistent, shared=shared):
            continue
        with tempfile.TemporaryDirectory(prefix="cachedeval-law-") as place:
            try:
                law.hold(open_backend, Path(place))
            except BrokenLawError as error:
                broken.append(str(error))
    if broken:
        raise BrokenLawError("\n".join(broken))
