"""Identifies a base model by what `mlx_lm.load` reads of its folder; imports none of it.

What is read (mlx_lm 0.32, transformers 5), and therefore counts:

- `config.json`, `generation_config.json` and every `model*.safetensors`, also a stray one; not the
  index of the shards, which only distributed loading reads.
- `hf_quant_config.json`, where `config.json` has no `quantization_config`.
- The tokenizer: `tokenizer.json`, `tokenizer_config.json`, the chat templates, and the files of
  vocabulary and special tokens, where they are present. Which of the latter are opened depends on
  the tokenizer's class, which only transformers knows; the others count too. That can make a
  needless miss where one of them is added to a folder, and no wrong hit.
- Where a configuration names code of the model's own (`model_file`, `auto_map`), that file,
  wherever it is, and every `*.py`.

The folder's place and name and the files' times do not count.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cachedeval.engine.digest_cache import DigestCache
from cachedeval.engine.errors import InputError
from cachedeval.engine.files import manifest
from cachedeval.engine.hashing import read_bytes, shown
from cachedeval.engine.installed import versions
from cachedeval.engine.resource import Resource
from cachedeval.engine.store import Store
from cachedeval.evals.hub import BlobNames, cached_snapshot, fetch_snapshot, hub_folder
from cachedeval.evals.proofs import Proofs

__all__ = [
    "ModelResource",
    "model_files",
    "model_identity",
    "model_resource",
    "read_json_object",
    "resolve_model",
    "runtime",
]

_WEIGHTS = "model*.safetensors"
_READ = (
    _WEIGHTS,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)

VOCABULARIES = (
    "*.model",
    "*.spm",
    "*.tiktoken",
    "bpe.codes",
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "merges.txt",
    "normalizer.json",
    "prophetnet.tokenizer",
    "target_vocab.json",
    "tekken.json",
    "vocab*.json",
    "vocab.txt",
    "word_pronunciation.json",
    "word_shape.json",
)
"""What the tokenizers of transformers call their vocabularies."""

_PART = re.compile(r"model-\d+-of-(\d+)\.safetensors", re.ASCII)

_REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

_CUDA = ("mlx-cuda", "mlx-cuda-12", "mlx-cuda-13")

_DECIDING = ("mlx", "mlx-lm", "tokenizers", "transformers")
"""Packages that make tokens of a prompt, and a text of them."""


def resolve_model(name_or_path: str, *, fetch: bool = False) -> Path:
    """Return the folder of a model.

    A folder of that name comes first, as in mlx_lm; then a repository in the Hugging Face cache
    (`main`, as it was when it was downloaded last), without a network.

    Args:
        name_or_path: a folder, or a repository of the Hugging Face hub, `org/name`.
        fetch: whether a repository that is not, or not completely, in the cache is downloaded.

    Raises:
        InputError: there is no such model.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        message = f"model {shown(name_or_path)}: is a file; give the folder of an MLX model"
        raise InputError(message)
    if _REPOSITORY.fullmatch(name_or_path) is None:
        raise InputError(f"model {shown(name_or_path)}: no such folder")
    snapshot = cached_snapshot(name_or_path)
    if snapshot is None and fetch:
        snapshot = fetch_snapshot(name_or_path)
    if snapshot is None:
        message = (
            f"model {name_or_path}: no such folder, and not complete in the Hugging Face cache "
            f"({shown(hub_folder())}); get it with: hf download {name_or_path}"
        )
        raise InputError(message)
    return snapshot


def model_identity(folder: Path, *, known_digests: DigestCache | None = None) -> dict[str, Any]:
    """Return the identity of a model: `{"files": {name: digest}}` of the files that are read.

    mlx_lm reads the weights in the order in which their folder lists them, and of two weights of
    one name the later one counts. So where there are others than the parts of one model, as a copy
    that somebody keeps beside it, the `order` of the files is part of it.

    Args:
        folder: as `resolve_model` returns it.
        known_digests: stores the files' digests.

    Raises:
        InputError: it is no model that mlx_lm can load, as far as its files show.
    """
    entries = manifest(
        folder, model_files(folder), known_digests=known_digests, linked_sha256=BlobNames()
    )
    for entry in entries:
        if entry.size == 0 and fnmatchcase(entry.path, _WEIGHTS):
            raise InputError(f"model {shown(folder)}: {entry.path} is empty; download it again")
    identity: dict[str, Any] = {"files": {entry.path: entry.digest for entry in entries}}
    if not _are_parts([entry.path for entry in entries if fnmatchcase(entry.path, _WEIGHTS)]):
        identity["order"] = [p.name for p in folder.iterdir() if fnmatchcase(p.name, _WEIGHTS)]
    return identity


def model_files(folder: Path) -> list[str]:
    """Return the names of the files that are read of a model folder, relative to it, sorted.

    Raises:
        InputError: there is no configuration or no weights.
    """
    try:
        present = sorted(path.name for path in folder.iterdir() if not path.is_dir())
    except OSError as error:
        message = f"model {shown(folder)}: cannot be listed: {error.strerror}"
        raise InputError(message) from None
    if "config.json" not in present:
        raise InputError(f"model {shown(folder)}: no config.json there{_hint(present)}")
    config = read_json_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{shown(folder / 'config.json')}: names no model_type")
    names = {name for name in present if _any_fits([name], *_READ, *VOCABULARIES)}
    if not _any_fits(names, _WEIGHTS):
        raise InputError(f"model {shown(folder)}: no {_WEIGHTS} there{_hint(present)}")
    names.update(_at_times(folder, config, present))
    return sorted(names)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        InputError: it cannot be read or holds something else.
    """
    try:
        value = json.loads(read_bytes(path))
    except ValueError as error:
        raise InputError(f"{shown(path)}: is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{shown(path)}: holds no JSON object")
    return value


def _at_times(folder: Path, config: dict[str, Any], present: list[str]) -> Iterator[str]:
    """Yield the names of the files that are read under a condition, where it holds."""
    for path in folder.glob("additional_chat_templates/*.jinja"):
        yield path.relative_to(folder).as_posix()
    # Other ones for certain versions of transformers.
    yield from _listed(config.get("configuration_files"), present)
    text_config = config.get("text_config") or {}
    if "quantization_config" not in config and "quantization_config" not in text_config:
        yield from {"hf_quant_config.json"}.intersection(present)
    if _any_fits(present, "tokenizer.*.json"):
        yield from _listed(_tokenizer_config(folder, present).get("fast_tokenizer_files"), present)
    code = config.get("model_file")
    if isinstance(code, str) and (folder / code).is_file():
        yield code
    if _has_code(folder, config, present):
        for path in folder.rglob("*.py"):
            relative = path.relative_to(folder)
            if not any(part.startswith(".") for part in relative.parts):
                yield relative.as_posix()


def _are_parts(weights: Sequence[str]) -> bool:
    """Tell whether these files are a whole, or the parts that it was saved in."""
    if len(weights) == 1:
        return True
    found = [_PART.fullmatch(name) for name in weights]
    return len({part and part[1] for part in found}) == 1 and None not in found


def _has_code(folder: Path, config: dict[str, Any], present: list[str]) -> bool:
    if "model_file" in config:
        return True
    if not any(name.endswith(".py") for name in present):
        return False
    return "auto_map" in config or "auto_map" in _tokenizer_config(folder, present)


def _tokenizer_config(folder: Path, present: list[str]) -> dict[str, Any]:
    name = "tokenizer_config.json"
    return read_json_object(folder / name) if name in present else {}


def _listed(names: object, present: list[str]) -> list[str]:
    return [name for name in present if name in names] if isinstance(names, list) else []


def _any_fits(names: Iterable[str], *patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _hint(present: list[str]) -> str:
    """Return what to do about a folder that holds something else than a model for mlx_lm."""
    if "adapter_config.json" in present:
        return ": it is an adapter; give its base as the model and it as the adapter"
    if _any_fits(present, "*.gguf"):
        return ": mlx_lm reads no GGUF; use a model in MLX or Hugging Face format"
    if _any_fits(present, "*.bin", "*.safetensors"):
        return ": convert the model with mlx_lm.convert"
    return "; is this the folder of an MLX model?"


class ModelResource(Resource[Any]):
    """A model on this machine, by its content; counts how often it was read from disk.

    Args:
        path: its folder.
        identify: returns its identity, and the runtime that it runs on.
        batch_size: prompts decoded together; by memory if None.
        memory_budget: bytes for model and batch, or None.
        store: stores whether its batches can be trusted, or None.
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
            # Imports mlx, which a run of hits does without.
            from cachedeval.evals.mlx.runner import ModelRunner

            self._service = ModelRunner(
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


def model_resource(
    path: Path,
    known_digests: DigestCache,
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    store: Store | None = None,
) -> ModelResource:
    """Return the resource of a model folder; its files are read, unless the digest cache has them.

    Raises:
        InputError: it is no model's folder.
    """
    return ModelResource(
        path,
        lambda: {**model_identity(path, known_digests=known_digests), "runtime": runtime()},
        batch_size=batch_size,
        memory_budget=memory_budget,
        store=store,
    )


def runtime() -> dict[str, str]:
    """Return what else decides the text: versions of packages, and the kind of device.

    Nothing is imported for it. mlx computes on the GPU on macOS, and elsewhere with one of
    its packages for CUDA; else on the CPU.
    """
    installed = versions(*_CUDA, *_DECIDING)
    on_gpu = sys.platform == "darwin" or not installed.keys().isdisjoint(_CUDA)
    return {
        "device": "gpu" if on_gpu else "cpu",
        **{package: installed.get(package, "none") for package in _DECIDING},
    }
