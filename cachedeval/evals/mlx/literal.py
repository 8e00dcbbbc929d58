"""Rendering messages that quote untrusted text, so that no control token can be written in them.

A tokenizer takes each control token that a text spells out (``<|im_end|>``, ``[/INST]``) for the
token itself. An answer under judgement could so end its own message and speak as someone else. The
tokenizers' own switch against this (``split_special_tokens``) covers only some classes of
tokenizer, not the added tokens that are not declared special (``<think>``), and would turn the chat
template's own control tokens into text as well.

So each occurrence in a message is marked behind its first character, the template is applied, and
the text is encoded piece by piece between the marks: no piece holds the whole of a control token
but where the template wrote it. Messages without an occurrence have the tokens that they always
have.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.requests import render_prompt, render_text

__all__ = ["LiteralRenderer"]

_BLANK = " \t\r\n\u2581"
"""Some tokenizers add tokens for runs of these, which control nothing."""


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
            messages: ``role`` and ``content`` each.

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
        if self._tokenizer.has_chat_template:  # it writes what stands around the text
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
