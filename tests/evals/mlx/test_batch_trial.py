"""Batches are decoded only where they give what each prompt gives alone, with any architecture."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.decoding import decode_all
from support.tiny_architectures import ARCHITECTURES, NOT_TINY, save_tiny

from cachedeval import AdapterEvaluator
from cachedeval.evals.mlx.cpu import _openblas
from cachedeval.evals.mlx.decoding import DecodeRequest, decode
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.near_ties import near_tie_bound
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import Chooser

from mlx_lm import stream_generate  # isort: skip - after the runtime, which opens the BLAS

pytestmark = pytest.mark.slow

REFUSED = {
    *("afm7", "deepseek_v41", "gemma2", "gpt_bigcode", "llama4", "minimax_m3_vl"),
    *("nemotron-nas", "plamo3"),
}
"""Those that mlx_lm 0.32 does not decode in a batch as it decodes them alone (found by trying)."""

# Each kind of attention, cache and mixture once; the others take minutes together.
QUICK = {
    *("llama", "qwen3", "gemma2", "gpt_bigcode", "gemma3", "mamba", "mixtral", "gpt_oss"),
    *("afm7", "deepseek_v3", "nemotron-nas", "qwen3_5", "llama4"),
}

TOKENS = 8


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Multiply with one thread: several take longer with matrices as tiny as these."""
    library = _openblas()
    if library is None:
        yield
        return
    before = library.openblas_get_num_threads()
    library.openblas_set_num_threads(1)
    yield
    library.openblas_set_num_threads(before)


def cases() -> Iterator[Any]:
    for name in ARCHITECTURES:
        marks = []
        if name in NOT_TINY:
            marks.append(pytest.mark.skip(reason=NOT_TINY[name]))
        elif name not in QUICK:
            marks.append(pytest.mark.slow)
        yield pytest.param(name, marks=marks)


def prompts() -> list[list[int]]:
    rng = random.Random(7)
    lengths = (5, 2, 12, 30, 3, 21, 8, 150)
    return [[rng.randrange(3, 500) for _ in range(length)] for length in lengths]


def of_mlx_lm(loaded: LoadedModel, request: DecodeRequest) -> list[tuple[int, float]]:
    """Return mlx_lm's own tokens, one prompt and one token at a time, and by how much each leads."""
    chooser = Chooser(
        request.tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        bound=near_tie_bound(loaded.model),
    )
    said = [
        (response.token, chooser.lead())
        for response in stream_generate(
            loaded.model,
            loaded.tokenizer,
            list(request.tokens),
            max_tokens=request.max_tokens,
            sampler=chooser,
        )
    ]
    ends = [n for n, (token, _) in enumerate(said) if token in loaded.tokenizer.eos_token_ids]
    return said[: ends[0]] if ends else said


def agree(tokens: list[int], wanted: list[tuple[int, float]], bound: float) -> bool:
    """Tell whether an answer is mlx_lm's, up to where that was nearly tied."""
    for n, (token, lead) in enumerate(wanted):
        if tokens[n : n + 1] != [token]:
            return lead < bound
    return len(tokens) == len(wanted)


@pytest.mark.filterwarnings("ignore")  # of transformers, about settings that are not a Llama's
@pytest.mark.parametrize("architecture", list(cases()))
def test_each_answer_is_that_of_mlx_lm(architecture: str, tmp_path: Path) -> None:
    loaded = load_model(save_tiny(architecture, tmp_path))
    requests = [DecodeRequest(prompt, TOKENS) for prompt in prompts()]
    requests += [DecodeRequest(r.tokens, TOKENS, 0.8, 0.9, seed=3) for r in requests]
    wanted = [of_mlx_lm(loaded, request) for request in requests]
    bound = near_tie_bound(loaded.model)
    for kind in (slice(0, 8), slice(8, 16)):
        for size in (1, 2, 3, 4, 8):
            answers = decode_all(loaded, requests[kind][:size], batch_size=size)
            for number, answer in enumerate(answers):
                expected = wanted[kind][number]
                where = f"batch of {size}, prompt {number}: {answer.tokens}, not {expected}"
                assert agree(answer.tokens, expected, bound), where
    troubles = {size: loaded.batch_trouble(size) for size in (2, 3, 4, 8)}
    assert any(troubles.values()) == (architecture in REFUSED), troubles


def test_one_after_the_other_needs_no_trial(tmp_path: Path) -> None:
    loaded = load_model(save_tiny("gemma2", tmp_path))
    requests = [DecodeRequest(prompt, 4) for prompt in prompts()]
    answers = decode_all(loaded, requests, batch_size=1)
    decode_all(loaded, requests[:1])
    assert loaded.proven == {}
    assert {answer.alone for answer in answers} == {""}
    together = decode_all(loaded, requests, batch_size=4)
    assert list(loaded.proven) == [4]
    assert {answer.alone for answer in together} == {loaded.proven[4]} != {""}
    assert [a.tokens for a in together] == [a.tokens for a in answers]


@pytest.mark.parametrize(
    ("name", "answers"), [("gemma2", 5), ("gpt_bigcode", 5), ("qwen3", 0), ("llama4", 5)]
)
@pytest.mark.filterwarnings("ignore")
def test_the_run_says_so_and_remembers_it(tmp_path: Path, name: str, answers: int) -> None:
    folder = save_tiny(name, tmp_path / "model")
    data = tmp_path / "q.jsonl"
    data.write_text(
        "".join(json.dumps({"question": f"Say {n}", "answer": "x"}) + "\n" for n in range(8))
    )
    told = []
    for count in (5, 8, 8):
        with AdapterEvaluator(
            str(folder), judge="exact", cache=f"disk:{tmp_path / 'cache'}", max_tokens=4
        ) as evaluator:
            report = evaluator.evaluate_adapters([None], data, count)[0]
            told.append(report.run["one_by_one"])
    assert [each["answers"] for each in told] == [answers, 3 if answers else 0, 0]
    assert (told[0]["reason"] is not None) == bool(answers)
    assert told[1]["reason"] == told[0]["reason"]
    assert told[2]["reason"] is None


def test_a_trial_is_made_once_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny("qwen3", tmp_path / "model")
    data = tmp_path / "q.jsonl"
    data.write_text(
        "".join(json.dumps({"question": f"Say {n}", "answer": "x"}) + "\n" for n in range(9))
    )
    tried: list[int] = []
    real = LoadedModel.batch_trouble

    def counted(self: LoadedModel, rows: int) -> str:
        if rows not in self.proven:
            tried.append(rows)
        return real(self, rows)

    monkeypatch.setattr(LoadedModel, "batch_trouble", counted)

    def run(questions: int, batch_size: int | None, folder: Path = folder) -> None:
        with AdapterEvaluator(
            str(folder),
            judge="exact",
            cache=f"disk:{tmp_path / 'cache'}",
            max_tokens=4,
            batch_size=batch_size,
        ) as evaluator:
            assert not evaluator.evaluate_adapters([None], data, questions)[0].failed

    run(3, 1)
    assert tried == []
    run(5, None)
    run(7, None)
    assert tried == [32]
    run(9, 4)
    assert tried == [32, 4]
    run(9, None, save_tiny("qwen3", tmp_path / "other", seed=6))
    assert tried == [32, 4, 32]


def test_closing_before_the_first_step_is_harmless(tmp_path: Path) -> None:
    loaded = load_model(save_tiny("llama", tmp_path))
    events = decode(loaded, [DecodeRequest([5, 6, 7], 4)])
    events.close()  # type: ignore[attr-defined]
    before = mx.get_active_memory()
    assert decode_all(loaded, [DecodeRequest([5, 6, 7], 4)])[0].tokens
    assert mx.get_active_memory() <= before + 2**20
