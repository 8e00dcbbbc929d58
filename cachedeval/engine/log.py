"""The logger `cachedeval`.

It imports `logging` at the first message: the import takes as long as the rest of a small run, and
most runs log nothing.
"""

from typing import TYPE_CHECKING

from cachedeval.engine.process import import_logging

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["logger"]

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
