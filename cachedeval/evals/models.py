"""Identifies a base model by what `mlx_lm.load` reads of its folder; imports none of it.

What is read (mlx_lm 0.32, transformers 5), and therefore counts:

- `config.json`, but not its white space and order; of `generation_config.json` the tokens that end an
  answer; every `model*.safetensors`, also a stray one; not the index of the shards, which only
  distributed loading reads.
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
from typing import Any, NamedTuple

import xxhash

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
    "ModelIdentity",
    "ModelResource",
    "identify_model",
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

_COMPUTING = ("mlx", "mlx-lm")
"""Packages that decode."""

_RENDERING = ("jinja2", "mlx-lm", "sentencepiece", "tiktoken", "tokenizers", "transformers")
"""Packages that make tokens of a prompt, and a text of them."""

_DECODING = ("hf_quant_config.json", "*.py")
"""Files that decoding reads besides the weights and `config.json`."""

_UNREAD = ("_name_or_path", "eos_token_id", "transformers_version")
"""What no architecture of mlx_lm reads of `config.json`. The tokens that end an answer come with the
prompt. (A model's own code may read anything.)"""


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


class ModelIdentity(NamedTuple):
    """What a model folder is, whole and in parts, as plain data."""

    whole: dict[str, Any]
    weights: dict[str, Any]
    """What decoding reads."""
    tokenizer: dict[str, Any]
    """What rendering a chat reads, and reading a text."""


def model_identity(folder: Path, *, known_digests: DigestCache | None = None) -> dict[str, Any]:
    """Return the identity of a whole model; see `identify_model`.

    Raises:
        InputError: it is no model that mlx_lm can load, as far as its files show.
    """
    return identify_model(folder, known_digests=known_digests).whole


def identify_model(folder: Path, *, known_digests: DigestCache | None = None) -> ModelIdentity:
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
    files = {entry.path: entry.digest for entry in entries}
    config = read_json_object(folder / "config.json")
    files["config.json"] = _json_digest(config)
    if "generation_config.json" in files:
        files["generation_config.json"] = _json_digest(_ends(folder / "generation_config.json"))
    decoding = {name: files[name] for name in files if _any_fits([name], _WEIGHTS, *_DECODING)}
    unread = () if "model_file" in config else _UNREAD
    decoding["config.json"] = _json_digest({k: v for k, v in config.items() if k not in unread})
    order = {}
    if not _are_parts([name for name in files if fnmatchcase(name, _WEIGHTS)]):
        order["order"] = [p.name for p in folder.iterdir() if fnmatchcase(p.name, _WEIGHTS)]
    return ModelIdentity(
        whole={"files": files, **order},
        weights={"files": decoding, **order},
        tokenizer={
            "files": {
                name: files[name]
                for name in files
                if not _any_fits([name], _WEIGHTS, "hf_quant_config.json")
            }
        },
    )


def _json_digest(value: Any) -> str:
    """Return the digest of a JSON value; neither white space nor the order of names counts."""
    text = json.dumps(value, sort_keys=True)
    return f"xxh3:{xxhash.xxh3_128_hexdigest(text.encode())}"


def _ends(path: Path) -> Any:
    """Return the one setting of a generation_config.json that mlx_lm reads."""
    try:
        value = json.loads(read_bytes(path))
    except ValueError:  # mlx_lm leaves it out, too
        return None
    return value.get("eos_token_id") if isinstance(value, dict) else None


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

    As a resource it is the whole model, which a judge reads. Decoding and rendering have resources
    of their own, for their keys. All share one copy in memory.

    Args:
        path: its folder.
        identify: returns its identity, with the runtime of each part.
        batch_size: prompts decoded together; by memory if None.
        memory_budget: bytes for model and batch, or None.
        store: stores whether its batches can be trusted, or None.

    Attributes:
        weights: what decodes.
        tokenizer: what renders, without weights.
    """

    def __init__(
        self,
        path: Path,
        identify: Callable[[], ModelIdentity],
        *,
        batch_size: int | None = None,
        memory_budget: int | None = None,
        store: Store | None = None,
    ) -> None:
        identity = identify()
        self._path = path
        self._identify = identify
        self._expected = identity
        self._options = {"batch_size": batch_size, "memory_budget": memory_budget}
        self._retired_loads = 0
        self._service: Any = None
        self._users = 0
        self._texts: Any = None
        super().__init__("model", identity.whole, self._load, close=self._unload, size=self._nbytes)
        self.weights: Resource[Any] = Resource(
            "model", identity.weights, self._load, close=self._unload, size=self._nbytes
        )
        self.tokenizer: Resource[Any] = Resource(
            "tokenizer", identity.tokenizer, self._load_tokenizer, close=self._drop_tokenizer
        )
        self._proofs = Proofs(store, self.weights)

    @property
    def loads(self) -> int:
        """How often its weights were read from disk so far, reloads after an adapter included."""
        return self._retired_loads + (self._service.loads if self._service is not None else 0)

    def _load(self) -> Any:
        # Imports mlx, which a run of hits does without.
        from cachedeval.evals.mlx.runner import ModelRunner

        if self._service is None:
            service = ModelRunner(
                self._path, proofs=self._proofs, texts=self._load_tokenizer, **self._options
            )
            self._service = service
            if self._identify() != self._expected:
                self._users = 1
                self._unload(service)
                raise self._changed()
        self._users += 1
        return self._service

    def _nbytes(self, service: Any) -> int:
        return int(service.nbytes) if self._users == 1 else 0

    def _unload(self, service: Any) -> None:
        self._users -= 1
        if self._users:
            return
        self._retired_loads += service.loads
        self._service = self._texts = None
        service.close()

    def _load_tokenizer(self) -> Any:
        from cachedeval.evals.mlx.texts import open_tokenizer

        if self._texts is None:
            texts = open_tokenizer(self._path)
            if self._identify().tokenizer != self._expected.tokenizer:
                raise self._changed()
            self._texts = texts
        return self._texts

    def _drop_tokenizer(self, _: Any) -> None:
        if self._service is None:
            self._texts = None

    def _changed(self) -> InputError:
        return InputError(f"model {self._path} was changed while it was being loaded: run again")


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

    def identify() -> ModelIdentity:
        found, about = identify_model(path, known_digests=known_digests), runtime()
        parts = ("device", *_COMPUTING), _RENDERING
        weights, tokenizer = ({name: about[name] for name in part} for part in parts)
        return ModelIdentity(
            found.whole | {"runtime": about},
            found.weights | {"runtime": weights},
            found.tokenizer | {"runtime": tokenizer},
        )

    return ModelResource(
        path, identify, batch_size=batch_size, memory_budget=memory_budget, store=store
    )


def runtime() -> dict[str, str]:
    """Return what else decides the text: versions of packages, and the kind of device.

    Nothing is imported for it. mlx computes on the GPU on macOS, and elsewhere with one of
    its packages for CUDA; else on the CPU.
    """
    deciding = sorted({*_COMPUTING, *_RENDERING})
    installed = versions(*_CUDA, *deciding)
    on_gpu = sys.platform == "darwin" or not installed.keys().isdisjoint(_CUDA)
    return {
        "device": "gpu" if on_gpu else "cpu",
        **{package: installed.get(package, "none") for package in deciding},
    }
