"""What counts is held against what mlx_lm reads."""

import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from support.read_by_mlx import Load, access_times_work, read_by_mlx
from support.tiny_model import make_tiny_adapter, make_tiny_model

from cachedeval.evals.adapters import adapter_identity
from cachedeval.evals.models import model_files

NOT_READ = {
    ".DS_Store": b"x",
    "LICENSE.txt": b"x",
    "README.md": b"x",
    "chat_template.json": b'{"chat_template": "x"}',
    "config.json.bak": b"{}",
    "consolidated.safetensors": b"x",
    "hf_quant_config.json.bak": b"{}",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "modeling_custom.py": b"raise SystemExit",
    "original/params.json": b"{}",
    "preprocessor_config.json": b"{}",
    "processor_config.json": b"{}",
    "pytorch_model.bin": b"x",
    "requirements.txt": b"x",
    "tokenizer.old.json": b"{}",
    "weights.safetensors": b"x",
}
"""Files that stand in model folders, or might, and that are not read."""

Change = Callable[[Path], None]


def edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def plain(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=2, temperature=0.5)


def templates(folder: Path) -> None:
    text = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(text)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text(text)


def hidden_code(folder: Path) -> None:
    (folder / ".own").mkdir()
    edit(folder / "config.json", model_file=".own/arch.py")
    (folder / ".own" / "arch.py").write_text(
        "from mlx_lm.models.llama import Model, ModelArgs\n", "utf-8"
    )
    (folder / "modeling_custom.py").unlink()


def shards(folder: Path) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    names = sorted(weights)
    for index, part in enumerate((names[::2], names[1::2]), 1):
        path = folder / f"model-{index:05}-of-00002.safetensors"
        mx.save_safetensors(str(path), {name: weights[name] for name in part}, {"format": "mlx"})
    (folder / "model.safetensors").unlink()


def stray_weights(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model_old.safetensors")


def special_tokens(folder: Path) -> None:
    edit(folder / "special_tokens_map.json", eos_token="<|im_end|>")  # noqa: S106
    edit(folder / "added_tokens.json", **{"<|im_end|>": 2})


def versions(folder: Path) -> None:
    shutil.copy(folder / "tokenizer.json", folder / "tokenizer.4.0.0.json")
    shutil.copy(folder / "config.json", folder / "config.4.0.0.json")
    edit(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json"])
    edit(folder / "config.json", configuration_files=["config.4.0.0.json"])


def separate_quantization(folder: Path) -> None:
    edit(folder / "hf_quant_config.json", quant_method="none")


def own_code(folder: Path) -> None:
    edit(folder / "config.json", model_file="modeling_custom.py")
    (folder / "modeling_custom.py").write_text(
        "from mlx_lm.models.llama import Model, ModelArgs\n", "utf-8"
    )


EXACT: list[Change] = [
    plain,
    templates,
    shards,
    stray_weights,
    special_tokens,
    versions,
    separate_quantization,
    own_code,
    hidden_code,
]
"""Folders of which everything that counts is read, and nothing else."""


def with_vocabulary(tokenizer_class: str, *, keep: bool) -> Change:
    """Return a change to a tokenizer of the class that also has its vocabulary apart."""

    def change(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
        merges = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer["model"]["merges"])]
        (folder / "merges.txt").write_text("\n".join(merges))
        edit(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class)
        special_tokens(folder)
        if not keep:
            (folder / "tokenizer.json").unlink()

    return change


VOCABULARY: dict[str, Change] = {
    "fast": with_vocabulary("PreTrainedTokenizerFast", keep=True),
    "qwen": with_vocabulary("Qwen2Tokenizer", keep=True),
    "gpt2": with_vocabulary("GPT2Tokenizer", keep=True),
    "qwen-old": with_vocabulary("Qwen2Tokenizer", keep=False),
    "gpt2-old": with_vocabulary("GPT2Tokenizer", keep=False),
}
"""Folders of which every file that is read counts."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    if not access_times_work(base):
        pytest.skip("this file system does not note when a file is read")
    changes = {change.__name__: change for change in EXACT} | VOCABULARY
    for name, change in changes.items():
        folder = make_tiny_model(base / name)
        for extra, data in NOT_READ.items():
            (folder / extra).parent.mkdir(exist_ok=True)
            (folder / extra).write_bytes(data)
        change(folder)
    for kind in ("lora", "dora", "full"):
        adapter = make_tiny_adapter(base / "plain", base / f"adapter-{kind}", fine_tune_type=kind)
        for extra in ("README.md", ".DS_Store", "0000100_adapters.safetensors", "train.jsonl"):
            (adapter / extra).write_bytes(b"x")
    return {path.name: path for path in base.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def read(folders: dict[str, Path]) -> dict[str, set[str]]:
    loads: dict[str, Load] = {}
    for name, folder in folders.items():
        adapter = str(folder) if name.startswith("adapter-") else None
        model = folders["plain"] if adapter else folder
        trust = name in (own_code.__name__, hidden_code.__name__)
        loads[name] = {"model": str(model), "adapter": adapter, "trust": trust}
    return dict(zip(loads, read_by_mlx(list(loads.values())), strict=True))


@pytest.mark.parametrize("name", [change.__name__ for change in EXACT])
def test_exactly_the_files_that_are_read_count(
    name: str, folders: dict[str, Path], read: dict[str, set[str]]
) -> None:
    assert set(model_files(folders[name])) == read[name]


@pytest.mark.parametrize("name", VOCABULARY)
def test_of_a_vocabulary_at_least_the_files_that_are_read_count(
    name: str, folders: dict[str, Path], read: dict[str, set[str]]
) -> None:
    counted = set(model_files(folders[name]))
    assert read[name] <= counted
    assert not counted & NOT_READ.keys()


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_an_adapter_counts_by_what_is_read_of_it(
    kind: str, folders: dict[str, Path], read: dict[str, set[str]]
) -> None:
    name = f"adapter-{kind}"
    identity = adapter_identity(folders[name])
    files = {f"adapter:{file}" for file in (*identity["files"], "adapter_config.json")}
    assert {file for file in read[name] if file.startswith("adapter:")} == files


def test_every_vocabulary_that_transformers_knows_counts(tmp_path: Path) -> None:
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    sources = Path(spec.origin).parent.rglob("tokenization_*.py")
    tables = re.compile(r"vocab_files_names\s*=\s*\{(.*?)\}", re.IGNORECASE | re.DOTALL)
    names = {
        name
        for source in sources
        for table in tables.findall(source.read_text("utf-8"))
        for name in re.findall(r":\s*\"([^\"]+)\"", table)
    }
    assert {"tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"} < names
    make_tiny_model(tmp_path)
    for name in names:
        (tmp_path / name).touch()
    assert names <= set(model_files(tmp_path))
