"""Reading a model from its folder, and the adapter that it wears at the moment."""

from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.adapters import apply_adapter, is_full, one_line, strip_adapters
from cachedeval.evals.mlx.alone import can_batch
from cachedeval.evals.mlx.finite import describe_not_finite
from cachedeval.evals.mlx.prefix import SharedPrefix
from cachedeval.evals.mlx.proof import batch_trouble
from cachedeval.evals.mlx.runtime import mx

import mlx_lm  # isort: skip - after the runtime, which opens the BLAS
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.models.cache import make_prompt_cache  # isort: skip

__all__ = ["LoadedModel", "load_model"]


class LoadedModel:
    """A base model in memory, with its tokenizer, wearing at most one adapter.

    Not thread-safe: all that runs the model, or swaps its adapter, does so on one thread.

    Attributes:
        path: The folder that it was read from.
        model: The model, in evaluation mode. A reload replaces it: do not keep it.
        tokenizer: mlx_lm's wrapper of the tokenizer.
        config: The content of ``config.json``.
        adapter: The adapter that it wears; ``None`` for the base.
        loads: How often the weights were read from disk.
        proven: What `batch_trouble` found, by the number of rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        """How many tokens the model can read and write together; ``None`` if not stated."""
        config = self.config.get("text_config", self.config)
        length = config.get("max_position_embeddings")
        return length if isinstance(length, int) and length > 0 else None

    def use_adapter(self, path: Path | None) -> None:
        """Wear another adapter, or none; the base's weights stay the arrays that they were.

        A swap strips every adapter layer, checks that the base is back, and loads anew: a few
        tens of milliseconds. What a swap cannot undo, such as a full fine-tune, is undone by
        reading the base again (`loads` counts).

        Args:
            path: The adapter's folder; ``None`` for the base.

        Raises:
            InputError: The adapter cannot be read, or does not fit; the model is the base again.
        """
        if path is None and self.adapter is None:
            return
        self._prefixes.clear()  # they hold what the model computed while it wore another adapter
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
                in a few forward passes (`proof`).
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
        """Give the memory back; the object is of no use afterwards."""
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
        self.model, self._base = None, {}  # the old weights need not stand beside the new
        mx.clear_cache()
        if not (self.path / "config.json").is_file():
            found = "no config.json in it" if self.path.is_dir() else "no such folder"
            raise InputError(f"model {self.path}: {found}; give a folder that mlx_lm can load")
        try:
            loaded: Any = mlx_lm.load(str(self.path), return_config=True)
            self.model, self.tokenizer, self.config = loaded
        except Exception as error:  # a broken folder fails in many ways
            raise InputError(f"model {self.path}: cannot be loaded: {one_line(error)}") from error
        self.model.eval()
        self._base = _parameters(self.model)
        damage = describe_not_finite(self._base)
        if damage is not None:
            raise InputError(f"model {self.path}: tensor {damage}: the file is damaged or diverged")
        self.loads += 1


def load_model(path: Path) -> LoadedModel:
    """Read a model's folder with ``mlx_lm.load``; no network is used.

    Args:
        path: A folder; names of repositories are resolved before.

    Returns:
        The model, evaluated into memory, without an adapter.

    Raises:
        InputError: The folder is missing or cannot be loaded.
    """
    return LoadedModel(path)


def _parameters(model: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))
