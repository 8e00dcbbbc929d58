"""Opening a backend by URL: `SCHEME:REST`, the scheme found among the installed entry points."""

from typing import Any

from cachedeval.engine.backend import Backend
from cachedeval.engine.errors import BackendError, InputError
from cachedeval.engine.forks import importing
from cachedeval.engine.installed import entry_points, load
from cachedeval.engine.log import logger
from cachedeval.engine.nothing import NothingBackend

__all__ = ["GROUP", "open_backend", "open_cache"]

GROUP = "cachedeval.backends"
"""The entry-point group. An entry's name is the scheme, its object a function of the URL's rest."""


def open_backend(url: str) -> Backend:
    """Open the backend that a URL names: `memory:`, `disk:PATH`, or another installed one.

    Raises:
        InputError: the URL has no scheme, or no installed backend has it.
        BackendError: the backend cannot be opened.
    """
    scheme, colon, rest = url.partition(":")
    found = entry_points(GROUP)
    if not colon or scheme not in found:
        known = ", ".join(f"{name}:" for name in sorted(found)) or "none is installed"
        raise InputError(
            f"cache {url!r}: a cache is given as SCHEME:REST, as in disk:./eval_cache "
            f"(schemes here: {known})"
        )
    try:
        with importing():
            opens: Any = load(found[scheme])
        opened = opens(rest)
    except (InputError, BackendError):
        raise
    except Exception as error:
        raise BackendError(f"cache {url!r} cannot be opened: {error}") from error
    if not isinstance(opened, Backend):
        raise BackendError(f"cache {url!r}: {found[scheme]} does not return a Backend")
    return opened


def open_cache(cache: str | Backend) -> Backend:
    """Return the backend of an engine; where it cannot be opened, one that holds nothing.

    Args:
        cache: a URL, or an open backend.

    Raises:
        InputError: it is neither, or the URL names no installed backend.
    """
    if not isinstance(cache, str):
        if not isinstance(cache, Backend) or isinstance(cache, type):
            raise InputError(
                f"a {type(cache).__name__} is no cache: give a URL, as in 'disk:./eval_cache', or "
                "an open backend"
            )
        return cache
    try:
        return open_backend(cache)
    except BackendError as error:
        logger().warning("%s; going on without a cache", error)
        return NothingBackend()
