"""The module that a backend imports: the protocol, its entries and its errors."""

from cachedeval.engine.backend import Backend, Entry
from cachedeval.engine.errors import BackendError, InputError

__all__ = ["Backend", "BackendError", "Entry", "InputError"]
