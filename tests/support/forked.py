"""Forked processes in tests: real ones, with an end that is waited for but not for ever."""

import contextlib
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator

__all__ = ["Fork", "fork_quietly", "forked", "wait_for"]

_PATIENCE = 60.0
"""Seconds until a silent child counts as hanging."""

_LIFETIME = 180
"""Seconds after which a child ends though nobody waits for it, as after a failed test."""


def fork_quietly() -> int:
    """Do the same as `os.fork`, without the warning about threads that Python 3.12 added."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def wait_for(pid: int) -> int:
    """Return the exit status of a child; kill one that does not end."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGABRT)  # with faulthandler, it says where it hangs
    os.waitpid(pid, 0)
    raise AssertionError(f"the child {pid} hangs")


class Fork:
    """A child that does some work and then ends without cleaning up."""

    def __init__(self, work: Callable[[], object]) -> None:
        sys.stdout.flush()
        self.pid = fork_quietly()
        if self.pid == 0:
            status = 1
            signal.alarm(_LIFETIME)
            try:
                work()
                status = 0
            except BaseException:  # noqa: BLE001  the parent sees the status
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)

    def join(self) -> None:
        """Wait for the end, which must be a good one."""
        assert wait_for(self.pid) == 0

    def kill(self) -> None:
        """End it as `kill -9` does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def forked(work: Callable[[], object]) -> Iterator[Fork]:
    """Do some work in a child meanwhile; it has ended well when the context ends."""
    child = Fork(work)
    try:
        yield child
    except BaseException:
        child.kill()
        raise
    child.join()
