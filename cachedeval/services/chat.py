"""Chat completions: the request, the reply, and how a reply is read from the wire."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from cachedeval.services.errors import (
    APIConnectionError,
    InvalidResponseError,
    RefusalError,
    ServiceError,
    error_of_body,
    error_of_status,
    one_line,
    words_of,
)
from cachedeval.services.limits import retry_after
from cachedeval.services.secrets import Redactor

__all__ = ["ChatClient", "ChatReply", "ChatRequest", "error_of_reply", "read_completion"]

_DECLARED = ("max_completion_tokens", "temperature", "seed", "response_format")
_SHOWN = 200
_CHARACTERS_PER_TOKEN, _LEAST_TEXT = 32, 1 << 14
"""A message with more characters for each token asked for was not written by a model."""

_FREE = 1 << 15
"""Tokens that a reply without a bound may have."""

_MOST_TOKENS = 10**9
"""A higher count of tokens is not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat completion to ask for.

    Attributes:
        model: The model's name.
        messages: Each with ``role`` and ``content``.
        max_completion_tokens: The most tokens of the reply, reasoning included; None leaves it to
            the service.
        temperature: None leaves it to the service: some models take no other.
        seed: For services that sample reproducibly, or None.
        response_format: The ``response_format`` to send, or None.
        extra: Further fields of the body, such as ``reasoning_effort``.
        optional: Fields that may be left out where the service refuses them.
    """

    model: str
    messages: tuple[dict[str, str], ...]
    max_completion_tokens: int | None = 1024
    temperature: float | None = 0.0
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def body(self) -> dict[str, Any]:
        """Return the request's JSON body."""
        return {"model": self.model, "messages": list(self.messages), **self.parameters()}

    def parameters(self) -> dict[str, Any]:
        """Return the fields of the body beside model and messages, without those left out."""
        declared = {name: getattr(self, name) for name in _DECLARED}
        return {
            **{name: value for name, value in declared.items() if value is not None},
            **self.extra,
        }

    def without(self, names: Collection[str]) -> "ChatRequest":
        """Return the request without some of its parameters."""
        if not self.parameters().keys() & names:
            return self
        left: dict[str, Any] = {name: None for name in _DECLARED if name in names}
        left["extra"] = {name: value for name, value in self.extra.items() if name not in names}
        return replace(self, **left)

    def corrected(self, correction: str) -> "ChatRequest":
        """Return the request with a remark on an earlier reply at the end of its last message."""
        *earlier, last = self.messages
        last = {**last, "content": f"{last['content']}\n\n{correction}"}
        return replace(self, messages=(*earlier, last))


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a service answered.

    Attributes:
        content: The model's words; "" where it had none.
        prompt_tokens: Tokens in, as the service counted; 0 where it did not say.
        completion_tokens: Tokens out, reasoning included.
        finish_reason: ``stop``, ``length``, …
        headers: The reply's HTTP headers, names in lower case.
        left_out: The parameters that the service refuses, and that this request went without.
    """

    content: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    headers: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    left_out: frozenset[str] = frozenset()


class ChatClient(Protocol):
    """Completes chats. Belongs to one event loop from its first use on.

    Attributes:
        name: What messages call it; without secrets.
        redact: Removes the secrets that it sends from a text.
    """

    name: str
    redact: Redactor

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once.

        Raises:
            ServiceError: Why there is no reply. Of a `RateLimitError`, `retry_after` and `headers`
                are what the service sent.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class _Message(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: Any = None
    error: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Completion)


def read_completion(
    content: bytes,
    headers: Mapping[str, str],
    *,
    asked: ChatRequest,
    service: str,
    redact: Redactor,
) -> ChatReply:
    """Read a chat completion as Cerebras, OpenAI, vLLM, llama.cpp and mlx_lm.server write it.

    The content may be a list of parts. If it is empty, and the reply ended by itself, the content of
    `reasoning_content` or `reasoning` is the reply: servers with the wrong reasoning parser put
    everything there.

    Args:
        content: The reply's body, unaltered.
        headers: The reply's, names in lower case.
        asked: The request.
        service: What messages call the service.
        redact: Removes secrets from what errors show.

    Raises:
        InvalidResponseError: It is no completion, or an error that has no kind of its own.
        RefusalError: The model, or a filter before it, declined.
        APIConnectionError: It is the beginning of one.
        ServiceError: It is an error with a status; the kind is the status's.
    """
    completion = _decoded(content, service, redact)
    choice = completion.choices[0] if completion.choices else None
    error = completion.error or (choice and choice.error)
    if error:
        found = error_of_body(error, service=service, redact=redact)
        found.headers = headers
        raise found
    if choice is None:
        raise _no_completion(content, "it has no choice", service, redact)
    usage = completion.usage if isinstance(completion.usage, dict) else {}
    tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    message = choice.message
    if message.refusal or choice.finish_reason == "content_filter":
        words = _text_of(message.refusal) or "its content filter stopped the reply"
        shown = redact(one_line(words))[:_SHOWN]
        declined = RefusalError(f"{service} declined: {shown}", status=200, reply=shown)
        declined.tokens = tokens
        raise declined
    text = _text_of(message.content)
    ended = choice.finish_reason != "length"
    if not text.strip() and ended:
        text = _text_of(message.reasoning_content) or _text_of(message.reasoning) or text
    longest = max(_LEAST_TEXT, _CHARACTERS_PER_TOKEN * (asked.max_completion_tokens or _FREE))
    if len(text) > longest:
        found = InvalidResponseError(
            f"{service} answered with {len(text):,} characters, and was asked for at most"
            f" {asked.max_completion_tokens or _FREE:,} tokens",
            status=200,
            reply=redact(text[:_SHOWN]),
        )
        found.wrong_endpoint = False  # it is a chat service
        found.tokens = tokens
        raise found
    reason = choice.finish_reason
    return ChatReply(
        content=text,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        finish_reason=redact(one_line(reason))[:40]
        if isinstance(reason, str) and reason
        else "stop",
        headers=headers,
    )


def error_of_reply(
    status: int, content: bytes, headers: Mapping[str, str], *, service: str, redact: Redactor
) -> ServiceError:
    """Return the error for an HTTP status other than success, with the service's words."""
    found = error_of_status(
        status,
        content or headers.get("location", ""),
        service=service,
        retry_after=retry_after(headers, datetime.now(UTC)),
        redact=redact,
    )
    found.headers = headers
    return found


def _decoded(content: bytes, service: str, redact: Redactor) -> _Completion:
    try:
        return _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        why = str(error) or type(error).__name__
    if content.lstrip()[:1] == b"{" and "truncated" in why:
        raise APIConnectionError(
            f"{service} broke off in the middle of a reply",
            status=200,
            reply=_shown(content, redact),
        )
    raise _no_completion(content, why, service, redact)


def _no_completion(
    content: bytes, why: str, service: str, redact: Redactor
) -> InvalidResponseError:
    words = redact(words_of(content)[0])[:_SHOWN] or "nothing"
    return InvalidResponseError(
        f"{service} answered with no chat completion ({redact(one_line(why))[:_SHOWN]}): {words}"
        " (is the server's base URL right?)",
        status=200,
        reply=_shown(content, redact),
    )


def _shown(content: bytes, redact: Redactor) -> str:
    return redact(content[: 4 * _SHOWN].decode(errors="replace"))[:_SHOWN]


def _text_of(content: Any) -> str:
    """Return the text of a message's content: itself, or its text parts without thinking and media."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        text = content.get("text")
        kind = content.get("type", "text")
        return text if isinstance(text, str) and kind in ("text", "output_text") else ""
    if isinstance(content, list):
        return "".join(_text_of(part) for part in content if isinstance(part, str | dict))
    return ""


def _count(value: Any) -> int:
    """Return a count of tokens, or 0 if the value is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if usable else 0
