"""The errors that the engine raises and that the other wings build on."""

__all__ = ["BackendError", "CachedevalError", "EncodingError", "InputError", "MissingError"]


class CachedevalError(Exception):
    """Every error that this project raises on purpose."""

    fatal: bool = False
    """Whether no other call of a run can succeed after it, so that the run ends at once."""


class InputError(CachedevalError):
    """What the user gave cannot be used; the message says what, where and what to do."""


class EncodingError(InputError):
    """A value has no canonical encoding, so it can be part of no key and of no record."""


class BackendError(CachedevalError):
    """A backend could not do what was asked; the engine goes on without it."""


class MissingError(CachedevalError):
    """A result is not in the cache and may not be computed (offline)."""
