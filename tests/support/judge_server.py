"""A judge on loopback: an HTTP server that speaks the chat completions of Cerebras and OpenAI.

In a test, in this process (a thread with its own event loop)::

    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "test-key")
        ...
        assert server.calls == 6

As a process of its own, which prints its URL as the first line of its output and answers
``GET /stats``::

    python tests/support/judge_server.py --latency 1

It counts what it gets (``calls``: chat completions, whatever came of them), keeps each request
(``requests``), and answers with a verdict that follows from the request alone.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.judge_chaos import Chaos, Fault, Quota
from support.judge_http import Answer, Received, Request, completion, error_body, read_request
from support.judge_verdicts import verdict, verdict_text

Script = Callable[[Received], Fault | None]
"""Decides what goes wrong with a request; None for nothing."""


class JudgeServer:
    """The server; a context manager that runs it in a thread of its own.

    Args:
        latency: Seconds that each answer takes.
        fail: Text to look for in the prompt, and what to answer where it is found: a status, or
            one of the faults ``hang`` (no answer), ``cut`` (half of one), ``malformed`` (no
            verdict), ``empty``, ``wrong-id`` (an id that was not asked for), ``not-json``.
        script: The same, decided by a function such as `Chaos`, which is asked after ``fail``.
        quota: Limits to enforce.
        api_key: The one key that is let in; any where it is None.
        schema: False answers 400 to a request with ``response_format``.
        port: 0 lets the system choose.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        fail: Mapping[str, Fault] | None = None,
        script: Script | None = None,
        quota: Quota | None = None,
        api_key: str | None = None,
        schema: bool = True,
        port: int = 0,
    ) -> None:
        self.latency = latency
        self.fail = dict(fail or {})
        self.script = script
        self.quota = quota
        self.api_key = api_key
        self.schema = schema
        self.port = port
        self.requests: list[Received] = []
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens, as CEREBRAS_BASE_URL takes it (OPENAI_BASE_URL: with ``/v1``)."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> int:
        """How many chat completions were asked for."""
        return len(self.requests)

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self.serve(started.set)), daemon=True
        )
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("the judge server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(10)
        self._loop.close()

    def stop(self) -> None:
        """End the server; from any thread."""
        with contextlib.suppress(RuntimeError):  # it ended by itself
            self._loop.call_soon_threadsafe(self._stop)

    def join(self, seconds: float) -> bool:
        """Wait for the end; whether it came."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _stop(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    async def serve(self, started: Callable[[], object]) -> None:
        """Listen until stopped, and call ``started`` once the URL is known."""
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        started()
        await self._stopping.wait()
        server.close()
        me = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not me]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await read_request(reader)) is not None:
                answer = await self._answer(request)
                if answer is None:
                    break
                writer.write(answer.encode())
                await writer.drain()
                if answer.cut:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the server ends
        finally:
            writer.close()

    async def _answer(self, request: Request) -> Answer | None:
        method, path, headers, content = request
        if (method, path) == ("GET", "/stats"):
            return Answer(body=self.stats())
        if (method, path.removeprefix("/v1")) != ("POST", "/chat/completions"):
            return Answer(404, error_body("no such path", "not_found"))
        got = Received(len(self.requests), time.monotonic(), json.loads(content), headers)
        self.requests.append(got)
        answer = await self._judged(got)
        if answer is not None:
            got.status = answer.status
            got.answered = time.monotonic()
        return answer

    async def _judged(self, got: Received) -> Answer | None:
        if (
            self.api_key is not None
            and got.headers.get("authorization") != f"Bearer {self.api_key}"
        ):
            return Answer(401, error_body("Wrong API Key", "wrong_api_key"))
        if not self.schema and "response_format" in got.body:
            return Answer(400, error_body("response_format is not supported", "wrong_api_format"))
        entries = self.quota.admit(got.at, got) if self.quota else None
        if isinstance(entries, Answer):
            return entries
        fault = next((what for text, what in self.fail.items() if text in got.text), None)
        if fault is None and self.script is not None:
            fault = self.script(got)
        if isinstance(fault, Answer | int):  # turned down at once
            got.fault = str(fault if isinstance(fault, int) else fault.status)
            return fault if isinstance(fault, Answer) else _refusal(fault)
        got.fault = fault or ""
        if self.latency:
            await asyncio.sleep(self.latency)
        if fault == "hang":
            await asyncio.sleep(3600)
            return None
        answer = _answered(got, fault)
        if self.quota and entries and answer.status == 200 and isinstance(answer.body, dict):
            used = answer.body["usage"]["total_tokens"]
            answer.headers |= self.quota.settle(time.monotonic(), entries, used)
        return answer

    def stats(self) -> dict[str, object]:
        """What came, and what became of it."""
        return {
            "calls": self.calls,
            "connections": self.connections,
            "statuses": Counter(str(got.status) for got in self.requests),
            "faults": Counter(got.fault for got in self.requests if got.fault),
        }


def _refusal(status: int) -> Answer:
    return Answer(status, error_body(f"made to fail with {status}", "made_to_fail"))


def _answered(got: Received, fault: str | None) -> Answer:
    if fault == "not-json":
        return Answer(200, b"<html>Bad gateway</html>")
    if fault == "wrong-id":
        return Answer(200, completion(got, json.dumps(verdict(got.body) | {"item_id": "0" * 8})))
    texts = {"malformed": "I would say it is {rather good", "empty": ""}
    content = texts[fault] if fault in texts else verdict_text(got.body)
    return Answer(200, completion(got, content), cut=fault == "cut")


def main() -> None:
    """Run the server until it is told to end."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    options.add_argument("--api-key", help="let in only this key")
    options.add_argument("--fail", action="append", default=[], metavar="TEXT=STATUS_OR_FAULT")
    options.add_argument("--chaos", type=int, metavar="SEED", help="let all sorts of things happen")
    options.add_argument("--rpm", type=float, help="enforce so many requests a minute")
    options.add_argument("--tpm", type=float, help="enforce so many tokens a minute")
    options.add_argument("--minute", type=float, default=60.0, metavar="SECONDS")
    given = options.parse_args()
    split = [one.rpartition("=") for one in given.fail]
    server = JudgeServer(
        latency=given.latency,
        fail={text: int(what) if what.isdigit() else what for text, _, what in split},
        script=None if given.chaos is None else Chaos(given.chaos),
        quota=Quota(requests=given.rpm, tokens=given.tpm, minute=given.minute)
        if given.rpm or given.tpm
        else None,
        api_key=given.api_key,
        port=given.port,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    with server:
        sys.stdout.write(server.url + os.linesep)
        sys.stdout.flush()
        while not server.join(0.2):
            pass


if __name__ == "__main__":
    main()
