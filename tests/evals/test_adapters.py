import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import make_tiny_adapter, make_tiny_model

from cachedeval.engine import digest_cache
from cachedeval.engine.errors import InputError
from cachedeval.evals.adapters import adapter_identity, resolve_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return make_tiny_adapter(base, tmp_path / "adapter", keys=["self_attn.q_proj", "mlp.up_proj"])


def edit(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "GONE"}))


def edit_lora(adapter: Path, **fields: Any) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    parameters = {**config["lora_parameters"], **fields}
    kept = {name: value for name, value in parameters.items() if value != "GONE"}
    edit(adapter, lora_parameters=kept)


def test_the_identity_is_the_weights_and_the_settings(adapter: Path) -> None:
    identity = adapter_identity(adapter)
    assert list(identity) == ["files", "settings"]
    (digest,) = identity["files"].values()
    assert list(identity["files"]) == ["adapters.safetensors"]
    assert digest.startswith("xxh3:")
    assert identity["settings"] == {
        "fine_tune_type": "lora",
        "num_layers": 1,
        "rank": 4,
        "scale": 20.0,
        "dropout": 0.0,
        "keys": ["mlp.up_proj", "self_attn.q_proj"],
    }


def test_copied_moved_or_touched_it_is_the_same(adapter: Path, tmp_path: Path) -> None:
    identity = adapter_identity(adapter)
    assert adapter_identity(shutil.copytree(adapter, tmp_path / "copy")) == identity
    moved = adapter.rename(tmp_path / "moved")
    for path in moved.iterdir():
        path.touch()
    assert adapter_identity(moved) == identity


def test_retrained_in_place_with_size_and_mtime_restored_it_is_another(
    base: Path, adapter: Path
) -> None:
    known_digests = digest_cache.ProcessDigestCache()
    path = adapter / "adapters.safetensors"
    before = path.stat()
    identity = adapter_identity(adapter, known_digests=known_digests)
    make_tiny_adapter(base, adapter, seed=1, keys=["self_attn.q_proj", "mlp.up_proj"])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert adapter_identity(adapter, known_digests=known_digests) != identity


@pytest.mark.parametrize(
    "name",
    ["0000100_adapters.safetensors", "README.md", ".DS_Store", "train.jsonl", "checkpoints"],
)
def test_what_is_not_read_changes_nothing(adapter: Path, name: str) -> None:
    identity = adapter_identity(adapter)
    if name == "checkpoints":
        shutil.copytree(adapter, adapter / name)
    else:
        (adapter / name).write_bytes(b"x")
    assert adapter_identity(adapter) == identity


def test_what_only_the_training_read_changes_nothing(adapter: Path) -> None:
    identity = adapter_identity(adapter)
    edit(
        adapter,
        iters=1000,
        learning_rate=1e-5,
        adapter_path="/somewhere/else",
        model="another/name",
        batch_size=4,
        seed=7,
        lr_schedule=None,
    )
    assert adapter_identity(adapter) == identity
    edit_lora(adapter, alpha=16)
    assert adapter_identity(adapter) == identity


def test_what_means_the_same_is_the_same(adapter: Path) -> None:
    identity = adapter_identity(adapter)
    edit(adapter, fine_tune_type="GONE")
    edit_lora(adapter, scale=20, dropout=0, keys=["self_attn.q_proj", "mlp.up_proj"] * 2)
    assert adapter_identity(adapter) == identity
    edit_lora(adapter, keys=None)
    without = adapter_identity(adapter)
    edit_lora(adapter, keys="GONE")
    assert adapter_identity(adapter) == without != identity


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 10.0},
        {"rank": 8},
        {"keys": ["self_attn.q_proj"]},
        {"keys": None},
        {"keys": []},
        {"dropout": 0.1},
    ],
)
def test_another_setting_is_another_adapter(adapter: Path, change: dict[str, Any]) -> None:
    identity = adapter_identity(adapter)
    edit_lora(adapter, **change)
    changed = adapter_identity(adapter)
    assert changed["files"] == identity["files"]
    differing = {
        name for name, value in identity["settings"].items() if changed["settings"][name] != value
    }
    assert differing == set(change)


@pytest.mark.parametrize("change", [{"num_layers": 2}, {"fine_tune_type": "dora"}])
def test_another_kind_is_another_adapter(adapter: Path, change: dict[str, Any]) -> None:
    identity = adapter_identity(adapter)
    edit(adapter, **change)
    assert adapter_identity(adapter) != identity


def test_of_a_full_fine_tune_the_lora_settings_are_not_read(base: Path, tmp_path: Path) -> None:
    adapter = make_tiny_adapter(base, tmp_path / "full", fine_tune_type="full")
    identity = adapter_identity(adapter)
    assert identity["settings"] == {"fine_tune_type": "full"}
    edit(adapter, lora_parameters=None, num_layers=3)
    assert adapter_identity(adapter) == identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_parameters": "GONE"}, "adapter_config.json has no lora_parameters$"),
        ({"lora_parameters": "GONE", "peft_type": "LORA"}, "in PEFT's format"),
        ({"num_layers": "GONE"}, "num_layers is missing, not a whole number"),
        ({"num_layers": True}, "num_layers is True, not a whole number"),
        ({"fine_tune_type": ["lora"]}, r"fine_tune_type is \['lora'\]"),
    ],
)
def test_a_broken_configuration_is_named(
    adapter: Path, fields: dict[str, Any], message: str
) -> None:
    edit(adapter, **fields)
    with pytest.raises(InputError, match=message) as caught:
        adapter_identity(adapter)
    assert str(adapter) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 4.5}, "rank is 4.5, not a whole number"),
        ({"scale": "GONE"}, "scale is missing, not a number"),
        ({"scale": "GONE", "alpha": 16}, "has an alpha, but mlx_lm wants a scale"),
        ({"scale": 10**400}, "scale is too large"),
        ({"dropout": "no\nne"}, "dropout is 'no.*ne', not a number"),
        ({"keys": "self_attn.q_proj"}, "keys is not a list of layers' names"),
    ],
)
def test_a_broken_lora_parameter_is_named(
    adapter: Path, fields: dict[str, Any], message: str
) -> None:
    edit_lora(adapter, **fields)
    with pytest.raises(InputError, match=message) as caught:
        adapter_identity(adapter)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(adapter: Path) -> None:
    weights = (adapter / "adapters.safetensors").rename(adapter / "adapters.old")
    with pytest.raises(InputError, match=r"no adapters\.safetensors there; was it trained"):
        adapter_identity(adapter)
    (adapter / "adapter_model.safetensors").touch()
    with pytest.raises(InputError, match="in PEFT's format"):
        adapter_identity(adapter)
    for number in (100, 200):
        shutil.copy(weights, adapter / f"{number:07}_adapters.safetensors")
    message = r"only checkpoints of the training \(the last is 0000200_adapters\.safetensors\)"
    with pytest.raises(InputError, match=message):
        adapter_identity(adapter)
    (adapter / "adapters.safetensors").touch()
    with pytest.raises(InputError, match=r"adapters\.safetensors is empty"):
        adapter_identity(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter_config\.json: is not valid JSON"):
        adapter_identity(adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"no adapter_config\.json there"):
        adapter_identity(adapter)


def test_an_adapter_is_a_folder_or_a_name(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_adapter("adapter") == Path("adapter")
    assert resolve_adapter(str(adapter)) == adapter
    with pytest.raises(InputError, match=r"adapter 4b: no such folder, and \./adapters has none"):
        resolve_adapter("4b")
    for name in ("one", "two"):
        shutil.copytree(adapter, tmp_path / "adapters" / name)
    (tmp_path / "adapters" / "empty").mkdir()
    assert resolve_adapter("two") == Path("adapters/two")
    with pytest.raises(InputError, match=r"\./adapters holds one, two$"):
        resolve_adapter("4b")
    with pytest.raises(InputError, match="is a file; give the adapter's folder"):
        resolve_adapter("adapter/adapters.safetensors")
