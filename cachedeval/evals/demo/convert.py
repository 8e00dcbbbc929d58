"""SmolLM2's GGUF file made into a model folder that `mlx_lm.load` reads.

The result is a function of the GGUF's bytes: the arithmetic is exact (see `_dequantize`), and names
and settings are written in a fixed order.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cachedeval.evals.mlx.cpu import open_blas

if TYPE_CHECKING:
    import mlx.core as mx

__all__ = ["MODEL_FILES", "convert_gguf"]

# What a finished folder holds.
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

# llama.cpp's names to those of Hugging Face's Llama.
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GROUP = 32  # weights a scale in GGUF's Q4_1 and Q8_0
_WORD_BITS = 32  # mlx packs quantized weights into 32-bit words
_CONTROL = 3  # GGUF's token type of special tokens


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model folder of a quantized Llama GGUF with a byte-level BPE vocabulary.

    Args:
        gguf: The GGUF file.
        folder: An existing folder, which receives `MODEL_FILES`; weights are float32.

    Raises:
        ValueError: The file is no Llama with SmolLM's tokenizer.
    """
    open_blas()
    import mlx.core as mx
    import numpy as np
    from safetensors.numpy import save_file

    # The CPU, so that a GPU's rounding and its memory play no part.
    with mx.stream(mx.cpu):
        # mlx's stubs do not say what a GGUF with its metadata is: tensors and values, by name.
        loaded = cast(
            "tuple[dict[str, mx.array], dict[str, Any]]", mx.load(str(gguf), return_metadata=True)
        )
        tensors, metadata = loaded[0], _plain(loaded[1])
        if (metadata["general.architecture"], metadata["tokenizer.ggml.pre"]) != (
            "llama",
            "smollm",
        ):
            raise ValueError(f"{gguf}: not a Llama with SmolLM's tokenizer")
        config = _config(metadata, tied="output.weight" not in tensors)
        heads = {
            "attn_q": config["num_attention_heads"],
            "attn_k": config["num_key_value_heads"],
        }
        weights = {}
        for name in sorted(tensors):
            if not name.endswith(".weight"):
                continue  # scales and biases go with their weight
            block, part = _split(name.removesuffix(".weight"))
            weight = _dequantize(tensors, name)
            if part in heads:
                weight = _unpermute(weight, heads[part])
            weights[f"{block}{_NAMES[part]}.weight"] = np.array(weight)
    # safetensors sorts the names; mlx's own writer orders them by a hash table.
    save_file(weights, folder / "model.safetensors", metadata={"format": "mlx"})
    _write_json(folder / "config.json", config)
    _write_tokenizer(metadata, folder)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return GGUF's metadata with mlx's arrays as plain numbers and lists."""
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in metadata.items()
    }


def _split(name: str) -> tuple[str, str]:
    """Split `blk.3.attn_q` into `model.layers.3.` and `attn_q`."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)", name)
    if match is None or match[2] not in _NAMES:
        raise ValueError(f"unknown tensor {name!r} in the GGUF file")
    return ("" if match[1] is None else f"model.layers.{match[1]}."), match[2]


def _dequantize(tensors: Mapping[str, "mx.array"], name: str) -> "mx.array":
    """Return a weight as float32.

    A product of an at most 8-bit integer and a float16 scale is exact in float32, so it makes no
    difference whether the machine fuses it with the addition: the bytes are the same on each.
    """
    import mlx.core as mx

    weight = tensors[name]
    stem = name.removesuffix("weight")
    if f"{stem}scales" not in tensors:
        return weight.astype(mx.float32)
    scales = tensors[f"{stem}scales"].astype(mx.float32)
    bits = weight.shape[-1] * _WORD_BITS // (scales.shape[-1] * _GROUP)
    biases = tensors[f"{stem}biases"].astype(mx.float32)
    return mx.dequantize(weight, scales, biases, group_size=_GROUP, bits=bits)


def _unpermute(weight: "mx.array", heads: int) -> "mx.array":
    """Undo llama.cpp's reordering of the rows of `q_proj` and `k_proj`.

    GGUF interleaves the two halves of each head for its rotary embedding; mlx wants the halves one
    after the other (the inverse of `LlamaModel.permute` in llama.cpp's `convert_hf_to_gguf`).

    Args:
        weight: Shape (heads * head size, hidden size).
        heads: The number of heads.

    Returns:
        The same shape.
    """
    rows, columns = weight.shape
    halves = weight.reshape(heads, rows // heads // 2, 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _config(metadata: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    """Return the settings that `config.json` of a Llama holds."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "hidden_act": "silu",
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "model_type": "llama",
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        # GGUF holds float32: seven digits give back the decimal number that was meant.
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "vocab_size": len(tokens),
    }


def _write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    """Write the tokenizer: byte-level BPE over individual digits, special tokens, chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    # No BPE token holds a space (byte level writes it as Ġ), so a merge splits in two at the space.
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
            "chat_template": metadata["tokenizer.chat_template"],
            "clean_up_tokenization_spaces": False,
            "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
            "model_max_length": metadata["llama.context_length"],
            "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"]],
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
        },
    )


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
