"""A judge on loopback: an HTTP server that speaks the chat completions of Cerebras and OpenAI.

In a test, in this process (a thread with its own event loop)::

    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "test-key")
        ...
        assert server.calls == 6

As a process of its own, which prints its URL as the first line of its output::

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.judge_verdicts import prompt_text, verdict_text

Script = Callable[["Received"], "int | str | None"]
"""Decides what goes wrong with a request: a status, a fault by its name, or None for nothing."""


@dataclass
class Received:
    """One chat completion that the server was asked for."""

    number: int
    """Counted from 0, in order of arrival."""
    at: float
    """``time.monotonic()`` at arrival."""
    body: dict[str, Any]
    headers: dict[str, str]
    status: int = 0
    """What was answered; 0 while unanswered, and for ever where nothing was."""
    fault: str = ""

    @property
    def text(self) -> str:
        """All the messages as one text."""
        return prompt_text(self.body)


@dataclass
class Answer:
    """What goes back: a status, a JSON body or raw text, and further headers."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The answer as HTTP/1.1."""
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        head = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(content)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + content


class JudgeServer:
    """The server; a context manager that runs it in a thread of its own.

    Args:
        latency: Seconds that each answer takes.
        fail: Text to look for in the prompt, and what to answer where it is found: a status, or
            one of the faults ``hang``, ``cut``, ``malformed``, ``empty``, ``wrong-id``.
        script: The same, decided by a function, which is asked after ``fail``.
        api_key: The one key that is let in; any where it is None.
        port: 0 lets the system choose.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        fail: Mapping[str, int | str] | None = None,
        script: Script | None = None,
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        self.latency = latency
        self.fail = dict(fail or {})
        self.script = script
        self.api_key = api_key
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
            while (request := await _read_request(reader)) is not None:
                answer = await self._answer(*request)
                if answer is None:  # the fault is to break off
                    break
                writer.write(answer.encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the server ends
        finally:
            writer.close()

    async def _answer(
        self, method: str, path: str, headers: dict[str, str], content: bytes
    ) -> Answer | None:
        if (method, path) == ("GET", "/stats"):
            return Answer(body={"calls": self.calls, "connections": self.connections})
        if (method, path.removeprefix("/v1")) != ("POST", "/chat/completions"):
            return Answer(404, _error("no such path", "not_found"))
        got = Received(len(self.requests), time.monotonic(), json.loads(content), headers)
        self.requests.append(got)
        if self.api_key is not None and headers.get("authorization") != f"Bearer {self.api_key}":
            got.status = 401
            return Answer(401, _error("Wrong API Key", "wrong_api_key"))
        fault = next((what for text, what in self.fail.items() if text in got.text), None)
        if fault is None and self.script is not None:
            fault = self.script(got)
        if self.latency:
            await asyncio.sleep(self.latency)
        return await self._faulty(got, fault) if fault is not None else self._good(got)

    def _good(self, got: Received, content: str | None = None) -> Answer:
        got.status = 200
        return Answer(200, completion(got, verdict_text(got.body) if content is None else content))

    async def _faulty(self, got: Received, fault: int | str) -> Answer | None:
        got.fault = str(fault)
        if isinstance(fault, int):
            got.status = fault
            return Answer(fault, _error(f"made to fail with {fault}", "made_to_fail"))
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault in ("hang", "cut"):
            return None
        texts = {"malformed": "I would say it is {rather good", "empty": "", "wrong-id": "{}"}
        return self._good(got, texts[fault])


def completion(got: Received, content: str) -> dict[str, Any]:
    """A chat completion with this content; four characters count as one token."""
    used = {"prompt_tokens": len(got.text) // 4, "completion_tokens": len(content) // 4 + 1}
    return {
        "id": f"chatcmpl-{got.number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": got.body.get("model", ""),
        "system_fingerprint": "fp_judge",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": used | {"total_tokens": sum(used.values())},
    }


def _error(message: str, code: str) -> dict[str, Any]:
    return {"message": message, "type": f"{code}_error", "param": "", "code": code}


async def _read_request(
    reader: asyncio.StreamReader,
) -> tuple[str, str, dict[str, str], bytes] | None:
    """The next request of a connection, or None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, path, headers, content


def main() -> None:
    """Run the server until it is told to end."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    options.add_argument("--api-key", help="let in only this key")
    options.add_argument("--fail", action="append", default=[], metavar="TEXT=STATUS_OR_FAULT")
    given = options.parse_args()
    fail = {
        text: int(what) if what.isdigit() else what
        for text, _, what in (one.rpartition("=") for one in given.fail)
    }
    server = JudgeServer(latency=given.latency, fail=fail, api_key=given.api_key, port=given.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    with server:
        sys.stdout.write(server.url + os.linesep)
        sys.stdout.flush()
        while server._thread is not None and server._thread.is_alive():
            server._thread.join(0.2)


if __name__ == "__main__":
    main()
