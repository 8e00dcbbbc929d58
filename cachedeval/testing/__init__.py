"""The conformance kit: the laws that every backend keeps, ours and others'.

With pytest, derive a class that says how to open a backend; each law is a test of it:

    from cachedeval.testing import BackendContract

    class TestMine(BackendContract):
        persistent = True   # what is kept at a place is there when it is opened again
        shared = True       # all who open a place, in any process, share what is kept there

        def open_backend(self, place):
            return MyBackend(place / "cache")

Without pytest, `check_backend(open_backend, persistent=True, shared=True)` checks all the laws.
`place` is an empty folder, another one for each law; a backend that keeps its values elsewhere
takes its path for a name.
"""

from cachedeval.testing.contract import BackendContract, check_backend
from cachedeval.testing.law import LAWS, BrokenLawError, Law, Subject

__all__ = ["LAWS", "BackendContract", "BrokenLawError", "Law", "Subject", "check_backend"]
