"""Chat completions on the wire: what the clients over HTTP share."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from cachedeval.evals.judging.failures import Failure, Refused, ServerError, failure_of_status
from cachedeval.evals.limiting.limits import retry_after
from cachedeval.evals.providers import ChatReply

__all__ = ["failure_of_reply", "read_completion"]

_SHOWN = 200


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_DECODER = msgspec.json.Decoder(_Completion)


def read_completion(
    content: bytes, headers: Mapping[str, str], *, service: str, secret: str
) -> ChatReply:
    """Read a chat completion as Cerebras, OpenAI, vLLM, llama.cpp and mlx_lm.server write it.

    Args:
        content: The reply's body.
        headers: The reply's, names in lower case.
        service: What messages call the service.
        secret: The key: should the service repeat it, it is left out.

    Raises:
        ServerError: It is none.
        Refused: The model, or a filter before it, declined.
    """
    content = _without(content, secret)
    try:
        completion = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServerError(
            f"{service} answered with no chat completion ({error})",
            status=200,
            reply=content[:_SHOWN].decode(errors="replace"),
        ) from error
    if not completion.choices:
        raise ServerError(f"{service} answered with no choice in the completion", status=200)
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        said = choice.message.refusal or "its content filter stopped the reply"
        raise Refused(f"{service} declined to judge: {said[:_SHOWN]}", status=200, reply=said)
    usage = completion.usage or _Usage()
    return ChatReply(
        content=choice.message.content or "",
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        finish_reason=choice.finish_reason or "stop",
        headers=headers,
    )


def failure_of_reply(
    status: int, content: bytes, headers: Mapping[str, str], *, service: str, secret: str
) -> Failure:
    """The failure that an HTTP error stands for, without the key should the service repeat it."""
    failure = failure_of_status(
        status,
        _without(content, secret),
        service=service,
        retry_after=retry_after(headers, datetime.now(UTC)),
    )
    failure.headers = headers
    return failure


def _without(content: bytes, secret: str) -> bytes:
    return content.replace(secret.encode(), b"...") if secret else content
