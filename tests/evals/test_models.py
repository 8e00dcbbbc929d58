import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hub_cache import add_snapshot
from support.tiny_model import make_tiny_model

from cachedeval.engine import digest_cache
from cachedeval.engine.errors import InputError
from cachedeval.evals.models import model_files, model_identity, resolve_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def flip_a_bit(path: Path) -> None:
    """Change the last bit of the last weight, and leave size and mtime as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_identity_names_files_and_no_folder(model: Path) -> None:
    identity = model_identity(model)
    assert list(identity) == ["files"]
    assert list(identity["files"]) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert all(digest.startswith("xxh3:") for digest in identity["files"].values())
    assert str(model.parent) not in json.dumps(identity)


def test_copied_moved_touched_or_linked_it_is_the_same(model: Path, tmp_path: Path) -> None:
    identity = model_identity(model)
    copy = shutil.copytree(model, tmp_path / "copy 📦")
    assert model_identity(copy) == identity
    moved = model.rename(tmp_path / "moved")
    assert model_identity(moved) == identity
    for path in moved.iterdir():
        path.touch()
    assert model_identity(moved) == identity
    (tmp_path / "link").symlink_to(moved)
    assert model_identity(tmp_path / "link") == identity


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "0000100_adapters.safetensors",
        "README.md",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "train.py",
    ],
)
def test_a_file_that_is_not_read_changes_nothing(model: Path, name: str) -> None:
    identity = model_identity(model)
    (model / name).write_bytes(b"{}")
    assert model_identity(model) == identity


CHANGES: dict[str, Callable[[Path], object]] = {
    "a weight's last bit": lambda model: flip_a_bit(model / "model.safetensors"),
    "config": lambda model: edit(model / "config.json", rms_norm_eps=1e-6),
    "generation config": lambda model: edit(model / "generation_config.json", eos_token_id=1),
    "no generation config": lambda model: (model / "generation_config.json").unlink(),
    "chat template": lambda model: (model / "chat_template.jinja").write_text("{{ messages }}"),
    "tokenizer": lambda model: (model / "tokenizer.json").write_bytes(
        (model / "tokenizer.json").read_bytes().replace(b"the", b"teh", 1)
    ),
    "tokenizer's config": lambda model: edit(
        model / "tokenizer_config.json",
        eos_token="<|endoftext|>",  # noqa: S106 - no password
    ),
    "a second weights file": lambda model: shutil.copy(
        model / "model.safetensors", model / "model-extra.safetensors"
    ),
    "special tokens": lambda model: (model / "special_tokens_map.json").write_text("{}"),
    "added tokens": lambda model: (model / "added_tokens.json").write_text("{}"),
    "another tokenizer's class": lambda model: edit(
        model / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer"
    ),
    "a template in the configuration": lambda model: edit(
        model / "tokenizer_config.json", chat_template="{{ messages }}"
    ),
    "a vocabulary": lambda model: (model / "vocab.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_to_what_is_read_is_another_model(
    model: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_cache, "GRAIN_NS", 0)
    known_digests = digest_cache.ProcessDigestCache()
    identity = model_identity(model, known_digests=known_digests)
    time.sleep(0.02)  # a tick of the file system's clock
    CHANGES[change](model)
    assert model_identity(model, known_digests=known_digests) != identity
    assert model_identity(model) != identity


def test_own_code_counts_where_it_is_named(model: Path) -> None:
    (model / "modeling_own.py").write_text("x = 1")
    (model / "parts").mkdir()
    (model / "parts" / "layer.py").write_text("x = 1")
    (model / ".cache").mkdir()
    (model / ".cache" / "old.py").write_text("x = 1")
    assert "modeling_own.py" not in model_files(model)
    for config in ("config.json", "tokenizer_config.json"):
        before = (model / config).read_text()
        edit(model / config, auto_map={"AutoModel": "modeling_own.Model"})
        python = [name for name in model_files(model) if name.endswith(".py")]
        assert python == ["modeling_own.py", "parts/layer.py"]
        (model / config).write_text(before)


@pytest.mark.parametrize("place", ["arch.py", ".own/arch.py", "../arch.py", "arch.pyc"])
def test_the_code_that_is_named_counts_wherever_it_is(model: Path, place: str) -> None:
    edit(model / "config.json", model_file=place)
    without = model_identity(model)
    (model / place).parent.mkdir(exist_ok=True)
    (model / place).write_text("x = 1")
    identity = model_identity(model)
    assert place in identity["files"]
    assert identity != without
    (model / place).write_text("x = 2")
    assert model_identity(model) != identity


def test_parts_of_a_model_are_the_same_in_any_order_and_all_count(
    model: Path, tmp_path: Path
) -> None:
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").unlink()
    for folder, order in ((model, names), (tmp_path / "copy", names[::-1])):
        if folder != model:
            shutil.copytree(model, folder, ignore=lambda *_: names)
        for name in order:
            (folder / name).write_bytes(data + name.encode())
    identity = model_identity(model)
    assert list(identity) == ["files"]
    assert model_identity(tmp_path / "copy") == identity
    (model / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert model_identity(model) == identity
    for name in names:
        flip_a_bit(tmp_path / "copy" / name)
        assert model_identity(tmp_path / "copy") != identity
        flip_a_bit(tmp_path / "copy" / name)
    (model / names[1]).unlink()
    assert model_identity(model) != identity


def test_of_weights_that_are_there_twice_the_order_counts(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model / "model.safetensors", model / "model_old.safetensors")
    identity = model_identity(model)
    assert sorted(identity["order"]) == ["model.safetensors", "model_old.safetensors"]
    listed = list(model.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed[::-1]))
    again = model_identity(model)
    assert again["files"] == identity["files"]
    assert again["order"] == identity["order"][::-1]


def write_text(name: str, text: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_text(text)


def lose_the_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("gone")


def make_a_pipe(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda model: (model / "config.json").unlink(), "no config.json there"),
    "empty config": (write_text("config.json", ""), "config.json: is not valid JSON"),
    "list": (write_text("config.json", "[]"), "config.json: holds no JSON object"),
    "no type": (write_text("config.json", "{}"), "config.json: names no model_type"),
    "no weights": (
        lambda model: (model / "model.safetensors").unlink(),
        r"no model\*.safetensors there",
    ),
    "empty weights": (write_text("model.safetensors", ""), "model.safetensors is empty"),
    "lost weights": (lose_the_weights, r"model\.safetensors: is a link to nothing"),
    "pipe": (make_a_pipe, r"tokenizer\.json: is a pipe"),
    "other format": (
        lambda model: (model / "model.safetensors").rename(model / "weights.safetensors"),
        "convert the model with mlx_lm.convert",
    ),
    "gguf": (
        lambda model: (model / "model.safetensors").rename(model / "q4.gguf"),
        "reads no GGUF",
    ),
    "adapter": (
        lambda model: (model / "config.json").rename(model / "adapter_config.json"),
        "it is an adapter",
    ),
    "no folder": (shutil.rmtree, "cannot be listed: No such file"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_model_is_an_error_that_says_why(model: Path, wrong: str) -> None:
    break_it, message = WRONG[wrong]
    break_it(model)
    with pytest.raises(InputError, match=message) as caught:
        model_identity(model)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)


def test_a_folder_comes_before_the_hub(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("model") == Path("model")
    assert resolve_model(str(model)) == model
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~/model") == model


def test_a_snapshot_s_large_files_are_known_unread(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    contents = {path.name: path.read_bytes() for path in model.iterdir()}
    snapshot = add_snapshot(tmp_path / "hub", "org/tiny", contents)
    assert resolve_model("org/tiny") == snapshot
    here, there = model_identity(model)["files"], model_identity(snapshot)["files"]
    assert there.keys() == here.keys()
    different = {name for name in here if here[name] != there[name]}
    assert different == {"model.safetensors"}
    assert there["model.safetensors"].startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./gone", r"model \./gone: no such folder$"),
        ("a/b/c", "model a/b/c: no such folder$"),
        ("", r"model \.: no config\.json there"),
        ("new\nline", r"model new\\nline: no such folder$"),
        ("org/gone", r"not complete in the Hugging Face cache .*hf download org/gone$"),
        ("gone", "hf download gone$"),
    ],
)
def test_a_model_that_is_not_there_is_an_error_that_says_where_it_was_sought(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError, match=message):
        model_identity(resolve_model(name))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(InputError, match="is a file; give the folder"):
        resolve_model(str(tmp_path / "model.gguf"))


def test_identifying_imports_nothing_heavy(model: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from cachedeval.evals.adapters import adapter_identity
from cachedeval.evals.models import model_identity, resolve_model
model_identity(resolve_model({str(model)!r}))
heavy = "mlx mlx_lm transformers huggingface_hub httpx numpy concurrent.futures asyncio"
print(sorted(set(heavy.split()) & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
