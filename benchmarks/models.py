"""Models and adapters to measure with, made by a process of its own, because it imports mlx.

    python -m benchmarks.models heavy FOLDER
    python -m benchmarks.models tiny FOLDER
    python -m benchmarks.models adapters MODEL FOLDER COUNT

`heavy` is a random Llama of about 1 billion parameters in float32. Most of them are the embedding
and the output matrix, which must be read from disk like any others and cost little to compute with:
so most of the work is loading, as it was on the machine of the original, where a GPU computed.

`tiny` is a random Llama that loads and decodes in milliseconds.

`adapters` makes `adapter-0` … of random small updates, each answering differently, and
`same-answers`: the first with one factor doubled and the other halved, so that every byte of the
tensors differs and every product, and with it every answer, is the same to the last bit.
"""

import json
import sys
from pathlib import Path
from typing import Any

from cachedeval.evals.mlx.cpu import open_blas

open_blas()

import mlx.core as mx  # noqa: E402  the BLAS must be open before mlx is imported

_RANK = 8
_LAYERS = 2
_CONTEXT = 2048
_SPECIAL = ("<end>", "<user>", "<assistant>")
_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def heavy(folder: Path) -> None:
    """Write the model whose loading is most of the work."""
    _llama(folder, hidden=1024, inner=3072, layers=8, head=64, groups=4, vocabulary=440_000)


def tiny(folder: Path) -> None:
    """Write the model whose work is next to nothing."""
    _llama(folder, hidden=64, inner=128, layers=2, head=16, groups=2, vocabulary=320)


def _llama(
    folder: Path, *, hidden: int, inner: int, layers: int, head: int, groups: int, vocabulary: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    used = _write_tokenizer(folder)
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden // groups, hidden),
        "self_attn.v_proj": (hidden // groups, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    weights = {"model.norm.weight": mx.ones((hidden,))}
    for layer in range(layers):
        path = f"model.layers.{layer}"
        for name, shape in shapes.items():
            weights[f"{path}.{name}.weight"] = mx.random.normal(shape) * shape[1] ** -0.5
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{path}.{name}.weight"] = mx.ones((hidden,))
    # Rows beyond the tokenizer's vocabulary are as large on disk, and never the likeliest token.
    scale = mx.where(mx.arange(vocabulary)[:, None] < used, 1.0, 1e-4)
    for name in ("model.embed_tokens", "lm_head"):
        weights[f"{name}.weight"] = mx.random.normal((vocabulary, hidden)) * scale * 0.06
        mx.eval(weights[f"{name}.weight"])
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "eos_token_id": 0,
        "head_dim": head,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "max_position_embeddings": _CONTEXT,
        "model_type": "llama",
        "num_attention_heads": hidden // head,
        "num_hidden_layers": layers,
        "num_key_value_heads": hidden // head // groups,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _write_tokenizer(folder: Path) -> int:
    """Write a tokenizer of one token for each byte; return how many tokens there are."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*_SPECIAL, *alphabet]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in _SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "chat_template": _TEMPLATE,
        "eos_token": _SPECIAL[0],
        "model_max_length": _CONTEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return len(tokens)


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
