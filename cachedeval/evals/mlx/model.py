"""A model in memory, and the adapter that is applied to it at the moment.

`mlx_lm.load_adapters` on a model that has an adapter nests LoRA in LoRA, and `remove_lora_layers`
knows one of the five kinds of layer. So layers of every kind are removed here before the next
adapter is applied. Scale, rank and kind come with the new layers, so nothing of the last adapter
remains.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.batch_trial import batch_trouble
from cachedeval.evals.mlx.prefix import SharedPrefix, can_batch
from cachedeval.evals.mlx.runtime import mx

import mlx_lm.utils  # isort: skip - after the runtime, which opens the BLAS
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.models.cache import make_prompt_cache  # isort: skip
from mlx.utils import tree_unflatten  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.tuner.utils import load_adapters  # isort: skip

__all__ = [
    "LoadedModel",
    "apply_adapter",
    "describe_not_finite",
    "is_full",
    "load_model",
    "one_line",
    "strip_adapters",
]

# Under one of these names every adapter layer of mlx_lm keeps the layer that it adapts.
_BASES = ("linear", "embedding")

_LEAF = "lora_b"


class LoadedModel:
    """A base model in memory, with its tokenizer, with at most one adapter applied.

    Not thread-safe: all that runs the model, or swaps its adapter, does so on one thread.

    Attributes:
        path: The folder that it was read from.
        model: The model, in evaluation mode. A reload replaces it: do not keep it.
        tokenizer: mlx_lm's wrapper of the tokenizer.
        config: The content of `config.json`.
        adapter: The adapter that is applied; `None` for the base.
        loads: How often the weights were read from disk.
        proven: What `batch_trouble` found, by the number of rows.
    """

    def __init__(self, path: Path, tokenizer: Callable[[], Any] | None = None) -> None:
        self.path = path
        self._tokenizer = tokenizer
        self.adapter: Path | None = None
        self.loads = 0
        self.proven: dict[int, str] = {}
        self._prefixes: dict[str, SharedPrefix] = {}
        self._base: dict[str, mx.array] = {}
        self.model: Any
        self.tokenizer: Any
        self.config: dict[str, Any]
        self._load()

    @property
    def nbytes(self) -> int:
        """The bytes of all parameters, the adapter's included."""
        return sum(array.nbytes for array in _parameters(self.model).values())

    @property
    def context(self) -> int | None:
        """How many tokens the model can read and write together; `None` if not stated."""
        config = self.config.get("text_config", self.config)
        length = config.get("max_position_embeddings")
        return length if isinstance(length, int) and length > 0 else None

    def use_adapter(self, path: Path | None) -> None:
        """Apply another adapter, or none; the base's weights stay the arrays that they were.

        A swap strips every adapter layer, checks that the base is back, and loads anew: a few
        tens of milliseconds. What a swap cannot undo, such as a full fine-tune, is undone by
        reading the base again (`loads` counts).

        Args:
            path: The adapter's folder; `None` for the base.

        Raises:
            InputError: The adapter cannot be read, or does not fit; the model is the base again.
        """
        if path is None and self.adapter is None:
            return
        self._prefixes.clear()  # they hold what the model computed while another adapter was applied
        self._restore()
        if path is None:
            return
        try:
            full = is_full(path)
            apply_adapter(self.model, path)
        except InputError as error:
            self._restore()
            raise InputError(f"adapter {path} does not fit model {self.path}: {error}") from None
        if full:
            self._base = {}  # the adapter's arrays took its place, so do not hold it
        self.adapter = path

    def batch_trouble(self, rows: int) -> str:
        """Return why prompts cannot be decoded together; empty if they can.

        Args:
            rows: The most rows of a batch, at least 2. For each number the model is tried once,
                in a few forward passes (`batch_trial`).
        """
        if rows not in self.proven:
            if can_batch(make_prompt_cache(self.model)):
                self.proven[rows] = batch_trouble(self.model, self.tokenizer, rows)
            else:
                self.proven[rows] = "mlx_lm has no batches for the caches of this architecture"
        return self.proven[rows]

    def shared_prefix(self, purpose: str) -> SharedPrefix:
        """Return the prefix that is reused for one purpose, until the adapter changes."""
        return self._prefixes.setdefault(purpose, SharedPrefix(self.model))

    def close(self) -> None:
        """Release the memory; the object is of no use afterwards."""
        self._prefixes.clear()
        self._base = {}
        self.model = self.tokenizer = None
        mx.clear_cache()

    def _restore(self) -> None:
        """Make the model the base again: by taking the adapter off, else by a reload."""
        self.adapter = None
        if strip_adapters(self.model):
            now = _parameters(self.model)
            if now.keys() == self._base.keys() and all(now[k] is v for k, v in self._base.items()):
                return
        self._load()

    def _load(self) -> None:
        self.model, self._base = None, {}  # the old weights need no memory beside the new
        mx.clear_cache()
        if not (self.path / "config.json").is_file():
            found = "no config.json in it" if self.path.is_dir() else "no such folder"
            raise InputError(f"model {self.path}: {found}; give a folder that mlx_lm can load")
        try:
            if self._tokenizer is None:
                loaded: Any = mlx_lm.load(str(self.path), return_config=True)
                self.model, self.tokenizer, self.config = loaded
            else:
                self.model, self.config = mlx_lm.utils.load_model(self.path)
                self.tokenizer = self._tokenizer()
        except InputError:
            raise
        except Exception as error:  # a broken folder fails in many ways
            raise InputError(f"model {self.path}: cannot be loaded: {one_line(error)}") from error
        self.model.eval()
        self._base = _parameters(self.model)
        damage = describe_not_finite(self._base)
        if damage is not None:
            raise InputError(f"model {self.path}: tensor {damage}: the file is damaged or diverged")
        self.loads += 1


def load_model(path: Path, tokenizer: Callable[[], Any] | None = None) -> LoadedModel:
    """Read a model's folder with `mlx_lm.load`; no network is used.

    Args:
        path: A folder; names of repositories are resolved before.
        tokenizer: Returns mlx_lm's wrapper of its tokenizer; `None` reads it from the folder.

    Returns:
        The model, evaluated into memory, without an adapter.

    Raises:
        InputError: The folder is missing or cannot be loaded.
    """
    return LoadedModel(path, tokenizer)


def _parameters(model: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


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
    """Apply an adapter to a model that has none.

    Args:
        model: The base, changed in place; where this raises, part of the adapter may be applied.
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
    needed = [
        f"{name}.{key}"
        for name, module in model.named_modules()
        if _LEAF in module
        for key, value in module.items()
        if isinstance(value, mx.array)
    ]
    missing = [name for name in needed if name not in tensors]
    if missing:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise InputError(
            f"tensor {missing[0]}{more} is missing: adapter_config.json asks for {len(needed)} "
            f"tensors (num_layers, keys), and adapters.safetensors holds {len(tensors)}"
        )


def is_full(path: Path) -> bool:
    """Tell whether an adapter replaces whole matrices, which taking layers off cannot undo.

    Raises:
        InputError: `adapter_config.json` is missing or no JSON object.
    """
    try:
        config: Any = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"adapter_config.json: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise InputError("adapter_config.json: not a JSON object")
    return config.get("fine_tune_type") == "full"


def one_line(error: Exception) -> str:
    """Return an error in one line: of a list of misfits the first, and how many more there are."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if first.endswith(":") and more:  # mlx_lm lists all misfits, a line each
        others = f" (and {len(more) - 1} more)" if more[1:] else ""
        return more[0] + others
    if isinstance(error, ValueError | OSError) and first:
        return first
    return f"{type(error).__name__}: {first}"


def describe_not_finite(tensors: Mapping[str, mx.array]) -> str | None:
    """Return which tensor holds a NaN or an infinity, or None if all are finite.

    A sum is finite only if all its terms are, and is several times as fast as a look at each: so
    only a tensor whose sum is not finite, which an overflow can also cause, is looked at closely.
    An infinite scalar is a bound that some models keep among their weights, and is accepted.

    Args:
        tensors: by name; what is not of a floating type counts as finite.

    Returns:
        One line, such as `q_proj.lora_a holds NaN (2 of 256 numbers)`.
    """
    floats = {k: v for k, v in tensors.items() if mx.issubdtype(v.dtype, mx.floating)}
    sums = {name: mx.isfinite(tensor.sum()) for name, tensor in floats.items()}
    mx.eval(sums)
    for name, finite in sums.items():
        if finite.item():
            continue
        tensor = floats[name]
        bad = ~mx.isfinite(tensor)
        count = int(bad.sum().item())  # type: ignore[arg-type]
        nan = bool(mx.isnan(tensor).any().item())
        if count and (nan or tensor.size > 1):
            what = "NaN" if nan else "infinity"
            return f"{name} holds {what} ({count} of {tensor.size} numbers)"
    return None
