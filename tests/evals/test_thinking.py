"""Thinking models, bounds and new versions, through the evaluator, with a real tokenizer."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.thinking_model import Scripted, make_thinking_model
from support.tiny_model import make_tiny_model

from cachedeval import AdapterEvaluator, InputError
from cachedeval.evals import models
from cachedeval.evals.mlx.texts import TokenizerTexts
from cachedeval.evals.models import ModelResource
from cachedeval.evals.report import Report

THOUGHT = "<think>\nThe sum is easy.\n</think>\n\n"
QUESTIONS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_thinking_model(tmp_path_factory.mktemp("thinking") / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return written(
        tmp_path / "qa.jsonl",
        [{"question": f"{n} + 0?", "answer": f"It is {n}"} for n in range(QUESTIONS)],
    )


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def script(prompt: str) -> str:
    """Think where the prompt lets it; the second question takes long."""
    number = prompt.partition(" + 0?")[0][-1]
    answer = f"It is {number}" + " of course" * 30 * (number == "1")
    if "</think>" in prompt:
        return answer
    return answer.join(
        (THOUGHT.removeprefix("<think>\n") if prompt.endswith("<think>\n") else THOUGHT, "")
    )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    """Put a scripted decoder in each model's place; rendering and reading are real."""
    made: list[Scripted] = []

    def load(model: ModelResource) -> Scripted:
        made.append(Scripted(model._load_tokenizer().tokenizer, script))
        return made[-1]

    real = ModelResource.__init__

    def init(self: ModelResource, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        self.weights.open = lambda: load(self)
        self.weights.close = None
        self.weights.size = None

    monkeypatch.setattr(ModelResource, "__init__", init)
    return made


Evaluate = Callable[..., Report]


@pytest.fixture
def evaluate(folder: Path, data: Path, tmp_path: Path, scripted: list[Scripted]) -> Evaluate:
    assert scripted == []

    def run(
        *, cache: str = "cache", model: Path = folder, rows: Path = data, **options: Any
    ) -> Report:
        with AdapterEvaluator(model, "f1", f"disk:{tmp_path / cache}", **options) as one:
            return one.evaluate_adapter(None, rows)

    return run


def computed(report: Report) -> tuple[int, int]:
    nodes = report.run["nodes"]
    return nodes["generation"]["computed"], nodes["judge"]["computed"]


def test_a_thought_is_shown_and_not_scored(evaluate: Evaluate) -> None:
    report = evaluate(max_tokens=1000)
    assert report.failed == report.truncated == 0
    assert {item.reasoning for item in report.items} == {"The sum is easy."}
    scores = {item.question: item.score for item in report.items}
    assert scores["0 + 0?"] == scores["2 + 0?"] == 100.0
    assert all(str(item.response).startswith("It is ") for item in report.items)


def test_with_and_without_a_thought_are_two_recipes_and_one_judgement(evaluate: Evaluate) -> None:
    thinking = evaluate(max_tokens=1000)
    direct = evaluate(max_tokens=1000, chat_template_args={"enable_thinking": False})
    assert (computed(thinking), computed(direct)) == ((3, 3), (3, 0))  # the same answers
    assert {item.reasoning for item in direct.items} == {None}
    assert computed(evaluate(max_tokens=1000, chat_template_args={"enable_thinking": False})) == (
        0,
        0,
    )


def test_an_argument_that_the_template_does_not_read_decodes_nothing(evaluate: Evaluate) -> None:
    evaluate(max_tokens=1000)
    assert computed(evaluate(max_tokens=1000, chat_template_args={"unread": 1})) == (0, 0)


def test_a_template_may_open_the_thought(evaluate: Evaluate) -> None:
    report = evaluate(max_tokens=1000, chat_template_args={"open_thinking": True})
    assert {item.reasoning for item in report.items} == {"The sum is easy."}
    assert report.failed == 0


def test_a_thought_that_is_cut_off_is_no_answer(evaluate: Evaluate) -> None:
    report = evaluate(max_tokens=4)
    assert report.failures == {"NoAnswer": QUESTIONS}
    assert report.truncated == QUESTIONS
    for item in report.items:
        assert (item.response, item.score, item.truncated) == (None, None, True)
        assert "raise --max-tokens" in str(item.error)
        assert item.reasoning is not None
    assert evaluate(max_tokens=4) == report


def test_a_longer_bound_decodes_what_was_cut_and_equals_a_fresh_run(
    evaluate: Evaluate, scripted: list[Scripted]
) -> None:
    for bound, decoded in ((4, 3), (60, 3), (1000, 1), (60, 0), (4, 0), (2000, 0)):
        scripted.clear()
        report = evaluate(max_tokens=bound)
        assert computed(report)[0] == decoded == sum(one.decoded for one in scripted)
        assert report.to_json() == evaluate(max_tokens=bound, cache=f"fresh-{bound}").to_json()
    assert [item.truncated for item in evaluate(max_tokens=60).items].count(True) == 1


def test_markers_by_a_setting(evaluate: Evaluate) -> None:
    raw = evaluate(max_tokens=1000, reasoning_markers=("", ""))
    assert all(str(item.response).startswith("<think>") for item in raw.items)
    assert {item.reasoning for item in raw.items} == {None}
    with pytest.raises(InputError, match="the one behind it"):
        evaluate(reasoning_markers=("<a>",))


def test_a_stop_text_is_no_part_of_the_answer(evaluate: Evaluate) -> None:
    report = evaluate(max_tokens=1000, stop=[" of course"])
    assert {item.score for item in report.items} == {100.0}
    assert report.truncated == 0


def test_a_new_version_of_transformers_renders_again_and_decodes_nothing(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, scripted: list[Scripted]
) -> None:
    evaluate(max_tokens=1000)
    now = models.runtime()
    monkeypatch.setattr(models, "runtime", lambda: {**now, "transformers": "99.0"})
    scripted.clear()
    rendered = []
    real = TokenizerTexts.render

    def spy(texts: TokenizerTexts, *args: Any) -> Any:
        rendered.append(args)
        return real(texts, *args)

    monkeypatch.setattr(TokenizerTexts, "render", spy)
    assert computed(evaluate(max_tokens=1000)) == (0, 0)
    assert scripted == []
    assert len(rendered) == QUESTIONS


def test_what_decoding_reads_decodes_all_and_what_it_does_not_read_nothing(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    model = make_thinking_model(tmp_path / "own")
    evaluate(max_tokens=1000, model=model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(dict(reversed(config.items())) | {"transformers_version": "4.51.0"}, indent=7)
    )
    assert computed(evaluate(max_tokens=1000, model=model)) == (0, 0)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(bytes(weights))
    assert computed(evaluate(max_tokens=1000, model=model)) == (3, 0)


def test_what_plays_no_part_at_temperature_0_is_in_no_key(evaluate: Evaluate) -> None:
    evaluate(max_tokens=1000)
    for unread in ({"top_p": 0.5}, {"top_k": 3}, {"min_p": 0.2}, {"evaluation_seed": 42}):
        assert computed(evaluate(max_tokens=1000, **unread)) == (0, 0)
    assert computed(evaluate(max_tokens=1000, repetition_penalty=1.1))[0] == 3


def test_a_system_prompt_takes_the_place_of_the_data_s(evaluate: Evaluate, tmp_path: Path) -> None:
    chat = [
        {"role": "system", "content": "Old."},
        {"role": "user", "content": "0 + 0?"},
        {"role": "assistant", "content": "It is 0"},
    ]
    rows = written(tmp_path / "chat.jsonl", [{"messages": chat}])
    bare = written(tmp_path / "bare.jsonl", [{"messages": chat[1:]}])
    evaluate(rows=rows, max_tokens=1000, system_prompt="New.")
    assert computed(evaluate(rows=bare, max_tokens=1000, system_prompt="New."))[0] == 0
    assert computed(evaluate(rows=bare, max_tokens=1000))[0] == 1


def test_a_template_that_refuses_every_question_fails_once(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "refusing")
    path = model / "tokenizer_config.json"
    refusing = "{{ raise_exception('no system role') }}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": refusing}))
    with pytest.raises(InputError, match="template refuses the messages: no system role"):
        evaluate(model=model)


def test_repeated_questions_and_bad_lines_are_noted(evaluate: Evaluate, tmp_path: Path) -> None:
    rows = written(
        tmp_path / "twice.jsonl",
        [{"question": "0 + 0?", "answer": "It is 0"}] * 3 + [{"nothing": 1}],
    )
    with pytest.raises(InputError, match=r"twice\.jsonl:4: no question in it"):
        evaluate(rows=rows)
    report = evaluate(rows=rows, on_bad_line="skip", max_tokens=1000)
    assert report.questions == 3
    assert report.notes[0].startswith(
        "1 line of the data could not be used and left out: line 4: no"
    )
    assert report.notes[1].startswith("2 of the 3 questions repeat another")
    once = evaluate(rows=rows, on_bad_line="skip", max_tokens=1000, dedupe=True)
    assert once.questions == 1
    assert len(once.notes) == 1


def test_a_warm_run_imports_neither_mlx_nor_transformers(
    evaluate: Evaluate, folder: Path, data: Path, tmp_path: Path
) -> None:
    evaluate(max_tokens=1000)
    code = (
        "import sys\nfrom cachedeval import AdapterEvaluator\n"
        f"with AdapterEvaluator({str(folder)!r}, 'f1', 'disk:{tmp_path / 'cache'}', max_tokens=1000) as one:\n"
        f"    print(one.evaluate_adapter(None, {str(data)!r}).score)\n"
        "print([name for name in ('mlx', 'mlx_lm', 'transformers', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
