"""Weights that are damaged or incomplete are refused by name; NaN while decoding is a failure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.decoding import mixed_prompts
from support.tiny_model import FineTuneType, make_tiny_adapter

from cachedeval import AdapterEvaluator
from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.decoding import Decoded, DecodeRequest, decode
from cachedeval.evals.mlx.model import describe_not_finite, load_model
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import NonFiniteLogitsError
from cachedeval.evals.mlx.scoring import expected_scores, label_tokens

Make = Callable[..., Path]
NAN, INF = float("nan"), float("inf")
LORA_A = "model.layers.1.self_attn.q_proj.lora_a"
LORA_B = "model.layers.1.mlp.down_proj.lora_b"


def tensors_of(file: Path) -> dict[str, mx.array]:
    loaded: Any = mx.load(str(file))
    return {name: mx.array(value) for name, value in loaded.items()}


def rewritten(file: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    tensors = tensors_of(file)
    change(tensors)
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors, {"format": "mlx"})


def adapter(make: Make, folder: Path, kind: FineTuneType = "lora") -> Path:
    return make_tiny_adapter(make(), folder, fine_tune_type=kind)


def with_one(value: float, tensor: mx.array) -> mx.array:
    flat = tensor.reshape(-1)
    flat[flat.size // 2] = value
    return flat.reshape(tensor.shape)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", [LORA_A, LORA_B])
def test_a_number_of_an_adapter_that_is_none(
    tiny_folder: Make, tmp_path: Path, value: float, name: str
) -> None:
    folder = adapter(tiny_folder, tmp_path / "a")
    rewritten(
        folder / "adapters.safetensors",
        lambda tensors: tensors.update({name: with_one(value, tensors[name])}),
    )
    loaded = load_model(tiny_folder())
    with pytest.raises(InputError, match=rf"adapter .*{name} holds (NaN|infinity) \(1 of \d+"):
        loaded.use_adapter(folder)
    assert loaded.adapter is None


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_every_kind_of_adapter_is_looked_through(
    tiny_folder: Make, tmp_path: Path, kind: FineTuneType
) -> None:
    folder = adapter(tiny_folder, tmp_path / "a", kind)
    last = max(tensors_of(folder / "adapters.safetensors"))
    rewritten(
        folder / "adapters.safetensors",
        lambda tensors: tensors.update({last: with_one(NAN, tensors[last])}),
    )
    with pytest.raises(InputError, match=f"{last} holds NaN"):
        load_model(tiny_folder()).use_adapter(folder)


@pytest.mark.parametrize(
    ("missing", "kind"),
    [
        (["lora_a"], "lora"),
        (["lora_b"], "lora"),
        (["m"], "dora"),
        (["q_proj.lora_a"], "lora"),
        (["v_proj.lora_a", "v_proj.lora_b"], "lora"),
    ],
)
def test_what_mlx_lm_would_draw_is_missing(
    tiny_folder: Make, tmp_path: Path, missing: list[str], kind: FineTuneType
) -> None:
    folder = adapter(tiny_folder, tmp_path / "a", kind)

    def drop(tensors: dict[str, mx.array]) -> None:
        for name in [n for n in tensors if n.endswith(tuple(f".{m}" for m in missing))]:
            del tensors[name]

    rewritten(folder / "adapters.safetensors", drop)
    with pytest.raises(InputError, match=rf"tensor model\.layers\.1\.\S+{missing[0]}.* is missing"):
        load_model(tiny_folder()).use_adapter(folder)


def test_one_tensor_of_all_is_not_an_adapter(tiny_folder: Make, tmp_path: Path) -> None:
    folder = adapter(tiny_folder, tmp_path / "a")

    def keep_one(tensors: dict[str, mx.array]) -> None:
        for name in set(tensors) - {LORA_B}:
            del tensors[name]

    rewritten(folder / "adapters.safetensors", keep_one)
    with pytest.raises(InputError, match=r"\(and 12 more\) is missing: .* 14 tensors .* holds 1"):
        load_model(tiny_folder()).use_adapter(folder)


@pytest.mark.parametrize("layers", [1, 2])
def test_blocks_that_the_settings_and_the_tensors_do_not_share(
    tiny_folder: Make, tmp_path: Path, layers: int
) -> None:
    folder = make_tiny_adapter(tiny_folder(), tmp_path / "a", num_layers=layers)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": 3 - layers}))
    told = "is missing" if layers == 1 else "not an adapter parameter"
    with pytest.raises(InputError, match=rf"model\.layers\.0\.\S+lora_.*{told}"):
        load_model(tiny_folder()).use_adapter(folder)


def test_a_tensor_without_a_place_or_of_no_number(tiny_folder: Make, tmp_path: Path) -> None:
    loaded = load_model(tiny_folder())
    odd = adapter(tiny_folder, tmp_path / "odd")
    rewritten(odd / "adapters.safetensors", lambda t: t.update({"nowhere.lora_a": mx.ones((2, 2))}))
    with pytest.raises(InputError, match=r"nowhere\.lora_a"):
        loaded.use_adapter(odd)
    whole = adapter(tiny_folder, tmp_path / "whole")
    rewritten(
        whole / "adapters.safetensors", lambda t: t.update({LORA_B: t[LORA_B].astype(mx.int8)})
    )
    with pytest.raises(InputError, match=rf"{LORA_B} is of type int8"):
        loaded.use_adapter(whole)
    empty = adapter(tiny_folder, tmp_path / "empty", "full")
    rewritten(empty / "adapters.safetensors", lambda t: t.clear())
    with pytest.raises(InputError, match="no tensor"):
        loaded.use_adapter(empty)


@pytest.mark.parametrize("scale", [NAN, INF, 1e39])
def test_a_scale_that_is_no_number(tiny_folder: Make, tmp_path: Path, scale: float) -> None:
    folder = make_tiny_adapter(tiny_folder(), tmp_path / "a", scale=scale)
    with pytest.raises(InputError, match="scale is"):
        load_model(tiny_folder()).use_adapter(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_floating_types_are_as_good(tiny_folder: Make, tmp_path: Path, dtype: str) -> None:
    folder = adapter(tiny_folder, tmp_path / "a")
    kind = getattr(mx, dtype)
    rewritten(
        folder / "adapters.safetensors",
        lambda tensors: tensors.update({n: t.astype(kind) for n, t in tensors.items()}),
    )
    load_model(tiny_folder()).use_adapter(folder)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_a_base_that_holds_nan_cannot_be_loaded(
    tiny_folder: Make, tmp_path: Path, name: str
) -> None:
    model = copied(tiny_folder(), tmp_path / "m")
    rewritten(
        model / "model.safetensors",
        lambda tensors: tensors.update({name: with_one(NAN, tensors[name])}),
    )
    with pytest.raises(InputError, match=rf"model .*{name} holds NaN"):
        load_model(model)


def copied(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_large_numbers_and_bounds_are_finite() -> None:
    assert describe_not_finite({"a": mx.full((9,), 6e4, mx.float16)}) is None
    assert describe_not_finite({"a": mx.full((9,), 3e38)}) is None
    assert describe_not_finite({"bound": mx.array(INF), "count": mx.array([1, 2])}) is None
    assert describe_not_finite({"a": mx.ones((2,)), "b": mx.array([INF, -INF, 1.0])}) == (
        "b holds infinity (2 of 3 numbers)"
    )
    assert describe_not_finite({"a": mx.array(NAN)}) == "a holds NaN (1 of 1 numbers)"


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.8, 1.0), (0.8, 0.7)])
@pytest.mark.parametrize("value", [NAN, INF])
def test_logits_that_are_no_numbers_fail_their_question_alone(
    tiny_folder: Make, batch_size: int, temperature: float, top_p: float, value: float
) -> None:
    loaded = load_model(tiny_folder())
    bad = 5  # a token of one prompt, whose embedding is no number: as a part of the weights
    requests = [
        DecodeRequest([tokens if n else bad, *prompt[1:9]], 6, temperature, top_p, seed=1)
        for n, prompt in enumerate(mixed_prompts(loaded, 4))
        for tokens in [prompt[0] if prompt[0] != bad else bad + 1]
    ]
    loaded.batch_trouble(4)
    embedding = loaded.model.model.embed_tokens
    embedding.weight[bad] = value
    results = dict(
        event
        for event in decode(loaded, requests, batch_size=batch_size, bound=1e-3)
        if event is not None
    )
    assert isinstance(results[0], NonFiniteLogitsError), results[0]
    assert "token 1 of the answer" in str(results[0])
    assert all(isinstance(results[n], Decoded) for n in (1, 2, 3))


def test_a_judge_reads_no_score_off_nan(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    digits = label_tokens(loaded.tokenizer)
    good = mixed_prompts(loaded, 1)[0][:9]
    loaded.model.model.embed_tokens.weight[511] = NAN
    found = dict(expected_scores(loaded, [good, [511, *good], good], digits))
    assert isinstance(found[1], NonFiniteLogitsError)
    assert found[0] == found[2]
    assert not isinstance(found[0], Exception)


def test_an_adapter_that_overflows_is_a_failure_of_each_question(
    tiny_folder: Make, tmp_path: Path
) -> None:
    huge = make_tiny_adapter(tiny_folder(), tmp_path / "huge", scale=3e38, strength=1e6)
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "Why?", "answer": "y"}\n{"question": "How?", "answer": "x"}\n')
    computed = []
    for _ in range(2):
        with AdapterEvaluator(
            str(tiny_folder()), judge="exact", cache=f"disk:{tmp_path / 'cache'}", max_tokens=4
        ) as evaluator:
            report = evaluator.evaluate_adapters([huge], data, 2)[0]
        assert report.score is None
        assert report["failures"] == {"NonFiniteLogitsError": 2}
        assert {item["response"] for item in report["items"]} == {None}
        computed.append(report.run["nodes"]["generation"]["hits"])
    assert computed == [0, 0], "a failure is not stored"


def test_a_damaged_adapter_fails_alone_in_a_sweep(tiny_folder: Make, tmp_path: Path) -> None:
    good, bad = adapter(tiny_folder, tmp_path / "good"), adapter(tiny_folder, tmp_path / "bad")
    rewritten(bad / "adapters.safetensors", lambda t: t.pop(LORA_A))
    data = tmp_path / "q.jsonl"
    data.write_text('{"question": "Why?", "answer": "x"}\n')
    with AdapterEvaluator(
        str(tiny_folder()), judge="exact", cache="memory:", max_tokens=4
    ) as evaluator:
        first, second, base = evaluator.evaluate_adapters([bad, good, None], data, 1)
        assert (first.failed, second.failed, base.failed) == (1, 0, 0)
        assert f"tensor {LORA_A} is missing" in first["items"][0]["error"]
        with pytest.raises(InputError, match="is missing"):
            evaluator.evaluate_adapter(bad, data)
