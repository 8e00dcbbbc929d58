"""A tiny model with a chat template in the shape of Qwen3's, and decoders that say what they are told."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.tiny_model import make_tiny_model
from tokenizers import AddedToken, Tokenizer

from cachedeval.engine.node import Computed
from cachedeval.evals.generation import Answered, Decoded, DecodeInputs, ids_of, packed

__all__ = ["TEMPLATE", "Scripted", "make_thinking_model"]

TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content.split('</think>')[-1] "
    "+ '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- elif open_thinking is defined %}{{- '<think>\\n' }}"
    "{%- endif %}{%- endif %}"
)


def make_thinking_model(folder: Path) -> Path:
    """Write a tiny model with `TEMPLATE`, whose tokenizer knows the marks of a thought as Qwen3's does.

    Its weights have no rows for these two tokens: only a `Scripted` decoder reads such prompts.
    """
    make_tiny_model(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"chat_template": TEMPLATE}), "utf-8")
    return folder


class Scripted:
    """Takes the place of a loaded model, and says what a script has for each prompt.

    Args:
        tokenizer: mlx_lm's wrapper.
        script: takes the prompt's text, and returns what the model would write.

    Attributes:
        decoded: how many prompts were answered.
    """

    loads = 1
    nbytes = 1

    def __init__(self, tokenizer: Any, script: Any) -> None:
        self.decoded = 0
        self._tokenizer = tokenizer
        self._script = script

    def generate(
        self, adapter: Path | None, batch: Sequence[DecodeInputs]
    ) -> Iterator[Answered | None]:
        """Answer; see `cachedeval.evals.generation.Generator`."""
        del adapter
        for index, asked in enumerate(batch):
            self.decoded += 1
            written = self._script(self._tokenizer.decode(ids_of(asked.prompt.tokens)))
            ids = self._tokenizer.encode(written, add_special_tokens=False)
            ids.append(asked.prompt.ends[0])
            cut = len(ids) > asked.max_tokens
            found = Decoded(packed(ids[: asked.max_tokens]), "length" if cut else "stop")
            yield index, Computed(found)

    def close(self) -> None:
        """Release nothing."""
