import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import FineTuneType, make_tiny_adapter

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.decoding import Decoded, DecodeRequest, decode
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.prompts import render_prompt
from cachedeval.evals.mlx.runtime import mx

from mlx.utils import tree_flatten  # isort: skip - after the runtime, which opens the BLAS

KINDS: list[FineTuneType] = ["lora", "dora", "full"]


def digest(loaded: LoadedModel) -> str:
    """A digest of all parameters, by name, as they are in memory."""
    sha = hashlib.sha256()
    parameters: dict[str, Any] = dict(tree_flatten(loaded.model.parameters()))
    for name, array in sorted(parameters.items()):
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(memoryview(array.view(mx.uint8)))
    return sha.hexdigest()


def answer(loaded: LoadedModel, text: str = "Why is the sky blue?") -> str:
    prompt = render_prompt(loaded.tokenizer, [{"role": "user", "content": text}])
    events = [e for e in decode(loaded, [DecodeRequest(prompt, 12)]) if e is not None]
    [(_, decoded)] = events
    assert isinstance(decoded, Decoded)
    return decoded.text


def test_a_model_is_loaded_without_a_network(
    tiny_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    loaded = load_model(tiny_folder())
    assert loaded.loads == 1
    assert loaded.config["model_type"] == "llama"
    assert loaded.context == 2048
    assert not loaded.model.training
    weights = (tiny_folder() / "model.safetensors").stat().st_size
    assert loaded.nbytes == pytest.approx(weights, rel=0.05)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model .*nowhere: no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no config\.json in it"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "nonesuch"}'),
        ("model.safetensors", b"no tensors"),
        ("model.safetensors", None),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_broken_folder_is_an_error_of_one_line(
    tiny_folder: Callable[..., Path], tmp_path: Path, file: str, content: bytes | None
) -> None:
    for source in tiny_folder().iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(f"model {tmp_path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("then", KINDS)
def test_a_swap_leaves_nothing_of_the_last_adapter(
    tiny_folder: Callable[..., Path], tmp_path: Path, first: FineTuneType, then: FineTuneType
) -> None:
    model = tiny_folder()
    one = make_tiny_adapter(model, tmp_path / "one", seed=1, fine_tune_type=first, num_layers=2)
    two = make_tiny_adapter(model, tmp_path / "two", seed=2, fine_tune_type=then, rank=2, scale=9.0)
    alone = load_model(model)
    alone.use_adapter(two)
    expected = digest(alone), answer(alone)

    loaded = load_model(model)
    base = digest(loaded), answer(loaded)
    loaded.use_adapter(one)
    assert answer(loaded) != base[1]
    loaded.use_adapter(two)
    assert (digest(loaded), answer(loaded)) == expected
    loaded.use_adapter(None)
    assert (digest(loaded), answer(loaded)) == base
    assert loaded.loads == 1 + (first == "full") + (then == "full")


def test_an_adapter_of_the_embedding_comes_off(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = tiny_folder()
    for kind in ("lora", "dora"):
        keys = ["model.embed_tokens", "self_attn.q_proj", "lm_head"]
        adapter = make_tiny_adapter(model, tmp_path / kind, fine_tune_type=kind, keys=keys)
        loaded = load_model(model)
        base = digest(loaded), answer(loaded)
        loaded.use_adapter(adapter)
        assert answer(loaded) != base[1]
        loaded.use_adapter(None)
        assert (digest(loaded), answer(loaded)) == base
        assert loaded.loads == 1


def test_a_quantized_base_stays_as_it_is(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny_folder(quantize_bits=4)
    adapter = make_tiny_adapter(model, tmp_path / "a")
    loaded = load_model(model)
    base = digest(loaded)
    loaded.use_adapter(adapter)
    assert digest(loaded) != base
    loaded.use_adapter(None)
    assert digest(loaded) == base


def test_the_scale_comes_with_each_adapter(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = tiny_folder()
    strong = make_tiny_adapter(model, tmp_path / "strong", scale=20.0)
    weak = make_tiny_adapter(model, tmp_path / "weak", scale=1e-6)
    loaded = load_model(model)
    base = answer(loaded)
    loaded.use_adapter(strong)
    changed = answer(loaded)
    loaded.use_adapter(weak)
    assert answer(loaded) == base
    loaded.use_adapter(strong)
    assert answer(loaded) == changed != base


def test_an_adapter_without_effect_changes_nothing(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = load_model(tiny_folder())
    base = answer(loaded)
    loaded.use_adapter(make_tiny_adapter(tiny_folder(), tmp_path / "zero", strength=0))
    assert answer(loaded) == base


def test_a_swap_loads_nothing(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    adapters = [make_tiny_adapter(tiny_folder(), tmp_path / str(i), seed=i) for i in range(2)]
    loaded = load_model(tiny_folder())
    for adapter in adapters * 3:
        loaded.use_adapter(adapter)
    assert loaded.loads == 1


def broken(folder: Path, **changes: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_another_shape_leaves_the_base(
    tiny_folder: Callable[..., Path], tmp_path: Path, kind: FineTuneType
) -> None:
    other = tiny_folder(hidden=96)
    adapter = make_tiny_adapter(other, tmp_path / "a", fine_tune_type=kind)
    fitting = make_tiny_adapter(tiny_folder(), tmp_path / "b")
    loaded = load_model(tiny_folder())
    base = digest(loaded), answer(loaded)
    for _ in range(2):
        loaded.use_adapter(fitting)
        with pytest.raises(InputError) as caught:
            loaded.use_adapter(adapter)
        message = str(caught.value)
        assert str(adapter) in message
        assert "shape" in message
        assert "\n" not in message
        assert (digest(loaded), answer(loaded)) == base
    assert loaded.adapter is None
    assert loaded.loads == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lora_parameters": {"rank": 4, "dropout": 0.0}}, "scale"),
        ({"lora_parameters": {"rank": 4, "dropout": 0.0, "alpha": 1}}, "alpha"),
        ({"lora_parameters": {"scale": 1.0, "dropout": 0.0}}, "rank"),
        ({"lora_parameters": None}, "TypeError"),
        ({"num_layers": "two"}, "TypeError"),
        ({"num_layers": 0, "lora_parameters": {"rank": 2, "dropout": 0.0, "scale": 1.0}}, "shape"),
    ],
)
def test_mismatched_settings_are_reported(
    tiny_folder: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    adapter = broken(make_tiny_adapter(tiny_folder(), tmp_path / "a"), **changes)
    loaded = load_model(tiny_folder())
    base = digest(loaded)
    with pytest.raises(InputError, match=told) as caught:
        loaded.use_adapter(adapter)
    assert str(adapter) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert digest(loaded) == base


def test_a_missing_adapter_is_an_error(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    loaded = load_model(tiny_folder())
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        loaded.use_adapter(tmp_path / "nowhere")
    adapter = make_tiny_adapter(tiny_folder(), tmp_path / "a")
    (adapter / "adapters.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"adapter .*a "):
        loaded.use_adapter(adapter)
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        loaded.use_adapter(adapter)


def test_an_unknown_kind_of_layer_costs_a_reload(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = load_model(tiny_folder())
    base = digest(loaded)
    loaded.use_adapter(make_tiny_adapter(tiny_folder(), tmp_path / "a"))
    layer = loaded.model.layers[-1].self_attn.q_proj
    layer.inner = layer.pop("linear")  # as a kind of adapter that is not known here would do
    loaded.use_adapter(None)
    assert digest(loaded) == base
    assert loaded.loads == 2


def test_closing_gives_the_memory_back(tiny_folder: Callable[..., Path]) -> None:
    before = mx.get_active_memory()
    loaded = load_model(tiny_folder())
    held = mx.get_active_memory() - before
    answer(loaded)
    loaded.close()
    assert held >= 100_000
    assert mx.get_active_memory() - before < held / 10
