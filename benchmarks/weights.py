"""Models and adapters to measure with, made by a process of its own, because it imports mlx.

    python -m benchmarks.weights heavy FOLDER
    python -m benchmarks.weights tiny FOLDER
    python -m benchmarks.weights adapters MODEL FOLDER COUNT

`heavy` is a random Llama of about 1 billion parameters in float32. Most of them are the embedding
and the output matrix, which must be read from disk like any others and cost little to compute with:
so loading is most of the work, as it was on the machine of the original, where a GPU computed.

`adapters` makes `adapter-0` … of random small updates, each answering differently, and
`same-answers`: the first with one factor doubled and the other halved, so that every byte of the
tensors differs and every product, and with it every answer, is the same to the last bit.
"""

import json
import sys
from pathlib import Path
from typing import Any

from cachedeval.evals.mlx.blas import open_blas

open_blas()

import mlx.core as mx  # noqa: E402  the BLAS must be open before mlx is imported

_RANK = 8
_LAYERS = 2
_HEAVY_VOCABULARY = 440_000
_HEAVY_HIDDEN = 1024
_HEAVY_LAYERS = 8


def heavy(folder: Path) -> None:
    """Write the load-heavy model."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.tiny_tokenizer import VOCABULARY, write_tiny_tokenizer  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    end = write_tiny_tokenizer(folder, context=2048, chat_template=True)
    hidden, inner = _HEAVY_HIDDEN, 3 * _HEAVY_HIDDEN
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden // 4, hidden),
        "self_attn.v_proj": (hidden // 4, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    weights = {"model.norm.weight": mx.ones((hidden,))}
    for layer in range(_HEAVY_LAYERS):
        for name, shape in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = (
                mx.random.normal(shape) * shape[1] ** -0.5
            )
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = mx.ones((hidden,))
    # Rows beyond the tokenizer's vocabulary are as large on disk, and never the likeliest token.
    scale = mx.where(mx.arange(_HEAVY_VOCABULARY)[:, None] < VOCABULARY, 1.0, 1e-4)
    for name in ("model.embed_tokens", "lm_head"):
        weights[f"{name}.weight"] = mx.random.normal((_HEAVY_VOCABULARY, hidden)) * scale * 0.06
        mx.eval(weights[f"{name}.weight"])
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "eos_token_id": end,
        "head_dim": 64,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": hidden // 64,
        "num_hidden_layers": _HEAVY_LAYERS,
        "num_key_value_heads": hidden // 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": _HEAVY_VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def adapters(model: Path, folder: Path, count: int) -> None:
    """Write the adapters of a model with Llama's names of modules."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    for number in range(count):
        _write(folder / f"adapter-{number}", _tensors(config, number), model)
    doubled = {
        name: tensor * (2.0 if name.endswith("lora_a") else 0.5)
        for name, tensor in _tensors(config, 0).items()
    }
    _write(folder / "same-answers", doubled, model)


def _tensors(config: dict[str, Any], seed: int) -> dict[str, mx.array]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    wide = {"q_proj": heads * head, "v_proj": config.get("num_key_value_heads", heads) * head}
    tensors = {}
    layers = config["num_hidden_layers"]
    for layer in range(layers - _LAYERS, layers):
        for name, width in wide.items():
            key = mx.random.key(seed * 1000 + layer * 10 + len(name) + width)
            below, above = mx.random.split(key)
            path = f"model.layers.{layer}.self_attn.{name}"
            tensors[f"{path}.lora_a"] = mx.random.normal((hidden, _RANK), key=below) * hidden**-0.5
            tensors[f"{path}.lora_b"] = mx.random.normal((_RANK, width), key=above) * 0.05
    return tensors


def _write(folder: Path, tensors: dict[str, mx.array], model: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors, {"format": "mlx"})
    about = {
        "fine_tune_type": "lora",
        "lora_parameters": {
            "rank": _RANK,
            "scale": 20.0,
            "dropout": 0.0,
            "keys": ["self_attn.q_proj", "self_attn.v_proj"],
        },
        "model": str(model),
        "num_layers": _LAYERS,
    }
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def tiny(folder: Path) -> None:
    """Write the tiny model of the tests."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.tiny_model import make_tiny_model  # noqa: PLC0415

    make_tiny_model(folder)


def main() -> None:
    """Do what the arguments say."""
    kind, *rest = sys.argv[1:]
    if kind == "heavy":
        heavy(Path(rest[0]))
    elif kind == "tiny":
        tiny(Path(rest[0]))
    else:
        adapters(Path(rest[0]), Path(rest[1]), int(rest[2]))


if __name__ == "__main__":
    main()
