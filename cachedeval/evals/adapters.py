"""Adapters: finds their folders, and identifies them by what `mlx_lm` reads of them.

Of a LoRA, DoRA or full fine-tune that is `adapters.safetensors` and, of `adapter_config.json`, what shapes the layers: the kind of
fine-tune, how many layers, and the LoRA parameters `rank`, `scale`, `dropout` and `keys`. Settings
that only the training reads (`iters`, `learning_rate`, `adapter_path` and so on) do not count, nor
do numbered checkpoints. Imports nothing of mlx_lm.
"""

import json
import os
from pathlib import Path
from typing import Any

from cachedeval.engine.digest_cache import DigestCache
from cachedeval.engine.errors import InputError
from cachedeval.engine.files import manifest
from cachedeval.engine.hashing import shown
from cachedeval.engine.node import node
from cachedeval.engine.resource import Handle
from cachedeval.evals.generation import AdapterResource
from cachedeval.evals.hub import BlobNames
from cachedeval.evals.models import read_json_object, resolve_model

__all__ = [
    "adapter_effect",
    "adapter_identity",
    "adapter_resource",
    "adapter_settings",
    "model_of",
    "resolve_adapter",
]

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"
_SHELF = Path("adapters")
_PIECE = 2**20
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def resolve_adapter(name_or_path: str) -> Path:
    """Return the folder of an adapter.

    Args:
        name_or_path: a folder, or the name of one in `./adapters/`.

    Raises:
        InputError: there is no such adapter; the message lists those that there are.
    """
    path = Path(name_or_path).expanduser()
    for folder in (path, _SHELF / path):
        if folder.is_dir():
            return folder
    if path.exists():
        message = f"adapter {shown(name_or_path)}: is a file; give the adapter's folder"
        raise InputError(message)
    there = sorted(found.parent.name for found in _SHELF.glob(f"*/{CONFIG}"))
    known = f"./adapters holds {', '.join(map(shown, there))}" if there else "./adapters has none"
    raise InputError(f"adapter {shown(name_or_path)}: no such folder, and {known}")


def adapter_identity(folder: Path, *, known_digests: DigestCache | None = None) -> dict[str, Any]:
    """Return the identity of an adapter: `{"files": {name: digest}, "settings": {name: value}}`.

    Args:
        folder: as `resolve_adapter` returns it.
        known_digests: stores the file's digest.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    if not (folder / CONFIG).exists():
        message = f"adapter {shown(folder)}: no {CONFIG} there; is this an adapter of mlx_lm?"
        raise InputError(message)
    settings = adapter_settings(folder)
    if not (folder / WEIGHTS).exists():
        raise InputError(f"adapter {shown(folder)}: no {WEIGHTS} there{_hint(folder)}")
    (weights,) = manifest(folder, [WEIGHTS], known_digests=known_digests, linked_sha256=BlobNames())
    if weights.size == 0:
        raise InputError(f"adapter {shown(folder)}: {WEIGHTS} is empty; train it again")
    return {"files": {weights.path: weights.digest}, "settings": settings}


def adapter_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that mlx_lm reads of an adapter's configuration, in one normal form.

    Defaults are filled in, the order of `keys` does not count, and 20 is 20.0.

    Raises:
        InputError: something is missing or of the wrong type.
    """
    config = read_json_object(folder / CONFIG)
    kind = config.get("fine_tune_type", "lora")
    if kind == "full":
        return {"fine_tune_type": "full"}
    where = f"adapter {shown(folder)}: {CONFIG}"
    if not isinstance(kind, str):
        raise InputError(f"{where}: fine_tune_type is {_shown(config, 'fine_tune_type')}")
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        peft = (
            "; it is in PEFT's format, which mlx_lm does not read" if "peft_type" in config else ""
        )
        raise InputError(f"{where} has no lora_parameters{peft}")
    if "scale" not in parameters and "alpha" in parameters:
        raise InputError(f"{where}: lora_parameters has an alpha, but mlx_lm wants a scale")
    return {
        "fine_tune_type": kind,
        "num_layers": _integer(config, "num_layers", where),
        "rank": _integer(parameters, "rank", where),
        "scale": _number(parameters, "scale", where),
        "dropout": _number(parameters, "dropout", where),
        "keys": _keys(parameters.get("keys"), where),
    }


def _integer(values: dict[str, Any], name: str, where: str) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where}: {name} is {_shown(values, name)}, not a whole number")
    return value


def _number(values: dict[str, Any], name: str, where: str) -> float:
    value = values.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{where}: {name} is {_shown(values, name)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{where}: {name} is too large") from None


def _keys(value: object, where: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{where}: keys is not a list of layers' names")
    return sorted(set(value))  # mlx_lm asks whether a layer's name is in it, no more


def _shown(values: dict[str, Any], name: str) -> str:
    return shown(repr(values[name])[:60]) if name in values else "missing"


def _hint(folder: Path) -> str:
    checkpoints = sorted(path.name for path in folder.glob(f"*_{WEIGHTS}"))
    if checkpoints:
        return (
            f", only checkpoints of the training (the last is {shown(checkpoints[-1])}); "
            f"copy the one that is meant to {WEIGHTS}"
        )
    if any(folder.glob("adapter_model.*")):
        return ": it is in PEFT's format, which mlx_lm does not read"
    return "; was it trained to the end?"


def model_of(given: str | None, adapter: str | os.PathLike[str] | None, *, fetch: bool) -> Path:
    """Return the folder of the base model: the given one, else the one the adapter names.

    Raises:
        InputError: it cannot be found, or nothing says which.
    """
    if given:  # an empty name would be the current folder
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


@node(version="1", name="adapter_effect")
def adapter_effect(adapter: Handle[Path]) -> str:
    """Return why an adapter changes nothing; empty if it changes something, or that is not known."""
    try:
        with adapter as folder:
            settings = adapter_settings(folder)
            if settings["fine_tune_type"] != "lora":
                return ""
            if settings["scale"] == 0:
                return "its scale is 0"
            return "all its lora_b are zero" if _all_zero(folder / WEIGHTS) else ""
    except (InputError, OSError, ValueError):
        return ""  # loading it says what is wrong


def _all_zero(path: Path) -> bool:
    """Return whether all `lora_b` in a file of safetensors are zero.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    found = False
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(size))
        for name, about in tensors.items():
            if not name.endswith("lora_b"):
                continue
            start, end = about["data_offsets"]
            width = _WIDTHS.get(about["dtype"], 1)
            file.seek(8 + size + start)
            found = True
            while start < end:
                piece = file.read(min(_PIECE, end - start))
                signs = piece[width - 1 :: width].count(0x80)  # of -0.0
                if not piece or piece.count(0) + signs != len(piece):
                    return False
                start += len(piece)
    return found


def adapter_resource(name: str | os.PathLike[str], known_digests: DigestCache) -> AdapterResource:
    """Return the resource of an adapter, by its content; it opens to its folder.

    Raises:
        InputError: it cannot be found, or it is none.
    """
    path = resolve_adapter(os.fspath(name))
    return AdapterResource(
        path, lambda folder: adapter_identity(folder, known_digests=known_digests)
    )
