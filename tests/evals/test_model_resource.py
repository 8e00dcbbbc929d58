import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from cachedeval.engine.digest_cache import ProcessDigestCache
from cachedeval.engine.errors import InputError
from cachedeval.engine.installed import version
from cachedeval.engine.resource import ResourcePool
from cachedeval.evals import models
from cachedeval.evals.adapters import adapter_resource, model_of
from cachedeval.evals.models import ModelResource, model_resource, runtime


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def adapter_folder(folder: Path, weights: bytes = b"lora", **settings: Any) -> Path:
    folder.mkdir(parents=True)
    parameters = {"rank": 4, "scale": 20.0, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    (folder / "adapters.safetensors").write_bytes(weights)
    return folder


def opened(folder: Path) -> ModelResource:
    return model_resource(folder, ProcessDigestCache(), batch_size=None, memory_budget=None)


def test_the_given_model_comes_before_the_adapters(tmp_path: Path) -> None:
    given, named = model_folder(tmp_path / "given"), model_folder(tmp_path / "named")
    adapter = adapter_folder(tmp_path / "adapter", model=str(named))
    assert model_of(str(given), adapter, fetch=False) == given
    assert model_of(None, adapter, fetch=False) == named
    assert model_of(None, str(adapter), fetch=False) == named


def test_an_adapter_is_looked_up_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = model_folder(tmp_path / "named")
    adapter_folder(tmp_path / "adapters" / "tuned", model=str(named))
    monkeypatch.chdir(tmp_path)
    assert model_of(None, "tuned", fetch=False) == named


@pytest.mark.parametrize("settings", [{}, {"model": ""}, {"model": None}, {"model": 3}])
def test_an_adapter_without_a_base_model_is_reported(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    adapter = adapter_folder(tmp_path / "adapter", **settings)
    with pytest.raises(InputError, match=r"CACHEDEVAL_MODEL.*does not say what it was trained on"):
        model_of(None, adapter, fetch=False)


def test_without_a_model_there_is_nothing_to_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_folder(tmp_path / "here"))
    # An empty name is none: it would be the folder that one stands in.
    for given in (None, ""):
        with pytest.raises(InputError, match="no adapter says what it was trained on"):
            model_of(given, None, fetch=False)


def test_a_model_that_the_adapter_names_and_that_is_gone(tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "adapter", model=str(tmp_path / "gone dir"))
    with pytest.raises(InputError, match=r"was trained on '.*gone dir': model .*no such folder"):
        model_of(None, adapter, fetch=False)


def test_a_model_is_its_content_and_its_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened(model_folder(tmp_path / "one")).identified
    assert opened(model_folder(tmp_path / "elsewhere" / "two")).identified == one
    assert opened(model_folder(tmp_path / "three", b"other")).identified != one
    monkeypatch.setattr(models, "runtime", lambda: {**runtime(), "device": "gpu", "mlx": "99"})
    assert opened(tmp_path / "one").identified != one


def test_batch_size_and_budget_are_no_part_of_what_a_model_is(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    small = model_resource(folder, ProcessDigestCache(), batch_size=1, memory_budget=1000)
    assert small.identified == opened(folder).identified


def test_an_adapter_is_its_content_and_opens_to_its_folder(tmp_path: Path) -> None:
    first = adapter_folder(tmp_path / "first")
    one = adapter_resource(first, ProcessDigestCache())
    copied = adapter_resource(adapter_folder(tmp_path / "copy", model="x"), ProcessDigestCache())
    assert one.identified == copied.identified
    assert one.open() == first
    other = adapter_resource(adapter_folder(tmp_path / "other", b"more"), ProcessDigestCache())
    scaled = adapter_resource(
        adapter_folder(tmp_path / "scaled", lora_parameters={"rank": 4, "scale": 1, "dropout": 0}),
        ProcessDigestCache(),
    )
    assert len({r.identified for r in (one, other, scaled)}) == 3


def test_the_runtime_is_identified_by_versions_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    found = runtime()
    packages = [
        "jinja2",
        "mlx",
        "mlx-lm",
        "sentencepiece",
        "tiktoken",
        "tokenizers",
        "transformers",
    ]
    assert list(found) == ["device", *packages]
    assert all(found[package] == (version(package) or "none") for package in packages)
    installed = {"mlx": "1.0", "tokenizers": "2.0"}
    monkeypatch.setattr(models, "versions", lambda *_: installed)
    monkeypatch.setattr(sys, "platform", "linux")
    assert runtime() == {
        "device": "cpu",
        "jinja2": "none",
        "mlx": "1.0",
        "mlx-lm": "none",
        "sentencepiece": "none",
        "tiktoken": "none",
        "tokenizers": "2.0",
        "transformers": "none",
    }
    installed["mlx-cuda-13"] = "1.0"
    assert runtime()["device"] == "gpu"
    del installed["mlx-cuda-13"]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime()["device"] == "gpu"


class Service:
    """Stands for a loaded model, which counts its own loads."""

    def __init__(self, *_: object, **__: object) -> None:
        self.loads = 1
        self.nbytes = 10
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_loads_are_counted_over_closing_and_reloading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("cachedeval.evals.mlx.runner")
    module.ModelRunner = Service  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cachedeval.evals.mlx.runner", module)
    model = opened(model_folder(tmp_path / "model"))
    pool = ResourcePool()
    assert model.loads == 0
    with pool.hold(model) as service:
        assert model.loads == 1
        service.loads += 1  # a full fine-tune took the base's place, and it was read again
        assert model.loads == 2
    pool.cleanup()
    assert service.closed
    assert model.loads == 2
    with pool.hold(model):
        assert model.loads == 3
    pool.close()
    assert model.loads == 3
