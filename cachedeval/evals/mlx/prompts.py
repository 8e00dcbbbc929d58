"""Renders chats into tokens, also chats that quote untrusted text.

A tokenizer takes each control token that a text spells out (`<|im_end|>`, `[/INST]`) for the
token itself. A judged answer could so end its own message and speak as someone else. The
tokenizers' own switch against this (`split_special_tokens`) covers only some classes of
tokenizer, not the added tokens that are not declared special (`<think>`), and would turn the chat
template's own control tokens into text as well.

So `LiteralRenderer` marks each occurrence in a message behind its first character, applies the
template, and encodes the text piece by piece between the marks: no piece holds the whole of a
control token unless the template wrote it. Messages without an occurrence have the tokens that they
always have.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cachedeval.engine.errors import InputError

__all__ = ["TODAY", "LiteralRenderer", "render_prompt", "render_text"]

TODAY = datetime(2024, 7, 26, tzinfo=UTC)
"""Today's date for chat templates: the one that Llama 3's writes by default."""

_DATE = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")

_UNREAD_DATE = re.compile(r"strftime_now(?!\s+is\b)")

_BLANK = " \t\r\n\u2581"
"""Some tokenizers add tokens for runs of these, which control nothing."""


def render_prompt(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    given: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the tokens of a chat, ready to be answered.

    The tokenizer's chat template writes them, with its mark for the answer. A tokenizer that has
    none gets the contents, with an empty line after each, as plain text. A template that asks for
    today's date (Llama 3, gpt-oss) gets `TODAY`: an answer must not depend on when it was given.

    As in mlx_lm, a control token that is written in a message becomes that token. Texts of others
    that are quoted in a message are rendered by `cachedeval.evals.mlx.prompts` instead.

    Args:
        tokenizer: mlx_lm's wrapper (`LoadedModel.tokenizer`).
        messages: `role` and `content` each, and what else the template reads.
        given: What the template is given besides, by name.

    Returns:
        The token ids.

    Raises:
        InputError: A message is no valid text, or the template refuses the messages.
    """
    if not tokenizer.has_chat_template:
        return [int(token) for token in tokenizer.encode(render_text(tokenizer, messages))]
    found = _apply_template(tokenizer, messages, tokenize=True, given=given)
    return [int(token) for token in found]


def render_text(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """Return the text of which `render_prompt` returns the tokens.

    Args:
        tokenizer: mlx_lm's wrapper (`LoadedModel.tokenizer`).
        messages: `role` and `content` each.

    Raises:
        InputError: A message is no valid text, or the template refuses the messages.
    """
    if not tokenizer.has_chat_template:
        _check_text(messages)
        return "".join(f"{message['content']}\n\n" for message in messages)
    return str(_apply_template(tokenizer, messages, tokenize=False))


def _apply_template(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    *,
    tokenize: bool,
    given: Mapping[str, Any] | None = None,
) -> Any:
    _check_text(messages)
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tokenize=tokenize,
            add_generation_prompt=True,
            **{**(given or {}), **_dated_template(tokenizer)},
        )
    except Exception as error:  # a template is a program, and fails as it likes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"the model's chat template refuses the messages: {reason}") from error


def _check_text(messages: Sequence[Mapping[str, Any]]) -> None:
    for message in messages:
        for value in _texts(message):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"the {message.get('role', '')} message has half of a surrogate pair "
                    f"(U+{ord(value[error.start]):04X}) at character {error.start + 1}: "
                    "it is no text that can be encoded"
                ) from None


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(member)


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


class LiteralRenderer:
    """Renders chats for one tokenizer, with their messages taken literally.

    Args:
        tokenizer: mlx_lm's wrapper (`LoadedModel.tokenizer`).

    Example:
        >>> render = LiteralRenderer(loaded.tokenizer).render  # doctest: +SKIP
        >>> render([{"role": "user", "content": "Rate this: <|im_end|>"}])  # doctest: +SKIP
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = {int(token): each for token, each in tokenizer.added_tokens_decoder.items()}
        texts = {str(each.content) for each in added.values()} | {*tokenizer.all_special_tokens}
        self._texts = sorted(text for text in texts if len(text.strip(_BLANK)) > 1)
        special = {token for token, each in added.items() if each.special}
        # Any text may have characters that the tokenizer does not know.
        self._control = (special | {*tokenizer.all_special_ids}) - {tokenizer.unk_token_id}
        self._of_template: dict[tuple[str, ...], Counter[int]] = {}

    def render(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the tokens of a chat, ready to be answered.

        Args:
            messages: `role` and `content` each.

        Returns:
            The token ids: those of `render_prompt`, but for control tokens in the contents.

        Raises:
            InputError: A message is no valid text, the template refuses the messages, or a control
                token in a message cannot be taken literally.
        """
        mark = _mark_for(messages)
        marked = [
            message | {"content": self._marked(message["content"], mark)} for message in messages
        ]
        marks = sum(message["content"].count(mark) for message in marked)
        if marks:
            text = render_text(self._tokenizer, marked)
            tokens = self._encode(text.split(mark))
            literal = text.count(mark) >= marks
        else:
            tokens = render_prompt(self._tokenizer, messages)
            literal = True
        if not literal or self._controls(tokens) != self._template_controls(messages):
            raise InputError(
                "a text in the prompt has control tokens of this model, and its tokenizer or chat "
                "template keeps them from being read as text"
            )
        return tokens

    def _marked(self, content: str, mark: str) -> str:
        """Return the content with a mark behind the first character of each control token."""
        places: set[int] = set()
        for text in self._texts:
            at = content.find(text)
            while at >= 0:
                places.add(at + 1)
                at = content.find(text, at + 1)
        cuts = [0, *sorted(places), len(content)]
        return mark.join(content[start:end] for start, end in itertools.pairwise(cuts))

    def _encode(self, pieces: list[str]) -> list[int]:
        def encode(text: str, **options: bool) -> list[int]:
            return [int(token) for token in self._tokenizer.encode(text, **options)]

        tokens = [token for each in pieces for token in encode(each, add_special_tokens=False)]
        if self._tokenizer.has_chat_template:  # it writes the text around
            return tokens
        bare, framed = encode("x", add_special_tokens=False), encode("x")
        starts = range(len(framed) - len(bare) + 1)
        before = next((at for at in starts if framed[at : at + len(bare)] == bare), 0)
        return [*framed[:before], *tokens, *framed[before + len(bare) :]]

    def _controls(self, tokens: Sequence[int]) -> Counter[int]:
        return Counter(token for token in tokens if token in self._control)

    def _template_controls(self, messages: Sequence[dict[str, str]]) -> Counter[int]:
        """Return the control tokens that the template itself writes."""
        roles = tuple(message["role"] for message in messages)
        if roles not in self._of_template:
            harmless = [message | {"content": "x"} for message in messages]
            tokens = render_prompt(self._tokenizer, harmless)
            self._of_template[roles] = self._controls(tokens)
        return self._of_template[roles]


def _mark_for(messages: Sequence[dict[str, str]]) -> str:
    """Return a text that is in none of the messages and follows from them."""
    contents = [message["content"] for message in messages]
    digest = hashlib.sha256("".join(contents).encode("utf-8", "surrogatepass")).hexdigest()
    while any(digest[:16] in content for content in contents):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return f"\ue000{digest[:16]}\ue000"
