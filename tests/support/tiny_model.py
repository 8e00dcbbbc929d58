"""Tiny models and adapters, made in about a second, that the real ``mlx_lm.load`` reads.

The model is a Llama with random weights; its text is nonsense, but it is text, it depends on every
word of the prompt, and near ties, adapters, quantization and the chat template are all real.
Needs mlx and tokenizers alone, so that a subprocess can use it without importing mlx_lm.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cachedeval.evals.mlx.cpu import open_blas

open_blas()

import mlx.core as mx  # noqa: E402 - the BLAS must be open before mlx is imported
from support.tiny_tokenizer import VOCABULARY, write_tiny_tokenizer  # noqa: E402

__all__ = ["FineTuneType", "make_tiny_adapter", "make_tiny_model"]

FineTuneType = Literal["lora", "dora", "full"]

_GROUP = 32  # weights a scale
_WORD_BITS = 32  # mlx packs quantized weights into 32-bit words


def make_tiny_model(
    folder: Path,
    *,
    dtype: str = "float32",
    quantize_bits: int | None = None,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    context: int = 2048,
    chat_template: bool = True,
) -> Path:
    """Write a model folder with ``config.json``, weights and tokenizer.

    Args:
        folder: Made where it does not exist; files of the same names are overwritten.
        dtype: ``float32``, ``float16`` or ``bfloat16``; of scales and norms where quantized.
        quantize_bits: Quantize all matrices to so many bits; ``None`` for none.
        seed: Another seed is another model with the same tokenizer.
        hidden: The hidden size, a multiple of 32.
        layers: The number of blocks.
        context: ``max_position_embeddings`` and the tokenizer's ``model_max_length``.
        chat_template: Whether the tokenizer has a chat template (ChatML).

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = write_tiny_tokenizer(folder, context=context, chat_template=chat_template)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "eos_token_id": end,
        "head_dim": 16,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": context,
        "model_type": "llama",
        "num_attention_heads": hidden // 16,
        "num_hidden_layers": layers,
        "num_key_value_heads": hidden // 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "vocab_size": VOCABULARY,
    }
    weights = _random_weights(config, seed)
    weights = {name: weight.astype(getattr(mx, dtype)) for name, weight in weights.items()}
    if quantize_bits is not None:
        config["quantization"] = {"group_size": _GROUP, "bits": quantize_bits}
        weights = _quantize(weights, quantize_bits)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    _write_json(folder / "config.json", config)
    return folder


def make_tiny_adapter(
    model_folder: Path,
    adapter_folder: Path,
    *,
    seed: int = 0,
    rank: int = 4,
    scale: float = 20.0,
    strength: float = 0.05,
    fine_tune_type: FineTuneType = "lora",
    num_layers: int = 1,
    keys: Sequence[str] | None = None,
) -> Path:
    """Write an adapter folder as ``mlx_lm.lora`` does (adapters.safetensors, adapter_config.json).

    Args:
        model_folder: The model that the adapter fits, made by `make_tiny_model`.
        adapter_folder: Made where it does not exist; files of the same names are overwritten.
        seed: Another seed is another adapter.
        rank: Of LoRA and DoRA.
        scale: The factor of the low-rank update.
        strength: The standard deviation of ``lora_b``, or with ``full`` of what is added to the
            weights. The default changes nearly every answer; 0 changes none.
        fine_tune_type: ``lora``, ``dora`` or ``full`` (whole matrices take the base's place).
        num_layers: How many blocks, from the last.
        keys: The modules, e.g. ``self_attn.q_proj``, or ``model.embed_tokens``, which is outside
            the blocks; ``None`` for all matrices of a block.

    Returns:
        The adapter's folder.
    """
    adapter_folder.mkdir(parents=True, exist_ok=True)
    base = _dequantized(model_folder)
    layers = json.loads((model_folder / "config.json").read_text("utf-8"))["num_hidden_layers"]
    chosen = [f"model.layers.{layer}." for layer in range(layers - num_layers, layers)]
    tensors: dict[str, mx.array] = {}
    for number, (name, weight) in enumerate(sorted(base.items())):
        path = name.removesuffix(".weight")
        inside = next((path.removeprefix(block) for block in chosen if path.startswith(block)), "")
        if weight.ndim != 2 or not (path in keys or inside in keys if keys else inside):
            continue
        noise = mx.random.key(seed * 1000 + number)
        if fine_tune_type == "full":
            tensors[name] = weight + strength * mx.random.normal(weight.shape, key=noise)
            continue
        rows, columns = weight.shape
        if path.endswith("embed_tokens"):  # an embedding looks rows up: its update is a @ b
            rows, columns = columns, rows
        below, above = mx.random.split(noise)
        tensors[f"{path}.lora_a"] = mx.random.normal((columns, rank), key=below) * columns**-0.5
        tensors[f"{path}.lora_b"] = mx.random.normal((rank, rows), key=above) * strength
        if fine_tune_type == "dora":
            tensors[f"{path}.m"] = mx.linalg.norm(weight, axis=1)
    mx.save_safetensors(str(adapter_folder / "adapters.safetensors"), tensors, {"format": "mlx"})
    parameters: dict[str, Any] = {"rank": rank, "scale": scale, "dropout": 0.0}
    if keys is not None:
        parameters["keys"] = list(keys)
    _write_json(
        adapter_folder / "adapter_config.json",
        {
            "fine_tune_type": fine_tune_type,
            "lora_parameters": parameters,
            "model": str(model_folder),
            "num_layers": num_layers,
        },
    )
    return adapter_folder


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, mx.array]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    values = config["num_key_value_heads"] * config["head_dim"]
    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (values, hidden),
        "self_attn.v_proj": (values, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes = {
        f"model.layers.{layer}.{name}": shape
        for layer in range(config["num_hidden_layers"])
        for name, shape in block.items()
    }
    shapes["model.embed_tokens"] = (config["vocab_size"], hidden)
    shapes["lm_head"] = (config["vocab_size"], hidden)
    # The factors make attention reach back and the logits spread like a trained model's.
    factors = {"self_attn.q_proj": 2.0, "self_attn.k_proj": 2.0, "lm_head": 3.0}
    weights = {}
    for number, (path, shape) in enumerate(sorted(shapes.items())):
        factor = next((factor for end, factor in factors.items() if path.endswith(end)), 1.0)
        noise = mx.random.normal(shape, key=mx.random.key(seed * 1000 + number))
        weights[f"{path}.weight"] = noise * (factor * shape[1] ** -0.5)
    for layer in range(config["num_hidden_layers"]):
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = mx.ones((hidden,))
    weights["model.norm.weight"] = mx.ones((hidden,))
    return weights


def _quantize(weights: dict[str, mx.array], bits: int) -> dict[str, mx.array]:
    quantized = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            quantized[name] = weight
            continue
        path = name.removesuffix(".weight")
        parts = mx.quantize(weight, group_size=_GROUP, bits=bits)
        for part, value in zip(("weight", "scales", "biases"), parts, strict=True):
            quantized[f"{path}.{part}"] = value
    return quantized


def _dequantized(model_folder: Path) -> dict[str, mx.array]:
    """Return the matrices and vectors under their names, as float32."""
    loaded = mx.load(str(model_folder / "model.safetensors"))
    assert isinstance(loaded, dict)
    weights = {}
    for name, weight in loaded.items():
        path = name.removesuffix(".weight")
        if path != name and f"{path}.scales" in loaded:
            scales, biases = loaded[f"{path}.scales"], loaded[f"{path}.biases"]
            bits = weight.shape[-1] * _WORD_BITS // (scales.shape[-1] * _GROUP)
            whole = mx.dequantize(weight, scales, biases, group_size=_GROUP, bits=bits)
            weights[name] = whole.astype(mx.float32)
        elif path != name:
            weights[name] = weight.astype(mx.float32)
    return weights


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
