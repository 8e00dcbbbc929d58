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
    from cachedeval.engine.codecs import register_codec
    from cachedeval.engine.difference import Difference
    from cachedeval.engine.engine import Engine
    from cachedeval.engine.errors import (
        BackendError,
        CachedevalError,
        EncodingError,
        InputError,
        MissingError,
    )
    from cachedeval.engine.explain import Explanation
    from cachedeval.engine.files import FileEntry, digest_file, manifest
    from cachedeval.engine.graph import Graph, GraphNode
    from cachedeval.engine.maintenance import PruneReport
    from cachedeval.engine.node import Bound, Call, Computed, Limiter, Node, node
    from cachedeval.engine.plan import NodePlan, Plan
    from cachedeval.engine.record import Record
    from cachedeval.engine.resource import Handle, Resource
    from cachedeval.engine.result import NodeStats, Outcome, Stats
    from cachedeval.engine.retry import RetryPolicy
    from cachedeval.evals.evaluator import AdapterEvaluator, OptimizedAdapterEvaluator
    from cachedeval.evals.report import (
        Change,
        Comparison,
        ItemResult,
        Judgement,
        JudgeSummary,
        Report,
        compare,
    )
    from cachedeval.evals.statistics import Paired

__version__ = "0.1.0"

__all__ = [
    "AdapterEvaluator",
    "Backend",
    "BackendError",
    "Bound",
    "CachedevalError",
    "Call",
    "Change",
    "Comparison",
    "Computed",
    "Difference",
    "EncodingError",
    "Engine",
    "Entry",
    "Explanation",
    "FileEntry",
    "Graph",
    "GraphNode",
    "Handle",
    "InputError",
    "ItemResult",
    "JudgeSummary",
    "Judgement",
    "Limiter",
    "MissingError",
    "Node",
    "NodePlan",
    "NodeStats",
    "OptimizedAdapterEvaluator",
    "Outcome",
    "Paired",
    "Plan",
    "PruneReport",
    "Record",
    "Report",
    "Resource",
    "RetryPolicy",
    "Stats",
    "__version__",
    "compare",
    "digest_file",
    "manifest",
    "node",
    "open_backend",
    "register_codec",
]

_HOMES = {
    "AdapterEvaluator": "cachedeval.evals.evaluator",
    "Backend": "cachedeval.engine.backend",
    "BackendError": "cachedeval.engine.errors",
    "CachedevalError": "cachedeval.engine.errors",
    "Bound": "cachedeval.engine.node",
    "Call": "cachedeval.engine.node",
    "Change": "cachedeval.evals.report",
    "Comparison": "cachedeval.evals.report",
    "Computed": "cachedeval.engine.node",
    "Difference": "cachedeval.engine.difference",
    "EncodingError": "cachedeval.engine.errors",
    "Engine": "cachedeval.engine.engine",
    "Entry": "cachedeval.engine.backend",
    "Explanation": "cachedeval.engine.explain",
    "FileEntry": "cachedeval.engine.files",
    "Graph": "cachedeval.engine.graph",
    "GraphNode": "cachedeval.engine.graph",
    "Handle": "cachedeval.engine.resource",
    "InputError": "cachedeval.engine.errors",
    "ItemResult": "cachedeval.evals.report",
    "JudgeSummary": "cachedeval.evals.report",
    "Judgement": "cachedeval.evals.report",
    "Limiter": "cachedeval.engine.node",
    "MissingError": "cachedeval.engine.errors",
    "Node": "cachedeval.engine.node",
    "NodePlan": "cachedeval.engine.plan",
    "NodeStats": "cachedeval.engine.result",
    "OptimizedAdapterEvaluator": "cachedeval.evals.evaluator",
    "Outcome": "cachedeval.engine.result",
    "Paired": "cachedeval.evals.statistics",
    "Plan": "cachedeval.engine.plan",
    "PruneReport": "cachedeval.engine.maintenance",
    "Record": "cachedeval.engine.record",
    "Report": "cachedeval.evals.report",
    "Resource": "cachedeval.engine.resource",
    "RetryPolicy": "cachedeval.engine.retry",
    "Stats": "cachedeval.engine.result",
    "compare": "cachedeval.evals.report",
    "digest_file": "cachedeval.engine.files",
    "manifest": "cachedeval.engine.files",
    "node": "cachedeval.engine.node",
    "open_backend": "cachedeval.engine.backend",
    "register_codec": "cachedeval.engine.codecs",
}


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
