"""How questions are answered: the settings, and the calls that they make of a question."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cachedeval.engine.errors import InputError
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Decoded, Generation, Rendered, decode, render, text

if TYPE_CHECKING:
    from pathlib import Path

    from cachedeval.engine.node import Call
    from cachedeval.engine.resource import Resource
    from cachedeval.evals.models import ModelResource

__all__ = ["AnswerCalls", "AnswerSettings", "no_tokens"]

_RESERVED = {
    "add_generation_prompt",
    "chat_template",
    "messages",
    "return_dict",
    "tokenize",
    "tools",
}
"""What chat templates are given anyway."""


class AnswerCalls(NamedTuple):
    """The calls that answer a question."""

    decoded: "Call[Decoded]"
    answer: "Call[Generation]"


class AnswerSettings:
    """How questions are answered.

    Args:
        max_tokens: the most tokens of an answer, the thought before it included.
        temperature: 0 is greedy.
        top_p: the nucleus sampled from, above temperature 0.
        top_k: how many of the most probable tokens are sampled from; 0 for all.
        min_p: the least probability sampled from, relative to the most probable token; 0 for all.
        repetition_penalty: 1 is none.
        stop: texts that end an answer, and are no part of it.
        system_prompt: the system message of every chat, in place of its own.
        chat_template_args: what the chat template is given besides, by name.
        reasoning_markers: the texts before and after a thought; None for those of the chat
            template, two empty ones to separate nothing.
        seed: of the sampling.

    Raises:
        InputError: a setting cannot be used.
    """

    def __init__(
        self,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        system_prompt: str | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        reasoning_markers: Sequence[str] | None = None,
        seed: int = 42,
    ) -> None:
        _check("max_tokens", max_tokens, max_tokens >= 1, "1 or more")
        _check("temperature", temperature, 0 <= temperature < math.inf, "0 or more")
        _check("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1")
        _check("top_k", top_k, top_k >= 0, "0 or more")
        _check("min_p", min_p, 0 <= min_p <= 1, "0 to 1")
        _check(
            "repetition_penalty", repetition_penalty, 0 < repetition_penalty < math.inf, "above 0"
        )
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(stops):
            raise InputError(
                "stop: an empty text would end every answer before it begins; leave it out"
            )
        if reasoning_markers is not None and (
            len(reasoning_markers) != 2 or bool(reasoning_markers[0]) != bool(reasoning_markers[1])  # noqa: PLR2004
        ):
            raise InputError(
                "reasoning_markers: give the text before a thought and the one behind it, or two "
                "empty ones to separate nothing"
            )
        self.max_tokens = max_tokens
        self.template_args = _template_args(chat_template_args)
        self._system = system_prompt
        self._stop = stops
        self._markers = None if reasoning_markers is None else tuple(reasoning_markers)
        drawn = temperature > 0
        # What plays no part at temperature 0 is no part of the key.
        self._sampling: dict[str, Any] = {
            "temperature": float(temperature),
            "top_p": float(top_p) if drawn else 1.0,
            "top_k": top_k if drawn else 0,
            "min_p": float(min_p) if drawn else 0.0,
            "repetition_penalty": float(repetition_penalty),
            "seed": seed if drawn else None,
        }

    def prompt(self, question: Question, tokenizer: "Resource[Any]") -> "Call[Rendered]":
        """Return the call that renders a question; adapters share it."""
        messages: Sequence[Mapping[str, Any]] = question.messages
        if self._system is not None:
            if messages[0]["role"] == "system":
                messages = messages[1:]
            messages = ({"role": "system", "content": self._system}, *messages)
        return render(
            tokenizer=tokenizer,
            messages=messages,
            tools=question.tools,
            template_args=self.template_args,
        )

    def answer(
        self,
        prompt: "Call[Rendered]",
        model: "ModelResource",
        adapter: "Resource[Path] | None",
    ) -> AnswerCalls:
        """Return the calls that answer a prompt."""
        decoded = decode(
            model=model.weights,
            adapter=adapter,
            prompt=prompt,
            max_tokens=self.max_tokens,
            stop=self._stop,
            tokenizer=model.tokenizer if self._stop else None,
            **self._sampling,
        )
        answer = text(
            tokenizer=model.tokenizer,
            prompt=prompt,
            decoded=decoded,
            stop=self._stop,
            markers=self._markers,
        )
        return AnswerCalls(decoded, answer)


def no_tokens(max_tokens: int, count: int) -> str:
    """Return the warning that answers were cut off."""
    what = "answer was" if count == 1 else "answers were"
    return (
        f"{count} {what} cut off at --max-tokens {max_tokens}: raise it, and only these are decoded "
        "again"
    )


def _template_args(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a chat template in one order."""
    arguments = dict(given or {})
    taken = _RESERVED & arguments.keys()
    if taken:
        raise InputError(
            f"chat_template_args: {', '.join(sorted(taken))} cannot be set; the evaluation sets it"
        )
    if not all(isinstance(name, str) and name.isidentifier() for name in arguments):
        raise InputError("chat_template_args: each name must be an identifier, as enable_thinking")
    return {name: arguments[name] for name in sorted(arguments)}


def _check(name: str, value: object, good: bool, needed: str) -> None:  # noqa: FBT001
    if not good:
        raise InputError(f"{name} is {value}; it must be {needed}")
