"""A tokenizer in memory: renders chats, and reads what a model wrote."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.generation import Decoded, Rendered, ids_of, packed
from cachedeval.evals.mlx.prompts import render_prompt
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.reasoning import CHANNELS, Markers, Parts, markers_in, separate

from mlx_lm.utils import load_config, load_tokenizer  # isort: skip - after the runtime (BLAS)

__all__ = ["TokenizerTexts", "open_tokenizer"]

_TAIL = 32
"""Tokens at the end of a prompt in which it may open a thought."""

_ = mx  # the runtime must be open before mlx_lm is imported


def open_tokenizer(path: Path) -> "TokenizerTexts":
    """Read the tokenizer in a model's folder; no weights are read.

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        ends = load_config(path).get("eos_token_id")
        load: Any = load_tokenizer
        return TokenizerTexts(load(path, eos_token_ids=ends))
    except Exception as error:  # a broken folder fails in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"model {path}: its tokenizer cannot be loaded: {reason}") from error


class TokenizerTexts:
    """One tokenizer; see `cachedeval.evals.generation.Texts`. Not thread-safe.

    Args:
        tokenizer: mlx_lm's wrapper.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._ends = tuple(sorted(int(token) for token in tokenizer.eos_token_ids))
        self._markers = _own_markers(tokenizer)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        template_args: Mapping[str, Any],
    ) -> Rendered:
        """Return the tokens of a chat; see `Texts`.

        Arguments of tool calls are passed on as the data has them. A template that refuses them as
        a text gets the object that the text holds.
        """
        given: dict[str, Any] = {**template_args, **({"tools": list(tools)} if tools else {})}
        chat = [dict(message) for message in messages]
        try:
            tokens = render_prompt(self.tokenizer, chat, given)
        except InputError:
            parsed = [_with_objects(message) for message in chat]
            if parsed == chat:
                raise
            tokens = render_prompt(self.tokenizer, parsed, given)
        return Rendered(packed(tokens), self._ends)

    def read(
        self, prompt: Rendered, decoded: Decoded, stop: Sequence[str], markers: Markers | None
    ) -> tuple[Parts, bool]:
        """Return thought and answer, and whether a stop text ended them; see `Texts`."""
        ids = ids_of(decoded.tokens)
        if decoded.finish == "stop" and ids and ids[-1] in prompt.ends:
            ids.pop()
        written = self.detokenize(ids)
        ends = [at for text in stop if (at := written.find(text)) >= 0]
        if ends:
            written = written[: min(ends)]
        known = self._markers if markers is None else markers
        return separate(written, known, opened=self._opens(prompt, known)), bool(ends)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        detokenizer = self.tokenizer.detokenizer
        for token in ids:
            detokenizer.add_token(token)
        detokenizer.finalize()
        return str(detokenizer.text)

    def _opens(self, prompt: Rendered, markers: Markers | None) -> bool:
        """Return whether a prompt ends within a thought."""
        if markers is None or markers == CHANNELS or not markers.start:
            return False
        tail = self.detokenize(ids_of(prompt.tokens)[-_TAIL:])
        return tail.rstrip().endswith(markers.start)


def _own_markers(tokenizer: Any) -> Markers | None:
    """Return the markers of the chat template, else those that mlx_lm finds in the vocabulary."""
    found = markers_in(str(tokenizer.chat_template or ""))
    if found is None and tokenizer.has_thinking:
        found = Markers(tokenizer.think_start, tokenizer.think_end)
    return found


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose tool calls have objects as arguments, where a text holds one."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return message | {"tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(arguments, str):
        return call
    try:
        return {**call, "function": {**(function or {}), "arguments": json.loads(arguments)}}
    except ValueError:
        return call
