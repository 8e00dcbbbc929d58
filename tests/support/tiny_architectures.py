"""A tiny model of each architecture of mlx_lm, with random weights.

`SIZES` has a small value for each name that the settings of several architectures share; where an
architecture wants another value under such a name, or has names of its own, `OWN` says so.
"""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

from support.tiny_tokenizer import VOCABULARY, write_tiny_tokenizer

from cachedeval.evals.mlx.runtime import mx

import mlx_lm.models  # isort: skip - after the runtime, which opens the BLAS
from mlx.utils import tree_flatten, tree_map_with_path  # isort: skip

__all__ = ["ARCHITECTURES", "NOT_TINY", "build_tiny", "save_tiny", "settings_of"]

_HELPERS = {
    *("activations", "base", "bitlinear_layers", "cache", "gated_delta", "mla", "pipeline"),
    *("rope_utils", "ssm", "switch_layers"),
}
"""Modules of mlx_lm.models that other modules share."""

NOT_TINY = {
    "bitnet": "its layers are a Metal kernel, which a CPU cannot run",
    "muse_spark": "its attention is a Metal kernel, which a CPU cannot run",
    "olmo": "importing it ends the process where the package ai2-olmo is not installed",
    "phi3small": "mlx_lm corrupts the memory of the process when it decodes a tiny one on a CPU",
    "prism_hadamard_qwen35": "its weights are a packed format that only its converter writes",
}
"""Architectures that no tiny model can be built of here, and why."""

_LARGEST = 10_000_000  # weights

ARCHITECTURES = sorted(
    {module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)} - _HELPERS
)

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "rope_traditional": False,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    # sliding windows
    "sliding_window": 16,
    "sliding_window_size": 16,
    "window_size": 16,
    "attention_window_size": 16,
    "sliding_window_pattern": 2,
    # mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "num_shared_expert": 1,
    "moe_intermediate_size": 32,
    "shared_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "moe_shared_expert_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "moe_layer_freq": 1,
    "routed_scaling_factor": 1.0,
    # latent attention
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 8,
    # state-space models and convolutions
    "state_size": 16,
    "ssm_state_size": 16,
    "conv_kernel": 4,
    "conv_L_cache": 3,
    "conv_bias": False,
    "use_conv_bias": True,
    "use_bias": False,
    "time_step_rank": 4,
    "time_step_limit": (0.001, 100.0),
    "n_groups": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 16,
    "mamba_expand": 2,
    "mamba_d_ssm": 64,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_n_heads": 4,
    "mamba_num_heads": 4,
    "mamba_n_groups": 1,
    "mamba_proj_bias": False,
    "mamba_conv_bias": True,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 16,
    # GPT-2's names
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 128,
    "n_ctx": 2048,
    "n_positions": 2048,
}

_SLIDING = ["sliding_attention", "full_attention"] * 2
_LINEAR = ["linear_attention", "full_attention"] * 2
_SCALED = {
    "attention_multiplier": 0.25,
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
}
_MINI_CPM = {"dim_model_base": 64, "scale_depth": 1.4, "scale_emb": 1.0}
_ROPE_4 = {
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rope_type": "default",
    "type": "default",
}
_ROPE_BY_TYPE = {
    "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    "full_attention": {"rope_theta": 10000.0, "rope_type": "default"},
}
_KIMI_LINEAR = {
    "kda_layers": [1, 3],
    "full_attn_layers": [2, 4],
    "num_heads": 4,
    "head_dim": 16,
    "short_conv_kernel_size": 4,
    "gate_lower_bound": -5.0,
}
_GEMMA_4 = {
    "global_head_dim": 16,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "num_kv_shared_layers": 0,
    "layer_types": _SLIDING,
    "num_experts": None,
    "top_k_experts": None,
}
_LONGCAT = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "zero_expert_num": 2,
    "ffn_hidden_size": 64,
    "expert_ffn_hidden_size": 32,
    "num_layers": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "ngram_vocab_size_ratio": 2,
    "emb_neighbor_num": 2,
    "emb_split_num": 2,
}
_LFM_2 = {
    "block_dim": 64,
    "block_ff_dim": 128,
    "block_multiple_of": 16,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "use_expert_bias": True,
    "full_attn_idxs": [1, 3],
    "layer_types": ["conv", "full_attention"] * 2,
}
_BAILING = {"layer_group_size": 2, "group_norm_size": 2, "num_layers": 4}
_MUSE = {
    "post_norm_eps": 1e-5,
    "final_logit_softcapping": 30.0,
    "output_multiplier": 1.0,
    "layer_rope_theta": [10000.0] * 4,
    "layer_types": _SLIDING,
    "moe_hidden_size": 32,
    "num_shared_experts": 0,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
}

OWN: dict[str, dict[str, Any]] = {
    "afm7": {
        "hidden_dim": 64,
        "num_layers": 4,
        "num_kv_reuse_layers": 1,
        "num_heads": 4,
        "num_kv_heads": 2,
    },
    "afmoe": {"layer_types": _SLIDING},
    "apertus": {"post_norm": False, "qk_norm": True},
    "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
    "bailing_hybrid": _BAILING,
    "bailing_moe_linear": _BAILING,
    "bailing_moe_v3": {"layer_group_size": 2, "short_conv_kernel_size": 4},
    "dbrx": {
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 4,
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek_v2": {
        "rope_scaling": {
            "type": "yarn",
            "factor": 2.0,
            "mscale_all_dim": 0,
            "original_max_position_embeddings": 1024,
        }
    },
    "deepseek_v41": {
        "head_dim": 64,
        "o_groups": 2,
        "o_lora_rank": 32,
        "compress_ratios": (0, 0, 0, 0),
    },
    "exaone": {"num_layers": 4},
    "exaone4": {"rope_scaling": None, "sliding_window_pattern": "LG", "layer_types": _SLIDING},
    "exaone_moe": {
        "layer_types": _SLIDING,
        "is_moe_layer": [False, True, True, True],
        "topk_method": "noaux_tc",
    },
    "falcon_h1": {"mamba_n_groups": 1, "mlp_expansion_factor": 2},
    "gear": {"layer_types": _SLIDING},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"text_config": {"model_type": "gemma3_text", "query_pre_attn_scalar": 16}},
    "gemma3_text": {"query_pre_attn_scalar": 16},
    "gemma3n": {
        "text_config": {
            "model_type": "gemma3n_text",
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": VOCABULARY,
            "rope_local_base_freq": 10000.0,
            "final_logit_softcapping": 30.0,
            "layer_types": _SLIDING,
            "activation_sparsity_pattern": [0.0] * 4,
            "hidden_size_per_layer_input": 16,
            "altup_num_inputs": 4,
            "altup_coef_clip": 120.0,
            "altup_correct_scale": True,
            "altup_active_idx": 0,
            "laurel_rank": 16,
        }
    },
    "gemma4": {"text_config": {"model_type": "gemma4_text", **_GEMMA_4}},
    "gemma4_text": _GEMMA_4,
    "glm4": {"partial_rotary_factor": 0.5},
    "glm4_moe": {"rope_scaling": None, "use_qk_norm": True, "partial_rotary_factor": 0.5},
    "glm_moe_dsa": {
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    "gpt_bigcode": {"multi_query": True, "tie_word_embeddings": True},
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.5},
    "gptj": {"rotary_dim": 8},
    "granite": _SCALED,
    "granitemoe": _SCALED,
    "granitemoehybrid": {**_SCALED, "layer_types": ["mamba", "attention"] * 2, "mamba_n_heads": 8},
    "hunyuan": {
        "use_mixed_mlp_moe": True,
        "use_qk_norm": True,
        "use_cla": True,
        "cla_share_factor": 2,
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
    },
    "iquestloopcoder": {"loop_num": 2, "loop_window_size": 16},
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
    },
    "kimi_k25": {"text_config": {"model_type": "kimi_k25", "num_key_value_heads": 4}},
    "kimi_k3": {
        "text_config": {
            "model_type": "kimi_linear",
            "linear_attn_config": _KIMI_LINEAR,
            "activation_situ_beta": 2.0,
            "num_expert_group": 1,
        }
    },
    "kimi_linear": {"linear_attn_config": _KIMI_LINEAR, "model_max_length": 2048},
    "kimi_vl": {"text_config": {"model_type": "kimi_vl"}},
    "laguna": {"layer_types": _SLIDING},
    "lfm2": _LFM_2,
    "lfm2-vl": {"text_config": {"model_type": "lfm2", **_LFM_2}},
    "lfm2_moe": _LFM_2,
    "lille-130m": {"block_size": 2048, "n_kv_heads": 2},
    "llama4": {
        "text_config": {
            "model_type": "llama4_text",
            "attention_chunk_size": 32,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 128,
            "use_qk_norm": True,
            "attn_temperature_tuning": True,
            "floor_scale": 8192,
            "attn_scale": 0.1,
            "num_experts_per_tok": 1,
            "rope_scaling": None,
        }
    },
    "llama4_text": {
        "intermediate_size_mlp": 128,
        "no_rope_layers": [1, 1, 1, 0],
        "use_qk_norm": True,
    },
    "longcat_flash": _LONGCAT,
    "longcat_flash_ngram": _LONGCAT,
    "mamba2": {"num_heads": 8, "intermediate_size": 128},
    "mellum": {
        "layer_types": _SLIDING,
        "rope_parameters": _ROPE_BY_TYPE,
    },
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [1, 0, 1, 0],
        "moe_layer_freq": [0, 1, 1, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "layernorm_epsilon": 1e-5,
        "swa_rope_theta": 10000.0,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 16,
        "swa_v_head_dim": 16,
        "partial_rotary_factor": 1,
    },
    "minicpm": _MINI_CPM,
    "minicpm3": {
        **_MINI_CPM,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [1.0] * 4,
            "original_max_position_embeddings": 2048,
        },
    },
    "minimax": {"rotary_dim": 8},
    "minimax_m3_vl": {
        "text_config": {
            "model_type": "minimax_m3",
            "dense_intermediate_size": 128,
            "moe_layer_freq": [0, 1, 1, 1],
            "sparse_attention_config": {
                "sparse_num_index_heads": 2,
                "sparse_index_dim": 16,
                "sparse_block_size": 4,
                "sparse_topk_blocks": 4,
                "sparse_local_block": 1,
            },
            "sparse_attention_freq": [0, 1, 0, 1],
        }
    },
    "ministral3": {"rope_parameters": _ROPE_4},
    "mistral3": {"text_config": {"model_type": "mistral"}},
    "mistral4": {"rope_parameters": _ROPE_4},
    "muse_glimmer": _MUSE,
    "muse_spark": {"text_config": _MUSE},
    "nemotron": {"hidden_act": "relu2", "partial_rotary_factor": 0.5},
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"replace_with_linear": True}, "ffn": {"replace_with_linear": True}},
            {"attention": {"n_heads_in_group": 2}, "ffn": {"no_op": True}},
        ],
    },
    "nemotron_h": {"hybrid_override_pattern": ["M", "*", "-", "E"]},
    "olmo3": {"layer_types": _SLIDING},
    "olmo_hybrid": {"linear_allow_neg_eigval": True, "layer_types": _LINEAR},
    "openelm": {
        "num_transformer_layers": 2,
        "model_dim": 64,
        "ffn_dim_divisor": 16,
        "num_query_heads": [4, 4],
        "num_kv_heads": [2, 2],
        "ffn_multipliers": [1.0, 2.0],
    },
    "phi3small": {
        "dense_attention_every_n_layers": 2,
        "ff_intermediate_size": 128,
        "gegelu_limit": 20.0,
    },
    "phixtral": {
        "num_vocab": VOCABULARY,
        "model_dim": 64,
        "num_heads": 4,
        "num_layers": 2,
        "rotary_dim": 8,
    },
    "pixtral": {"text_config": {"model_type": "llama"}},
    "plamo": {"n_shared_head": 2},
    "plamo2": {"hidden_size_per_head": 16, "full_attention_idx": [1, 3]},
    "qwen": {"kv_channels": 16},
    "qwen2_vl": {"text_config": {"model_type": "qwen2"}},
    "qwen3_5": {"text_config": {"model_type": "qwen3_5_text", "full_attention_interval": 2}},
    "qwen3_5_moe": {"text_config": {"model_type": "qwen3_5_text", "full_attention_interval": 2}},
    "qwen3_next": {"full_attention_interval": 2, "partial_rotary_factor": 0.5},
    "qwen3_vl": {"text_config": {"model_type": "qwen3"}},
    "qwen3_vl_moe": {"text_config": {"model_type": "qwen3_moe"}},
    "recurrent_gemma": {
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "block_types": ["recurrent", "attention"],
    },
    "rwkv7": {
        "a_low_rank_dim": 16,
        "v_low_rank_dim": 16,
        "gate_low_rank_dim": 16,
        "decay_low_rank_dim": 16,
    },
    "solar_open": {"partial_rotary_factor": 0.5},
    "spark2_5": {"layer_types": _SLIDING, "rope_parameters": _ROPE_BY_TYPE},
    "stablelm": {"partial_rotary_factor": 0.5, "use_qkv_bias": True},
    "step3p5": {
        "num_attention_groups": 2,
        "layer_types": _SLIDING,
        "share_expert_dim": 32,
        "moe_top_k": 2,
    },
}
"""What an architecture is given beside `SIZES`, or instead of a value there."""


def settings_of(architecture: str) -> dict[str, Any]:
    """Return the content of a ``config.json`` for a tiny model."""
    own = {"model_type": architecture, **OWN.get(architecture, {})}
    settings = {**SIZES, **own}
    text = OWN.get(architecture, {}).get("text_config")
    if text is not None:
        settings["text_config"] = {**SIZES, **text}
    return settings


def build_tiny(architecture: str, seed: int = 5) -> Any:
    """Build a model whose weights are random: answers depend on each token of the prompt."""
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    mx.random.seed(seed)
    model = module.Model(module.ModelArgs.from_dict(settings_of(architecture)))
    sizes: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    if sum(weight.size for weight in sizes.values()) > _LARGEST:
        raise ValueError(f"{architecture}: not tiny: a size has another name there")
    model.update(tree_map_with_path(_stronger, model.parameters()))
    mx.eval(model.parameters())
    return model.eval()


def save_tiny(architecture: str, folder: Path, seed: int = 5) -> Path:
    """Write the folder of a tiny model, with a tokenizer, for ``mlx_lm.load``."""
    folder.mkdir(parents=True, exist_ok=True)
    end = write_tiny_tokenizer(folder, context=2048, chat_template=True)
    settings = {**settings_of(architecture), "eos_token_id": end}
    (folder / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    weights: dict[str, mx.array] = dict(tree_flatten(build_tiny(architecture, seed).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def _stronger(name: str, weight: mx.array) -> mx.array:
    """Make matrices larger, so that attention is sharp and logits are far apart."""
    return weight * 3 if weight.ndim > 1 and "conv" not in name else weight
