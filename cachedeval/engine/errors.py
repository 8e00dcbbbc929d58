"""The errors that the engine raises, and the base classes of all other errors of the package."""

__all__ = ["BackendError", "CachedevalError", "EncodingError", "InputError", "MissingError"]


class CachedevalError(Exception):
    """The base class of all errors that this package raises.

    Attributes:
        fatal: whether no other call of the run can succeed, so that the run ends at once.

    Example:
        >>> from cachedeval import CachedevalError, Engine
        >>> try:
        ...     Engine("tape:./cache")
        ... except CachedevalError as error:
        ...     type(error).__name__
        'InputError'
    """

    fatal: bool = False


class InputError(CachedevalError):
    """An argument, a file or a setting is invalid; the message says what, where and what to do.

    Example:
        >>> from cachedeval import open_backend
        >>> open_backend("./cache")
        Traceback (most recent call last):
        ...
        cachedeval.engine.errors.InputError: cache './cache': a cache is given as SCHEME:REST, ...
    """


class EncodingError(InputError):
    """A value has no canonical encoding, so it cannot be part of a key or a record.

    Example:
        >>> from cachedeval.engine.encoding import encode
        >>> encode({"when": object()})
        Traceback (most recent call last):
        ...
        cachedeval.engine.errors.EncodingError: at ['when']: a value of type object has no ...
    """


class BackendError(CachedevalError):
    """A backend operation failed; the engine continues without the cache.

    Example:
        >>> from cachedeval import Backend, BackendError
        >>> class FullBackend(Backend):
        ...     def put_many(self, entries):
        ...         raise BackendError("no space left on the device")
    """


class MissingError(CachedevalError):
    """A result is not in the cache, and the mode `offline` forbids computing it.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine(mode="offline") as engine:
        ...     engine.settle([double(1)])[0].error
        MissingError('double(x=1) is not in the cache, and offline mode computes nothing')
    """
