"""The module that a backend imports: the protocol, its entries, its errors and Ctrl-C."""

from cachedeval.engine.backend import Backend, Count, Entry, Label
from cachedeval.engine.errors import BackendError, InputError
from cachedeval.engine.process import interrupted

__all__ = ["Backend", "BackendError", "Count", "Entry", "InputError", "Label", "interrupted"]
