"""Train the demo's two LoRA adapters on the demo model, with mlx-lm.

    python examples/train_adapters.py

Both learn to sort messages to a shop from data/train.jsonl (made by make_data.py). `triage` is
trained until it can; `triage-undertrained` is stopped early, for the comparison. On two cores this
takes about five minutes, and an adapter has 250 kB.
"""

import json
import types
from pathlib import Path

from cachedeval.evals.demo import ensure_demo_model
from cachedeval.evals.mlx.cpu import open_blas

HERE = Path(__file__).parent
MODEL = "SmolLM2-135M-Instruct"

# Batches of `BATCH` rows that each adapter sees.
ITERATIONS = {"triage": 100, "triage-undertrained": 8}
BATCH = 4
LORA = {
    "rank": 4,
    "scale": 20.0,
    "dropout": 0.0,
    "keys": ["self_attn.q_proj", "self_attn.v_proj"],
}
SETTINGS = {
    "fine_tune_type": "lora",
    "num_layers": 8,
    "lora_parameters": LORA,
    "batch_size": BATCH,
    "lr_schedule": {"name": "cosine_decay", "arguments": [1e-3, 100]},
    "mask_prompt": True,
    "max_seq_length": 256,
    "optimizer": "adam",
    "seed": 7,
}


def main() -> None:
    """Train each adapter into its folder beside this file."""
    open_blas()
    from mlx_lm import lora  # noqa: PLC0415 - the BLAS comes before mlx

    model = ensure_demo_model(progress=print)
    for name, iterations in ITERATIONS.items():
        folder = HERE / "adapters" / name
        run = {
            "train": True,
            "model": str(model),
            "data": str(HERE / "data"),
            "adapter_path": str(folder),
            "iters": iterations,
            "val_batches": 4,
            "steps_per_eval": iterations,
            "steps_per_report": 20,
            "save_every": iterations + 1,  # no checkpoints, the last state only
        }
        lora.run(types.SimpleNamespace(**lora.CONFIG_DEFAULTS | SETTINGS | run))
        # In place of what mlx-lm wrote: what matters of it, and no paths of this machine.
        config = {"model": MODEL, "iters": iterations, **SETTINGS}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
