"""A real byte-level BPE tokenizer of 512 tokens with a chat template, trained in milliseconds."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["VOCABULARY", "write_tiny_tokenizer"]

VOCABULARY = 512
"""How many tokens it has: special ones, all bytes, and what the corpus merges into words."""

_END_OF_TEXT, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CORPUS = """
The river runs from the mountains to the sea, and the towns along it live by its water.
What is the capital of the country, and how many people live there? Answer the question briefly.
She sold seven clips to her friends in April, and then she sold half as many clips in May.
A good answer is accurate, relevant, complete and clear; score each criterion from 0 to 10.
Explain in simple words why the sky is blue during the day and red in the evening.
He walked to the station, bought a ticket, and waited for the train with a cup of tea.
Write a short poem about autumn leaves, the smell of rain, and the light of the morning.
The system reads the file, computes its digest, and returns the result to the user and assistant.
""".strip().splitlines()


def write_tiny_tokenizer(folder: Path, *, context: int, chat_template: bool) -> int:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        folder: An existing folder.
        context: ``model_max_length``.
        chat_template: Whether there is a chat template.

    Returns:
        The id of the token that ends an answer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        AddedToken(token, special=True, normalized=False) for token in (_END_OF_TEXT, _START, _END)
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "add_prefix_space": False,
        "bos_token": _END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": _END,
        "model_max_length": context,
        "pad_token": _END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": _END_OF_TEXT,
    }
    if chat_template:
        config["chat_template"] = _CHAT_TEMPLATE
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    end: int | None = tokenizer.token_to_id(_END)
    assert end is not None
    return end
