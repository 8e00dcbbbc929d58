"""`AdapterEvaluator` as those use it who wrote for the original."""

import asyncio
import gc
import json
import shutil
import sys
from pathlib import Path
from typing import Literal

import mlx.core as mx
import pytest
from support.judge_http import Answer, error_body
from support.judge_server import JudgeServer
from support.tiny_model import make_tiny_adapter, make_tiny_model
from support.workplace import Workplace

from cachedeval import AdapterEvaluator, InputError, OptimizedAdapterEvaluator, compare
from cachedeval.engine.node import Node
from cachedeval.evals.judging import rubric_judges
from cachedeval.evals.judging.nodes import judge_parse
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.report import Report
from cachedeval.services.errors import ModelNotFoundError, ServiceError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture
def data(place: Workplace, tmp_path: Path) -> Path:
    return place.questions(tmp_path, 8)


def evaluator(place: Workplace, folder: Path, judge: str = "f1") -> AdapterEvaluator:
    return AdapterEvaluator(place.model, judge, f"disk:{folder / 'cache'}", max_tokens=8)


def test_the_original_call_works_as_it_was_written(
    place: Workplace, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapters").symlink_to(place.root / "adapters")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CACHEDEVAL_MODEL", str(place.model))
    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")
        original = OptimizedAdapterEvaluator(evaluation_seed=42)
        report = original.evaluate_adapter(
            adapter_name="changing",
            training_data_path=str(data),
            num_questions=4,
            use_base_model=False,
        )
        again = original.evaluate_adapter(
            adapter_name="other", training_data_path=str(data), num_questions=4
        )
        original.close()
        assert server.calls == 8
    assert report.scored == 4
    assert report["adapter"] == "changing"
    assert again["adapter"] == "other"
    assert report.run["loads"] == 1
    assert again.run["loads"] == 0
    assert (tmp_path / "eval_cache").is_dir()


def test_two_adapters_are_compared_in_one_run(place: Workplace, data: Path, tmp_path: Path) -> None:
    with evaluator(place, tmp_path, f"mlx:{place.model}") as ours:
        found = ours.compare("base", place.changing, training_data_path=data, num_questions=6)
        base, tuned = ours.evaluate_adapters(["base", place.changing], data, 6)
        awaited = asyncio.run(
            ours.acompare("base", place.changing, training_data_path=data, num_questions=6)
        )
    assert compare(base, tuned) == found == awaited
    assert found.paired.n == 6
    assert (round(found.mean_a, 6), round(found.mean_b, 6)) == (base.score, tuned.score)
    assert base.run["loads"] == 0
    assert [item.scores for item in base.items] == [{"mlx:model": i.score} for i in base.items]
    assert base.truncated == sum(item.truncated for item in base.items)
    assert base.truncated > 0  # eight tokens are few


@pytest.mark.parametrize("judge", ["exact", "f1"])
def test_a_model_that_says_nothing_scores_nothing(tmp_path: Path, judge: str) -> None:
    model = make_tiny_model(tmp_path / "model", chat_template=True)
    config = json.loads((model / "config.json").read_text())
    config["eos_token_id"] = [0, config["eos_token_id"]]
    (model / "config.json").write_text(json.dumps(config))
    # With this all logits are equal, so the first token wins, and it ends the answer.
    silent = make_tiny_adapter(model, tmp_path / "silent", fine_tune_type="full", strength=0)
    tensors = {"model.norm.weight": mx.zeros((64,))}
    mx.save_safetensors(str(silent / "adapters.safetensors"), tensors, {"format": "mlx"})
    data = tmp_path / "choices.jsonl"
    lines = [{"question": f"Which one, {n}?", "answer": "ABCD"[n % 4]} for n in range(8)]
    data.write_text("\n".join(map(json.dumps, lines)))
    with AdapterEvaluator(model, judge, "memory:", max_tokens=8) as evaluator:
        report = evaluator.evaluate_adapter(str(silent), str(data), num_questions=8)
    assert [item["response"] for item in report["items"]] == [""] * 8
    assert (report.scored, report.failed, report.score) == (8, 0, 0)


def test_what_the_original_hard_wired_has_a_clear_error(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHEDEVAL_MODEL", "CACHEDEVAL_JUDGE", "CEREBRAS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with (
        AdapterEvaluator(cache="memory:") as bare,
        pytest.raises(InputError, match="CACHEDEVAL_MODEL"),
    ):
        bare.evaluate_adapter(training_data_path=data, use_base_model=True)


def test_the_adapter_names_its_model(place: Workplace, data: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "told"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapters.safetensors"):
        (adapter / name).write_bytes((place.changing / name).read_bytes())
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(
        json.dumps({**settings, "model": str(place.model)})
    )
    with AdapterEvaluator(judge="f1", cache="memory:", max_tokens=4) as told:
        assert told.evaluate_adapter(adapter, data, 2).scored == 2


def test_no_adapter_at_all_is_no_report(place: Workplace, data: Path) -> None:
    with AdapterEvaluator(model=place.model, judge="f1", cache="memory:") as bare:
        assert bare.evaluate_adapters([], data) == []


def test_use_cache_false_neither_reads_nor_writes(
    place: Workplace, data: Path, tmp_path: Path
) -> None:
    with evaluator(place, tmp_path) as first:
        first.evaluate_adapter(place.changing, data, 3)
        before = len(list(first.engine.store.records()))
        report = first.evaluate_adapter(place.other, data, 3, use_cache=False)
        assert report.run["nodes"]["generation"]["computed"] == 3
        known = first.evaluate_adapter(place.changing, data, 3, use_cache=False)
        assert known.run["nodes"]["generation"]["computed"] == 3
        assert len(list(first.engine.store.records())) == before


def test_cleanup_gives_the_memory_back(data: Path, tmp_path: Path) -> None:
    large = make_tiny_model(tmp_path / "large", hidden=512, layers=8)
    weights = sum(file.stat().st_size for file in large.glob("*.safetensors"))
    with AdapterEvaluator(large, "f1", "memory:", max_tokens=4) as loaded:
        import mlx.core as mx  # noqa: PLC0415  the evaluator is to open the BLAS before

        before = mx.get_active_memory()
        loaded.evaluate_adapter(None, data, 2)
        during = mx.get_active_memory()
        loaded.cleanup_models()
        gc.collect()
        after = mx.get_active_memory()
        again = loaded.evaluate_adapter(None, data, 3)
    assert during - before > 0.9 * weights
    assert after - before < 0.1 * weights
    assert again.run["loads"] == 1
    assert again.run["nodes"]["generation"]["computed"] == 1


def test_the_async_twin_does_the_same(place: Workplace, data: Path, tmp_path: Path) -> None:
    with evaluator(place, tmp_path) as one:
        expected = one.evaluate_adapter(place.changing, data, 3)

        async def main() -> str:
            return (await one.aevaluate_adapter(place.changing, data, 3)).to_json()

        assert asyncio.run(main()) == expected.to_json()


def test_a_backend_from_outside_is_used_by_its_url(
    place: Workplace, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "outsider-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cachedeval.backends]\nouter = outsider:open_url\n")
    (site / "outsider.py").write_text(
        "from cachedeval import open_backend\n"
        "opened = []\n"
        "kept = open_backend('memory:')\n"
        "def open_url(rest):\n"
        "    opened.append(rest)\n"
        "    return kept\n"
    )
    monkeypatch.syspath_prepend(str(site))
    with evaluator(place, tmp_path) as ours:
        expected = ours.evaluate_adapter(place.changing, data, 3).to_json()
    with AdapterEvaluator(place.model, "f1", "outer:some/where?x=1", max_tokens=8) as theirs:
        assert theirs.evaluate_adapter(place.changing, data, 3).to_json() == expected
        stored = list(theirs.engine.store.backend.scan())
    assert sys.modules["outsider"].opened == ["some/where?x=1"]
    assert len(stored) >= 6


def test_failures_count_as_configured(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place.questions(tmp_path, 4)
    with JudgeServer(fail={"What is 2 plus 2": 400}) as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")

        def score(on_failure: Literal["exclude", "zero", "raise"]) -> tuple[float | None, int]:
            with AdapterEvaluator(
                place.model, "cerebras:m", "memory:", max_tokens=4, on_failure=on_failure
            ) as one:
                report = one.evaluate_adapter(place.changing, data, 4)
                return report.score, report.failed

        excluded, zero = score("exclude"), score("zero")
        assert excluded[1] == zero[1] == 1
        assert zero[0] == pytest.approx((excluded[0] or 0) * 3 / 4, abs=1e-5)
        with pytest.raises(ServiceError):
            score("raise")


def test_a_wrong_key_is_one_error_and_few_requests(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place.questions(tmp_path, 40)
    with JudgeServer(api_key="right") as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "wrong")
        with (
            AdapterEvaluator(place.model, "cerebras:m", "memory:", max_tokens=4) as one,
            pytest.raises(InputError, match="key"),
        ):
            one.evaluate_adapter(None, data, 40)
        assert server.calls <= 6


def test_identical_questions_are_asked_once(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "same.jsonl"
    data.write_text('{"question": "Again?", "answer": "yes"}\n' * 40)
    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")
        with AdapterEvaluator(place.model, "cerebras:m", "memory:", max_tokens=4) as one:
            report = one.evaluate_adapter(None, data, 40)
        assert server.calls == 1
    assert report.scored == 40
    assert len({item["id"] for item in report["items"]}) == 40
    assert report.run["nodes"]["generation"]["computed"] == 1


def test_judging_starts_with_the_first_answer(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first judge call comes in before the last answer is there."""
    data = place.questions(tmp_path, 12)
    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")
        seen: list[tuple[str, int]] = []
        with AdapterEvaluator(
            place.model, "cerebras:m", "memory:", max_tokens=200, batch_size=1
        ) as one:
            one.evaluate_adapter(
                None, data, 12, on_progress=lambda step, done, _: seen.append((step, done))
            )
    assert seen.index(("judge", 1)) < seen.index(("generation", 12))


def test_lone_surrogates_and_emoji_are_survived(place: Workplace, tmp_path: Path) -> None:
    data = tmp_path / "odd.jsonl"
    data.write_text(
        '{"question": "lone \\ud800 surrogate", "answer": "x"}\n'
        '{"question": "🧮 ünï", "answer": "🙂"}\n'
    )
    with evaluator(place, tmp_path) as one:
        report = one.evaluate_adapter(None, data, 2)
    assert report.scored + report.failed == 2
    assert report.scored >= 1
    json.loads(report.to_json())


def test_repeats_and_single_criteria(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place.questions(tmp_path, 3)
    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")
        cache = f"disk:{tmp_path / 'c'}"
        for repeats, per_criterion, calls in ((1, False, 3), (3, False, 9), (1, True, 21)):
            with AdapterEvaluator(
                place.model,
                "cerebras:m",
                cache,
                max_tokens=4,
                repeats=repeats,
                judge_temperature=0.7,
                per_criterion=per_criterion,
            ) as one:
                report = one.evaluate_adapter(None, data, 3)
            assert server.calls == calls
            assert set(report["criteria"]) == {"accuracy", "relevance", "completeness", "clarity"}


def test_a_model_that_the_service_lacks_ends_the_run(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Answer(404, error_body("model not found", "model_not_found"))
    with JudgeServer(script=lambda _: gone) as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")
        with (
            AdapterEvaluator(place.model, "cerebras:m", "memory:", max_tokens=4) as one,
            pytest.raises(ModelNotFoundError),
        ):
            one.evaluate_adapter(None, place.questions(tmp_path, 3), 3)


def test_neither_a_new_parser_nor_tight_limits_cost_a_call(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = place.questions(tmp_path, 6)
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nrequests_per_minute = 1\n")
    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")

        def evaluate(settings: Path | None = None) -> Report:
            with AdapterEvaluator(
                place.model,
                "cerebras:m",
                f"disk:{tmp_path / 'c'}",
                max_tokens=4,
                limits=None if settings is None else str(settings),
            ) as one:
                return one.evaluate_adapter(None, data, 6)

        first = evaluate()
        # At one request a minute, six calls would take five minutes: the test's time-out.
        assert evaluate(limits).to_json() == first.to_json()
        parser = Node[Verdict](judge_parse.function, version="another", name=judge_parse.name)
        monkeypatch.setattr(rubric_judges, "judge_parse", parser)
        again = evaluate(limits)
        assert again.to_json() == first.to_json()
        assert again.run["nodes"]["judge"]["computed"] == 0
        assert server.calls == 6


def test_an_adapter_that_does_not_fit_harms_no_other(
    place: Workplace, data: Path, tmp_path: Path
) -> None:
    wide = make_tiny_adapter(
        make_tiny_model(tmp_path / "wide-model", hidden=96), tmp_path / "wide", seed=3
    )
    with evaluator(place, tmp_path) as one:
        for _ in range(2):  # computed, and then from the cache
            first, misfit, last = one.evaluate_adapters(
                [place.changing, wide, place.other], data, 3
            )
            assert (misfit["scored"], misfit["failed"], misfit["score"]) == (0, 3, None)
            assert all("does not fit" in item["error"] for item in misfit["items"])
        with pytest.raises(InputError, match="wide does not fit"):
            one.evaluate_adapter(wide, data, 3)
    with AdapterEvaluator(place.model, "f1", "memory:", max_tokens=8) as fresh:
        assert fresh.evaluate_adapter(place.changing, data, 3).to_json() == first.to_json()
        assert fresh.evaluate_adapter(place.other, data, 3).to_json() == last.to_json()


def test_an_adapter_retrained_between_its_key_and_its_loading_is_refused(
    place: Workplace, data: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(place.changing, mine)
    with evaluator(place, tmp_path) as one:
        (target,) = one.targets([mine], data, 3)
        retrained = (place.other / "adapters.safetensors").read_bytes()
        (mine / "adapters.safetensors").write_bytes(retrained)
        refused = one.engine.settle([sample.answer for sample in target.samples])
        assert all("mine was changed" in str(outcome.error) for outcome in refused)
        again = one.evaluate_adapter(mine, data, 3)
        assert again.run["nodes"]["generation"]["computed"] == 3
        # A copy of what it was before is answered by its own weights, whatever the first is now.
        before = one.evaluate_adapter(place.changing, data, 3)
        assert before.run["nodes"]["generation"]["computed"] == 3
    with AdapterEvaluator(place.model, "f1", "memory:", max_tokens=8) as fresh:
        for adapter, report in ((mine, again), (place.changing, before)):
            told = fresh.evaluate_adapter(adapter, data, 3)
            assert [i["response"] for i in told["items"]] == [
                i["response"] for i in report["items"]
            ]
