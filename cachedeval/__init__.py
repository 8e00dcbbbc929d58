"""cachedeval: a content-addressed caching engine, and evaluations of adapters built on it."""

TYPE_CHECKING = False  # as in `typing`, which takes as long to import as the interpreter to start
if TYPE_CHECKING:
    from typing import Any

    from cachedeval.engine.backend import Backend, Entry
    from cachedeval.engine.engine import Engine
    from cachedeval.engine.errors import CachedevalError, EncodingError, InputError
    from cachedeval.engine.node import Call, Computed, Node, node
    from cachedeval.engine.open import open_backend
    from cachedeval.engine.outcome import Outcome
    from cachedeval.engine.resource import Handle, Resource
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
    "Node",
    "OptimizedAdapterEvaluator",
    "Outcome",
    "Report",
    "Resource",
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
    "Node": "cachedeval.engine.node",
    "OptimizedAdapterEvaluator": "cachedeval.evals.evaluator",
    "Outcome": "cachedeval.engine.outcome",
    "Report": "cachedeval.evals.report",
    "Resource": "cachedeval.engine.resource",
    "compare": "cachedeval.evals.report",
    "node": "cachedeval.engine.node",
    "open_backend": "cachedeval.engine.open",
}


def __getattr__(name: str) -> "Any":
    # Imported on first use: the engine alone does not wait for the evaluations.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
