"""A judge on loopback, and `python -m benchmarks judge`: what it costs to ask it.

The judge is a process of its own (`python -m benchmarks.judge serve LATENCY`). It takes a declared
time for each answer, counts its calls, and answers with scores that follow from the request alone.

The benchmark judges many answers that are in the cache, by new criteria in each round, so that
judging is all that is left. The judge takes a second for each verdict, and 100 requests run at
once. The lower bound is the latency, times the questions, over 100. The peer script asks the same
judge through the same SDK.
"""

import argparse
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self

from benchmarks.measure import REPOSITORY, Rounds, command

__all__ = ["JUDGE", "JudgeProcess", "main", "measure_judge"]

JUDGE = "cerebras:judge"
"""As `--judge` names it."""

_ITEM = re.compile(r"[Ii]tem id: ([0-9a-f]+)")
_CRITERION = re.compile(r"^- ([^\n(]+?) \((-?[\d.]+) to (-?[\d.]+)\)", re.MULTILINE)
_DEFAULT = [(name, "0", "10") for name in ("accuracy", "relevance", "completeness", "clarity")]

_LATENCY_S = 1.0
_AT_ONCE = 100
_CRITERIA = """name = "round-{0}"

[[criteria]]
name = "accuracy"
description = "What the response says is true in round {0}."
"""


class JudgeProcess:
    """The judge, for as long as the context lasts.

    Args:
        latency: seconds that each answer takes.
    """

    def __init__(self, latency: float) -> None:
        self.latency = latency

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.judge", "serve", str(self.latency)],
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


def measure_judge(
    root: Path, questions: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Judge all answers anew in each round.

    Args:
        root: a folder to make.
        questions: how many answers there are.
        rounds: how often they are judged.
        say: called with what begins.

    Returns:
        The seconds of a whole command, less the warm one's, by candidate; `lower bound`.
    """
    from benchmarks.workplace import Profile, Workplace  # noqa: PLC0415  not for the server

    model = root / "model"
    command([sys.executable, "-m", "benchmarks.models", "tiny", model])
    profile = Profile("judge", "tiny random Llama", questions, questions, 1, 1, 1)
    work = Workplace(root / "workplace", profile, model)
    limits = root / "limits.toml"
    limits.write_text(f"[limits]\nmax_concurrency = {_AT_ONCE}\n", encoding="utf-8")
    turn = {"ours": 0, "peer script": 0}

    def ours(judge: JudgeProcess, number: int) -> float:
        criteria = root / "criteria.toml"
        criteria.write_text(_CRITERIA.format(number), encoding="utf-8")
        further = ("--criteria", criteria, "--limits", limits)
        ran = command(work.run(f"disk:{root / 'cache'}", *further), env=judge.env)
        scored = json.loads(ran.out)["report"]["scored"]
        if scored != questions:
            raise RuntimeError(f"{scored} of {questions} answers were scored")
        return ran.seconds

    def script(judge: JudgeProcess, number: int) -> float:
        words = work.script(root / "script", f"accuracy in round {number}", str(_AT_ONCE))
        return command(words, env=judge.env).seconds

    candidates = {"ours": ours, "peer script": script}
    say("answers")
    time.sleep(2)  # a model as young as the clock's grain is read again
    with JudgeProcess(0.0) as quick:
        for run in candidates.values():
            run(quick, 0)
        warm = {
            name: statistics.median(run(quick, 0) for _ in range(3))
            for name, run in candidates.items()
        }
    with JudgeProcess(_LATENCY_S) as judge:

        def sample(name: str) -> float:
            turn[name] += 1
            return candidates[name](judge, turn[name]) - warm[name]

        taken = Rounds(rounds, 120, say).take(
            {name: lambda name=name: sample(name) for name in candidates}  # type: ignore[misc]
        )
    return {"lower bound": _LATENCY_S * -(-questions // _AT_ONCE), **taken}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks judge", description=__doc__)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="cachedeval-judge-"))
    try:
        found = measure_judge(
            root, given.questions, given.rounds, lambda text: print(text, file=sys.stderr)
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    bound = found.pop("lower bound")
    print(
        f"{given.questions} verdicts of {_LATENCY_S:g} s, {_AT_ONCE} at once: {bound:.2f} s at least"
    )
    for name, samples in found.items():
        median = statistics.median(samples)
        said = ", ".join(f"{sample:.2f}" for sample in samples)
        print(f"{name:12} {median:6.2f} s, {median / bound:.2f} times the lower bound (of {said})")
    return 0


if __name__ == "__main__":
    _serve(float(sys.argv[2]))
