"""Conversion of a tiny Llama in GGUF with llama.cpp's row order and SmolLM's kind of tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cachedeval.evals.mlx.cpu import open_blas

open_blas()

import mlx.core as mx  # noqa: E402 - the BLAS comes first
import mlx_lm  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402

from cachedeval.evals.demo.convert import MODEL_FILES, convert_gguf  # noqa: E402

HIDDEN, HEADS, KV_HEADS, WIDE = 64, 4, 2, 96
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """As llama.cpp's convert_hf_to_gguf writes it."""
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)


def original_weights() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(scale=0.1, size=shape).astype(np.float32)

    size = HIDDEN // HEADS
    return {
        "token_embd": normal(len(tokens()), HIDDEN),
        "output_norm": normal(HIDDEN),
        "blk.0.attn_norm": normal(HIDDEN),
        "blk.0.attn_q": normal(HIDDEN, HIDDEN),
        "blk.0.attn_k": normal(KV_HEADS * size, HIDDEN),
        "blk.0.attn_v": normal(KV_HEADS * size, HIDDEN),
        "blk.0.attn_output": normal(HIDDEN, HIDDEN),
        "blk.0.ffn_norm": normal(HIDDEN),
        "blk.0.ffn_gate": normal(WIDE, HIDDEN),
        "blk.0.ffn_up": normal(WIDE, HIDDEN),
        "blk.0.ffn_down": normal(HIDDEN, WIDE),
    }


def tokens() -> list[str]:
    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll", "hell", "Ġhell"]


def write_gguf(path: Path, **changed: Any) -> None:
    weights = original_weights()
    weights["blk.0.attn_q"] = permuted(weights["blk.0.attn_q"], HEADS)
    weights["blk.0.attn_k"] = permuted(weights["blk.0.attn_k"], KV_HEADS)

    def number(value: int) -> mx.array:
        return mx.array(value, dtype=mx.uint32)

    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.pre": "smollm",
        "llama.embedding_length": number(HIDDEN),
        "llama.feed_forward_length": number(WIDE),
        "llama.context_length": number(128),
        "llama.attention.head_count": number(HEADS),
        "llama.attention.head_count_kv": number(KV_HEADS),
        "llama.block_count": number(1),
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5),
        "llama.rope.freq_base": mx.array(100000.0),
        "tokenizer.ggml.tokens": tokens(),
        "tokenizer.ggml.token_type": mx.array([3] * 3 + [1] * (len(tokens()) - 3)),
        "tokenizer.ggml.merges": ["h e", "l l", "he ll", "Ġ hell"],
        "tokenizer.ggml.bos_token_id": number(1),
        "tokenizer.ggml.eos_token_id": number(2),
        "tokenizer.ggml.padding_token_id": number(2),
        "tokenizer.ggml.unknown_token_id": number(0),
        "tokenizer.chat_template": TEMPLATE,
    }
    arrays = {f"{name}.weight": mx.array(weight) for name, weight in weights.items()}
    mx.save_gguf(str(path), arrays, metadata | changed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "tiny.gguf")
    made = tmp_path / "model"
    made.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", made)
    return made


def test_rows_are_put_back_in_order(folder: Path) -> None:
    converted = load_file(folder / "model.safetensors")
    original = original_weights()
    layer = "model.layers.0."
    np.testing.assert_array_equal(
        converted[f"{layer}self_attn.q_proj.weight"], original["blk.0.attn_q"]
    )
    np.testing.assert_array_equal(
        converted[f"{layer}self_attn.k_proj.weight"], original["blk.0.attn_k"]
    )
    np.testing.assert_array_equal(
        converted[f"{layer}mlp.down_proj.weight"], original["blk.0.ffn_down"]
    )


def test_the_folder_loads_in_mlx_lm(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL_FILES)
    model: Any
    tokenizer: Any
    model, tokenizer = mlx_lm.load(str(folder))[:2]
    assert tokenizer.eos_token_ids == {2}
    text = "hell 12\n é"
    ids = tokenizer.encode(text)
    # A merged word, then digit by digit.
    assert ids[0] == tokens().index("hell")
    assert [tokens()[number] for number in ids[1:4]] == ["Ġ", "1", "2"]
    assert tokenizer.decode(ids) == text
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "he"}], add_generation_prompt=True
    )
    assert prompt.count(1) == 2  # a turn of the user's, and the assistant's begun
    assert model(mx.array([prompt])).shape == (1, len(prompt), len(tokens()))


def test_settings_are_the_decimal_numbers_that_were_meant(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_theta"] == 100000.0
    assert config["tie_word_embeddings"] is True


def test_two_conversions_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    convert_gguf(tmp_path / "tiny.gguf", again)
    for name in MODEL_FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", **{"tokenizer.ggml.pre": "gpt-2"})
    with pytest.raises(ValueError, match="not a Llama with SmolLM's tokenizer"):
        convert_gguf(tmp_path / "other.gguf", tmp_path)
