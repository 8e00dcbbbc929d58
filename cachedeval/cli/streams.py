"""The standard streams: what they cannot show, a reader that leaves, and a full disk.

It imports little, as `--help` needs it.
"""

import os
import sys

from cachedeval.engine.errors import CachedevalError

__all__ = ["discard_output", "prepare", "write"]


def prepare() -> None:
    """Make writing to stdout and stderr safe for any text."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the file was closed before the start
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        # A question may hold a lone surrogate, which no encoding has; showing it must not fail.
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Write a text to stdout, or to stderr if `error`.

    Raises:
        BrokenPipeError: the reader has left.
        CachedevalError: the text cannot be written: the disk is full.
    """
    try:
        print(text, end=end, file=sys.stderr if error else sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as fault:
        raise CachedevalError(f"the output cannot be written: {fault.strerror}") from fault


def discard_output() -> None:
    """Discard what is still buffered for a reader that has left: the last flush must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
