"""cachedeval: a content-addressed caching engine, and an evaluator of adapters built on it.

Public names are imported at their first use, so that the engine does not wait for the evaluator.

Example:
    >>> from cachedeval import Engine, node
    >>> @node(version="1")
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> with Engine("memory:") as engine:
    ...     engine.run([double(1), double(2)])
    [2, 4]
"""

TYPE_CHECKING = False  # `typing` takes as long to import as the interpreter takes to start
if TYPE_CHECKING:
    from typing import Any

    from cachedeval.engine.backend import Backend, Entry, open_backend
    from cachedeval.engine.engine import Engine
    from cachedeval.engine.errors import CachedevalError, EncodingError, InputError, MissingError
    from cachedeval.engine.node import Call, Computed, Node, node
    from cachedeval.engine.resource import Handle, Resource
    from cachedeval.engine.result import Outcome
    from cachedeval.engine.retry import RetryPolicy
    from cachedeval.evals.evaluator import AdapterEvaluator, OptimizedAdapterEvaluator
    from cachedeval.evals.report import Report, compare

__version__ = "0.1.0"

__all__ = [
    "AdapterEvaluator",
    "Backend",
    "CachedevalError",
    "Call",
    "Computed",
    "EncodingError",
    "Engine",
    "Entry",
    "Handle",
    "InputError",
    "MissingError",
    "Node",
    "OptimizedAdapterEvaluator",
    "Outcome",
    "Report",
    "Resource",
    "RetryPolicy",
    "__version__",
    "compare",
    "node",
    "open_backend",
]

_HOMES = {
    "AdapterEvaluator": "cachedeval.evals.evaluator",
    "Backend": "cachedeval.engine.backend",
    "CachedevalError": "cachedeval.engine.errors",
    "Call": "cachedeval.engine.node",
    "Computed": "cachedeval.engine.node",
    "EncodingError": "cachedeval.engine.errors",
    "Engine": "cachedeval.engine.engine",
    "Entry": "cachedeval.engine.backend",
    "Handle": "cachedeval.engine.resource",
    "InputError": "cachedeval.engine.errors",
    "MissingError": "cachedeval.engine.errors",
    "Node": "cachedeval.engine.node",
    "OptimizedAdapterEvaluator": "cachedeval.evals.evaluator",
    "Outcome": "cachedeval.engine.result",
    "Report": "cachedeval.evals.report",
    "Resource": "cachedeval.engine.resource",
    "RetryPolicy": "cachedeval.engine.retry",
    "compare": "cachedeval.evals.report",
    "node": "cachedeval.engine.node",
    "open_backend": "cachedeval.engine.backend",
}


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
