"""Noticing that a node's source is another than when its stored results were made."""

import logging

from cachedeval.engine.outcome import Outcome

__all__ = ["Drift"]

_log = logging.getLogger("cachedeval")


class Drift:
    """Warns once a node, where a hit was made by another source under the same version."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def notice(self, outcome: Outcome) -> None:
        """Look at an outcome."""
        node, record = outcome.call.node, outcome.record
        if outcome.state != "hit" or record is None or node.version is None:
            return
        if node.name not in self._told and node.drifted(record.provenance):
            self._told.add(node.name)
            _log.warning(
                "the source of %s has changed since results of its version %r were stored, and "
                "they are still used: raise the version if the results would differ",
                node.name,
                node.version,
            )
