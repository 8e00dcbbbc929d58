"""Noticing that a node's source is another than when its stored results were made."""

from collections.abc import Iterable, Mapping
from typing import Any

from cachedeval.engine.log import logger
from cachedeval.engine.node import Node
from cachedeval.engine.outcome import Outcome

__all__ = ["Drift"]


class Drift:
    """Warns once a node, where a hit was made by another source under the same version."""

    def __init__(self) -> None:
        self._seen: set[tuple[Node[Any], object, object]] = set()
        self._told: set[str] = set()

    def notice(self, outcomes: Iterable[Outcome]) -> None:
        """Look at outcomes."""
        for outcome in outcomes:
            node, record = outcome.call.node, outcome.record
            if outcome.state != "hit" or record is None or node.version is None:
                continue
            then = record.provenance
            sources = node, then.get("code"), then.get("source")
            if sources not in self._seen:
                self._seen.add(sources)
                self._compare(node, then)

    def _compare(self, node: Node[Any], then: Mapping[str, Any]) -> None:
        if node.name not in self._told and node.drifted(then):
            self._told.add(node.name)
            logger().warning(
                "the source of %s has changed since results of its version %r were stored, and "
                "they are still used: raise the version if the results would differ",
                node.name,
                node.version,
            )
