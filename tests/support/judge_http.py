"""As much of HTTP/1.1 and of chat completions as a judge on loopback needs."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from support.judge_verdicts import prompt_text

Request = tuple[str, str, dict[str, str], bytes]
"""Method, path, headers with names in lower case, and content."""


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
    answered: float = 0.0
    """``time.monotonic()`` when the answer was sent."""

    @property
    def text(self) -> str:
        """All the messages as one text."""
        return prompt_text(self.body)


@dataclass
class Answer:
    """What goes back: a status, a JSON body or raw bytes, and further headers."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Break off in the middle of the body."""

    def encode(self) -> bytes:
        """The answer as HTTP/1.1."""
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        head = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(content)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        sent = content[: len(content) // 2] if self.cut else content
        return "\r\n".join(head).encode() + b"\r\n\r\n" + sent


def completion(got: Received, content: str) -> dict[str, Any]:
    """A chat completion with this content; four characters count as one token."""
    used = {"prompt_tokens": prompt_tokens(got), "completion_tokens": len(content) // 4 + 1}
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


def prompt_tokens(got: Received) -> int:
    """How many tokens the server counts for a prompt."""
    return len(got.text) // 4


def error_body(message: str, code: str) -> dict[str, Any]:
    """An error as Cerebras words it."""
    return {"message": message, "type": f"{code}_error", "param": "", "code": code}


async def read_request(reader: asyncio.StreamReader) -> Request | None:
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
