"""Putting an adapter on a model and taking it off again.

``mlx_lm.load_adapters`` on a model that wears an adapter nests LoRA in LoRA, and
``remove_lora_layers`` knows one of the five kinds of layer. So adapters are stripped here, of
every kind, before the next is put on. Scale, rank and kind come with the new layers, so nothing of
the last adapter remains.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.finite import describe_not_finite
from cachedeval.evals.mlx.runtime import mx

from mlx.utils import tree_unflatten  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.tuner.utils import load_adapters  # isort: skip

__all__ = ["apply_adapter", "is_full", "one_line", "strip_adapters"]

# Under one of these names every adapter layer of mlx_lm keeps the layer that it adapts.
_BASES = ("linear", "embedding")
_LEAF = "lora_b"


def strip_adapters(model: Any) -> bool:
    """Put the base layer back in each adapter layer's place.

    Args:
        model: Changed in place; its parameters remain the arrays that they are.

    Returns:
        Whether no adapter layer is left. If not, only a reload helps.
    """
    bases = []
    for name, module in model.named_modules():
        if _LEAF in module:
            base = next((module[key] for key in _BASES if key in module), None)
            if base is None:
                return False
            bases.append((name, base))
    if bases:
        model.update_modules(tree_unflatten(bases))
    return not any(_LEAF in module for _, module in model.named_modules())


def apply_adapter(model: Any, path: Path) -> None:
    """Put an adapter on a model that wears none.

    Args:
        model: The base, changed in place; where this raises, it may wear part of the adapter.
        path: The adapter's folder.

    Raises:
        InputError: One line that names the first misfit, without the adapter's name: a tensor or a
            scale that is not finite, a tensor that is missing, or has no place in the model.
    """
    try:
        tensors = _tensors(path)
        load_adapters(model, str(path))
        _check_complete(model, tensors)
        model.eval()
        mx.eval(model.parameters())
    except InputError:
        raise
    except Exception as error:  # settings of any content, and tensors of any shape
        raise InputError(one_line(error)) from error


def _tensors(path: Path) -> dict[str, mx.array]:
    """Read an adapter's tensors, all of which must hold finite numbers, and check its scale."""
    loaded: Any = mx.load(str(path / "adapters.safetensors"))
    tensors: dict[str, mx.array] = loaded
    if not tensors:
        raise InputError("adapters.safetensors holds no tensor")
    config: Any = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("fine_tune_type") != "full":
        for name, tensor in tensors.items():
            if not mx.issubdtype(tensor.dtype, mx.floating):
                kind = str(tensor.dtype).removeprefix("mlx.core.")
                raise InputError(f"tensor {name} is of type {kind}, not of a floating type")
        # Settings that are missing, or of a wrong type, mlx_lm explains itself.
        scale = (config.get("lora_parameters") or {}).get("scale", 0.0)
        if not abs(float(scale)) <= mx.finfo(mx.float32).max:
            raise InputError(f"its scale is {scale}, which is no finite number")
    damage = describe_not_finite(tensors)
    if damage is not None:
        raise InputError(f"tensor {damage}: the training diverged, or the file is damaged")
    return tensors


def _check_complete(model: Any, tensors: Mapping[str, mx.array]) -> None:
    """Check that each weight of each adapter layer was in the file: mlx_lm draws what was not."""
    wanted = [
        f"{name}.{key}"
        for name, module in model.named_modules()
        if _LEAF in module
        for key, value in module.items()
        if isinstance(value, mx.array)
    ]
    missing = [name for name in wanted if name not in tensors]
    if missing:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise InputError(
            f"tensor {missing[0]}{more} is missing: adapter_config.json asks for {len(wanted)} "
            f"tensors (num_layers, keys), and adapters.safetensors holds {len(tensors)}"
        )


def is_full(path: Path) -> bool:
    """Tell whether an adapter replaces whole matrices, which taking layers off cannot undo.

    Raises:
        InputError: ``adapter_config.json`` is missing or no JSON object.
    """
    try:
        config: Any = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"adapter_config.json: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise InputError("adapter_config.json: not a JSON object")
    return config.get("fine_tune_type") == "full"


def one_line(error: Exception) -> str:
    """Tell an error in one line: of a list of misfits the first, and how many more there are."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if first.endswith(":") and more:  # mlx_lm tells all misfits, in a line each
        others = f" (and {len(more) - 1} more)" if more[1:] else ""
        return more[0] + others
    if isinstance(error, ValueError | OSError) and first:
        return first
    return f"{type(error).__name__}: {first}"
