"""Stale versions: hits whose node has other source now than when the result was stored."""

from collections.abc import Iterable, Mapping
from typing import Any

from cachedeval.engine.log import logger
from cachedeval.engine.node import Node
from cachedeval.engine.result import Outcome

__all__ = ["StaleVersions"]


class StaleVersions:
    """Warns once per node if a hit was computed by other source under the same version.

    Thread safety: `notice` may be called from any thread.
    """

    def __init__(self) -> None:
        self._last: dict[int, bytes] = {}
        """The notes that were compared last, by node: most results of a node have the same."""
        self._warned: set[str] = set()

    def notice(self, outcomes: Iterable[Outcome]) -> None:
        """Check the hits among some outcomes."""
        for outcome in outcomes:
            if outcome.state == "hit" and outcome.record is not None:
                node, notes = outcome.call.node, outcome.record.notes
                if self._last.get(node.serial) != notes:
                    self._last[node.serial] = notes
                    self._compare(node, outcome.record.provenance)

    def _compare(self, node: Node[Any], then: Mapping[str, Any]) -> None:
        if node.version is None or node.name in self._warned:
            return
        if node.drifted(then):
            self._warned.add(node.name)
            logger().warning(
                "the source of %s has changed since results of its version %r were stored, and "
                "they are still used: change the version if the results would differ",
                node.name,
                node.version,
            )
