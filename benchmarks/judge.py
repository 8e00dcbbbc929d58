"""The judge on loopback: a process of its own with a declared latency, which counts its calls."""

import json
import subprocess
import sys
import urllib.request
from typing import Any, Self

from benchmarks.measure import REPOSITORY

__all__ = ["JUDGE", "JudgeProcess"]

JUDGE = "cerebras:judge"
"""As `--judge` names it."""


class JudgeProcess:
    """The server, for as long as the context lasts.

    Args:
        latency: seconds that each answer takes.
    """

    def __init__(self, latency: float) -> None:
        self.latency = latency

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "tests/support/judge_server.py", "--latency", str(self.latency)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101  a pipe was asked for
        self.url = self._process.stdout.readline().strip()
        if not self.url.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the judge server did not start: {self.url!r}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def env(self) -> dict[str, str]:
        """What a command needs in its environment to ask it."""
        return {
            "CEREBRAS_BASE_URL": self.url,
            "CEREBRAS_API_KEY": "any",
        }

    def calls(self) -> int:
        """How many chat completions it was asked for so far."""
        return int(self._stats()["calls"])

    def answered(self) -> int:
        """How many chat completions it has answered so far."""
        return int(self._stats()["statuses"].get("200", 0))

    def _stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:  # noqa: S310  http
            stats: dict[str, Any] = json.load(reply)
        return stats
