"""All that a backend imports of cachedeval: the protocol, its entries and the errors."""

from cachedeval.engine.backend import Backend, Entry
from cachedeval.engine.errors import BackendError, InputError

__all__ = ["Backend", "BackendError", "Entry", "InputError"]
