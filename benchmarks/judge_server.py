"""A judge on loopback, and `python -m benchmarks judge`: what asking it costs.

The judge is a process of its own with a declared latency. It counts its calls, and answers with
scores that follow from the request alone.
"""

import hashlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

from benchmarks.measure import REPOSITORY

__all__ = ["JUDGE", "JudgeProcess"]

JUDGE = "cerebras:judge"
"""As `--judge` names it."""

_ITEM = re.compile(r"[Ii]tem id: ([0-9a-f]+)")
_CRITERION = re.compile(r"^- ([^\n(]+?) \((-?[\d.]+) to (-?[\d.]+)\)", re.MULTILINE)
_DEFAULT = [(name, "0", "10") for name in ("accuracy", "relevance", "completeness", "clarity")]


class JudgeProcess:
    """The judge, for as long as the context lasts.

    Args:
        latency: seconds that each answer takes.
    """

    def __init__(self, latency: float) -> None:
        self.latency = latency

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.judge_server", str(self.latency)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101  a pipe was asked for
        self.url = self._process.stdout.readline().strip()
        if not self.url.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the judge did not start: {self.url!r}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def env(self) -> dict[str, str]:
        """What a command needs in its environment to ask it."""
        return {"CEREBRAS_BASE_URL": self.url, "CEREBRAS_API_KEY": "any"}

    def calls(self) -> int:
        """How many chat completions it was asked for so far."""
        return int(self._stats()["calls"])

    def answered(self) -> int:
        """How many chat completions it has answered so far."""
        return int(self._stats()["answered"])

    def _stats(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:  # noqa: S310  http
            stats: dict[str, int] = json.load(reply)
        return stats


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    latency: ClassVar[float] = 0.0
    counts: ClassVar[Counter[str]] = Counter({"calls": 0, "answered": 0})
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        """Answer `/stats`."""
        with self.lock:
            counts = dict(self.counts)
        self._send(counts)

    def do_POST(self) -> None:
        """Answer a chat completion after the latency."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._count("calls")
        if self.latency:
            time.sleep(self.latency)
        self._count("answered")
        self._send(_completion(body))

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def _send(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    text = "\n".join(str(message["content"]) for message in body["messages"])
    reply: dict[str, Any] = {"rationale": "By digest."}
    item = _ITEM.search(text)
    if item:
        reply["item_id"] = item[1]
    reply["scores"] = {
        name: _score(f"{name}\n{text}", float(low), float(high))
        for name, low, high in _CRITERION.findall(text) or _DEFAULT
    }
    content = json.dumps(reply)
    usage = {"prompt_tokens": len(text) // 4, "completion_tokens": len(content) // 4}
    return {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "system_fingerprint": "fp_benchmark",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


def _score(text: str, low: float, high: float) -> float:
    digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return low + digest % (int(high - low) + 1)


def _serve(latency: float) -> None:
    _Handler.latency = latency
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
