"""The conformance kit: what every backend must do, as checks for pytest or in one call.

With pytest, derive a class that opens a backend. Each check is a test of the class:

    from cachedeval.testing import BackendContract

    class TestMyBackend(BackendContract):
        persistent = True   # stored values survive closing and opening again
        shared = True       # all handles and processes that open one place share values and leases
        leases = True       # leases are exclusive; False if the class has the default methods
        uses = True         # `scan` reports uses; False if `touch_many` is the default

        def open_backend(self, place):
            return MyBackend(place / "cache")

Without pytest, `check_backend(open_backend, persistent=True, shared=True)` runs all the checks.
`place` is an empty folder, a new one for each check. A backend that stores its values elsewhere can
use the folder's path as a name.
"""

# The order of these imports is the order of the checks: `checks` and `processes` register theirs.
from cachedeval.testing import checks, processes
from cachedeval.testing.contract import (
    CHECKS,
    BackendContract,
    BackendUnderTest,
    Check,
    FailedCheckError,
    check_backend,
)

__all__ = [
    "CHECKS",
    "BackendContract",
    "BackendUnderTest",
    "Check",
    "FailedCheckError",
    "check_backend",
    "checks",
    "processes",
]
