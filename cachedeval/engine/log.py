"""The logger `cachedeval`.

Messages have the levels of `logging`: warnings for what a user should look at (a cache that fails, a
stale version), `DEBUG` for each result of a run. A program sets them as usual, with
`logging.getLogger("cachedeval").setLevel(logging.DEBUG)`. The package adds no handler.

It imports `logging` at the first message: the import takes as long as the rest of a small run, and
most runs log nothing.
"""

import sys
from typing import TYPE_CHECKING

from cachedeval.engine.process import import_logging

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["debug_logger", "logger"]

_DEBUG = 10  # logging.DEBUG

_known: "logging.Logger | None" = None

configure: "Callable[[], None] | None" = None
"""Called before the first message. The CLI sets up `logging` here, without importing it."""


def logger() -> "logging.Logger":
    """Return the logger of the package."""
    import_logging()
    import logging

    global configure
    if configure is not None:
        once, configure = configure, None
        once()
    return logging.getLogger("cachedeval")


def debug_logger() -> "logging.Logger | None":
    """Return the logger if its level is `DEBUG`; does not import `logging`.

    If nothing has imported `logging`, the program has set no level.
    """
    global _known  # noqa: PLW0603  looked up once, as every run asks
    if _known is None:
        if (module := sys.modules.get("logging")) is None or not hasattr(module, "getLogger"):
            return None
        _known = module.getLogger("cachedeval")
    return _known if _known.isEnabledFor(_DEBUG) else None
