"""What is evaluated: the model and the adapter, found, identified, and opened at need."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError
from cachedeval.engine.installed import versions
from cachedeval.engine.resource import Resource
from cachedeval.engine.statmemo import Memo
from cachedeval.engine.store import Store
from cachedeval.evals.adapters import adapter_identity, resolve_adapter
from cachedeval.evals.generation import AdapterResource
from cachedeval.evals.models import model_identity, read_json_object, resolve_model
from cachedeval.evals.proofs import Proofs

__all__ = ["LocalModel", "adapter_resource", "model_of", "model_resource", "runtime"]

_CUDA = ("mlx-cuda", "mlx-cuda-12", "mlx-cuda-13")

_DECIDING = ("mlx", "mlx-lm", "tokenizers", "transformers")
"""Packages that make tokens of a prompt, and a text of them."""


class LocalModel(Resource[Any]):
    """A model on this machine, by its content; counts how often it was read from disk.

    Args:
        path: its folder.
        identify: returns what it is, and the runtime that it runs on.
        batch_size: prompts decoded together; by memory if None.
        memory_budget: bytes for model and batch, or None.
        store: where what is found out about its batches is remembered, or None.
    """

    def __init__(
        self,
        path: Path,
        identify: Callable[[], dict[str, Any]],
        *,
        batch_size: int | None = None,
        memory_budget: int | None = None,
        store: Store | None = None,
    ) -> None:
        self._retired_loads = 0
        self._service: Any = None
        identity = identify()

        def load() -> Any:
            from cachedeval.evals.mlx.service import ModelService  # noqa: PLC0415  imports mlx

            self._service = ModelService(
                path,
                batch_size=batch_size,
                memory_budget=memory_budget,
                proofs=Proofs(store, self),
            )
            if identify() != identity:
                unload(self._service)
                raise InputError(f"model {path} was changed while it was being loaded: run again")
            return self._service

        def unload(service: Any) -> None:
            self._retired_loads += service.loads
            self._service = None
            service.close()

        super().__init__(
            "model", identity, load, close=unload, size=lambda service: int(service.nbytes)
        )

    @property
    def loads(self) -> int:
        """How often its weights were read from disk so far, reloads after an adapter included."""
        return self._retired_loads + (self._service.loads if self._service is not None else 0)


def model_of(given: str | None, adapter: str | os.PathLike[str] | None, *, fetch: bool) -> Path:
    """Return the folder of the base model: the given one, else the one the adapter names.

    Raises:
        InputError: it cannot be found, or nothing says which.
    """
    if given:  # an empty one would be the folder that one stands in
        return resolve_model(given, fetch=fetch)
    named: object = None
    if adapter is not None:
        folder = resolve_adapter(os.fspath(adapter))
        named = read_json_object(folder / "adapter_config.json").get("model")
    if not isinstance(named, str) or not named:
        raise InputError(
            "model: give one (--model, or the environment's CACHEDEVAL_MODEL); "
            + (f"adapter {adapter} does not say" if adapter is not None else "no adapter says")
            + " what it was trained on"
        )
    try:
        return resolve_model(named, fetch=fetch)
    except InputError as error:
        raise InputError(f"adapter {adapter} was trained on {named!r}: {error}") from None


def model_resource(
    path: Path,
    memo: Memo,
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    store: Store | None = None,
) -> LocalModel:
    """Return the resource of a model folder; its files are read, unless the memo knows them.

    Raises:
        InputError: it is no model's folder.
    """
    return LocalModel(
        path,
        lambda: {**model_identity(path, memo=memo), "runtime": runtime()},
        batch_size=batch_size,
        memory_budget=memory_budget,
        store=store,
    )


def adapter_resource(name: str | os.PathLike[str], memo: Memo) -> AdapterResource:
    """Return the resource of an adapter, by its content; it opens to its folder.

    Raises:
        InputError: it cannot be found, or it is none.
    """
    path = resolve_adapter(os.fspath(name))
    return AdapterResource(path, lambda folder: adapter_identity(folder, memo=memo))


def runtime() -> dict[str, str]:
    """Return what besides the model decides the text: packages' versions and the kind of device.

    Nothing is imported to find out. mlx computes on the GPU on macOS, and elsewhere with one of
    its packages for CUDA; else on the CPU.
    """
    installed = versions(*_CUDA, *_DECIDING)
    on_gpu = sys.platform == "darwin" or not installed.keys().isdisjoint(_CUDA)
    return {
        "device": "gpu" if on_gpu else "cpu",
        **{package: installed.get(package, "none") for package in _DECIDING},
    }
