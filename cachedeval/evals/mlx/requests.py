"""What is asked of the decoder, and what it answers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cachedeval.engine.errors import InputError

__all__ = ["TODAY", "DecodeRequest", "DecodeStats", "Decoded", "render_prompt", "render_text"]

TODAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The day that it is for chat templates: the one that Llama 3's writes where it is told none."""

_DATE = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_UNREAD_DATE = re.compile(r"strftime_now(?!\s+is\b)")


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One prompt, and how its answer is drawn.

    Attributes:
        tokens: The prompt's token ids, at least one.
        max_tokens: The bound on the answer's tokens, at least 1.
        temperature: 0 takes the most probable token at each step.
        top_p: The probability of the set that is drawn from, above temperature 0.
        seed: Any integer; plays no part at temperature 0.
    """

    tokens: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def check(self, context: int | None) -> None:
        """Raise an `InputError` if this cannot be decoded by a model of so long a context."""
        if not self.tokens:
            raise InputError("the prompt is empty: it has no token")
        if context is not None and len(self.tokens) >= context:
            raise InputError(
                f"the prompt has {len(self.tokens)} tokens, and the model reads and writes at most "
                f"{context} together: shorten the question"
            )
        if self.max_tokens < 1:
            raise InputError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer.

    Attributes:
        text: The tokens' text, without the one that ended the answer.
        tokens: The answer's token ids, without the one that ended it.
        prompt_tokens: How many tokens the prompt has.
        finish_reason: ``stop`` at an end-of-sequence token, ``length`` at the bound or at the end
            of the model's context.
        near_ties: How many steps were decided by a canonical pass.
        changed: In how many of these the batch had another token.
        alone: Why it was decoded alone although others waited; empty if it was not.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    finish_reason: Literal["stop", "length"]
    near_ties: int
    changed: int
    alone: str = ""


@dataclass(slots=True)
class DecodeStats:
    """What decoding cost, in forward passes and in tokens that went through them.

    Attributes:
        steps: Passes of the batch, one token a row.
        step_tokens: Rows in these, summed.
        prefill_tokens: Tokens of prompts that were read.
        shared_tokens: Tokens of prompts that were not read again, thanks to the shared prefix.
        canonical_passes: Canonical passes, one for each near tie.
        canonical_tokens: Tokens in these.
        changed: Tokens that a canonical pass changed.
    """

    steps: int = 0
    step_tokens: int = 0
    prefill_tokens: int = 0
    shared_tokens: int = 0
    canonical_passes: int = 0
    canonical_tokens: int = 0
    changed: int = 0


def render_prompt(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Return the tokens of a chat, ready to be answered.

    The tokenizer's chat template writes them, with its mark for the answer. A tokenizer that has
    none gets the contents, with an empty line after each, as plain text. A template that asks for
    today's date (Llama 3, gpt-oss) is told `TODAY`: an answer must not depend on when it was given.

    As in mlx_lm, a control token that is written in a message becomes that token. Texts of others
    that are quoted in a message are rendered by `cachedeval.evals.mlx.literal` instead.

    Args:
        tokenizer: mlx_lm's wrapper (`LoadedModel.tokenizer`).
        messages: ``role`` and ``content`` each.

    Returns:
        The token ids.

    Raises:
        InputError: A message is no valid text, or the template refuses the messages.
    """
    if not tokenizer.has_chat_template:
        return [int(token) for token in tokenizer.encode(render_text(tokenizer, messages))]
    return [int(token) for token in _apply_template(tokenizer, messages, tokenize=True)]


def render_text(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """Return the text of which `render_prompt` returns the tokens.

    Args:
        tokenizer: mlx_lm's wrapper (`LoadedModel.tokenizer`).
        messages: ``role`` and ``content`` each.

    Raises:
        InputError: A message is no valid text, or the template refuses the messages.
    """
    if not tokenizer.has_chat_template:
        _check_text(messages)
        return "".join(f"{message['content']}\n\n" for message in messages)
    return str(_apply_template(tokenizer, messages, tokenize=False))


def _apply_template(tokenizer: Any, messages: Sequence[dict[str, str]], *, tokenize: bool) -> Any:
    _check_text(messages)
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tokenize=tokenize,
            add_generation_prompt=True,
            **_dated_template(tokenizer),
        )
    except Exception as error:  # a template is a program, and fails as it likes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"the model's chat template refuses the messages: {reason}") from error


def _check_text(messages: Sequence[dict[str, str]]) -> None:
    for message in messages:
        for value in message.values():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"the {message.get('role', '')} message has half of a surrogate pair "
                    f"(U+{ord(value[error.start]):04X}) at character {error.start + 1}: "
                    "it is no text that can be encoded"
                ) from None


def _dated_template(tokenizer: Any) -> dict[str, str]:
    """Return the chat template with the date as a text, where it asks for that; else nothing."""
    if "strftime_now" not in str(tokenizer.chat_template):
        return {}
    template = _DATE.sub(
        lambda asked: repr(TODAY.strftime(asked[2])), tokenizer.get_chat_template()
    )
    if _UNREAD_DATE.search(template):
        raise ValueError("it asks for the date in a way that is not understood")
    return {"chat_template": template}
