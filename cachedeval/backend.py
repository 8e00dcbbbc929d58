"""The module that a backend imports: the protocol, its entries, its errors and Ctrl-C."""

from cachedeval.engine.backend import Backend, Entry
from cachedeval.engine.errors import BackendError, InputError
from cachedeval.engine.process import interrupted

__all__ = ["Backend", "BackendError", "Entry", "InputError", "interrupted"]
