"""The logger `cachedeval`.

Importing `logging` takes as long as all else of a small run, and most runs have nothing to say.
"""

from typing import TYPE_CHECKING

from cachedeval.engine.forks import import_logging

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["logger"]

configure: "Callable[[], None] | None" = None
"""Called before the first message: a command line sets up `logging` here, without importing it."""


def logger() -> "logging.Logger":
    """Return the logger that every part of the package tells things to."""
    import_logging()
    import logging  # noqa: PLC0415  see above

    global configure
    if configure is not None:
        once, configure = configure, None
        once()
    return logging.getLogger("cachedeval")
