"""`cachedeval plan` and `cachedeval explain`: what would be computed and why, computing nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.evaluation import JUDGE, QUESTIONS, Evaluation
from support.judge_server import JudgeServer
from support.tiny_model import make_tiny_adapter
from support.workplace import environment

_ALONE = """
import socket, sys

def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")

socket.socket.connect = socket.socket.connect_ex = refuse
from cachedeval.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0, end.code
heavy = ("mlx", "mlx_lm", "transformers", "cerebras", "httpx", "openai")
found = [name for name in heavy if name in sys.modules]
assert not found, found
"""


def plan(evaluation: Evaluation, *more: str | Path, **options: Any) -> dict[str, tuple[int, ...]]:
    """Return by step: in the cache, to compute, maybe."""
    done = evaluation("plan", "--json", *more, **options)
    assert (done.status, done.err) == (0, "")
    steps = done.json["steps"]
    for step in steps.values():
        assert step["calls"] == step["hits"] + step["computed"] + step["unknown"]
    return {name: (s["hits"], s["computed"], s["unknown"]) for name, s in steps.items()}


def explained(evaluation: Evaluation, *more: str | Path, **options: Any) -> list[str]:
    done = evaluation("explain", *more, **options)
    assert (done.status, done.err) == (0, "")
    return done.out.splitlines()


def test_before_the_first_run_everything_is_new_and_the_time_unknown(
    evaluation: Evaluation,
) -> None:
    assert plan(evaluation) == {"generation": (0, 6, 0), "judge": (0, 0, 6)}
    shown = evaluation("plan")
    assert "?: the cache has no result of this step" in shown.out
    assert explained(evaluation) == [
        "6 generation: nothing of this step is in the cache yet",
        "6 judge: waits for generation",
    ]


def test_after_it_nothing_is_left(judged: Evaluation) -> None:
    assert set(plan(judged, judge=JUDGE).values()) == {(QUESTIONS, 0, 0)}
    shown = judged("plan", judge=JUDGE).out
    assert shown.splitlines()[-1] == "everything is in the cache: nothing would be computed"
    assert explained(judged, judge=JUDGE) == ["everything is in the cache"]
    assert judged("explain", "--json", judge=JUDGE).json == {"reasons": []}


def test_a_plan_estimates_time_tokens_and_money_by_what_is_known(judged: Evaluation) -> None:
    found = judged("plan", "--json", "--max-tokens", "9", judge=JUDGE).json
    judge = found["steps"]["judge"]
    assert judge["basis"] == QUESTIONS
    assert judge["seconds"] > 0
    assert set(judge["cost"]) == {"prompt_tokens", "completion_tokens"}
    assert found["seconds"] == pytest.approx(sum(s["seconds"] for s in found["steps"].values()))
    tokens = judge["cost"]
    wanted = (tokens["prompt_tokens"] * 0.35 + tokens["completion_tokens"] * 0.75) / 1e6
    assert found["usd"] == pytest.approx(wanted, rel=0.01)
    shown = judged("plan", "--max-tokens", "9", judge=JUDGE).out
    assert "the mean of 6 results" in shown
    assert "the judge's tokens at list price: $" in shown


def test_own_prices_count(judged: Evaluation, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[prices."{JUDGE}"]\ninput = 1000.0\noutput = 0.0\n')
    more = ("--json", "--max-tokens", "9", "--limits", str(settings))
    found = judged("plan", *more, judge=JUDGE).json
    tokens = found["steps"]["judge"]["cost"]["prompt_tokens"]
    assert found["usd"] == pytest.approx(tokens / 1000, rel=0.01)


def test_a_changed_scale_is_named_and_what_waits_for_it(judged: Evaluation, tmp_path: Path) -> None:
    adapter = shutil.copytree(judged.place.changing, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["lora_parameters"]["scale"] = 10.0
    config["iters"] = 999
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert explained(judged, judge=JUDGE, adapter=adapter) == [
        "6 generation: adapter / settings / scale: 20.0 → 10.0",
        "6 judge: waits for generation",
    ]
    assert plan(judged, judge=JUDGE, adapter=adapter)["judge"] == (0, 0, 6)


def test_a_retrained_adapter_is_named_by_its_file(judged: Evaluation, tmp_path: Path) -> None:
    adapter = make_tiny_adapter(judged.place.model, tmp_path / "adapter", seed=9)
    first = explained(judged, judge=JUDGE, adapter=adapter)[0]
    assert first.startswith("6 generation: adapter / files / adapters.safetensors: xxh3:")
    assert first.count("…") == 2
    told = judged("explain", "--json", judge=JUDGE, adapter=adapter).json["reasons"]
    (changed,) = told[0]["changed"]
    assert changed["where"] == "adapter / files / adapters.safetensors"
    assert len(changed["now"]) == len("xxh3:") + 32
    assert told[1] == {
        "node": "judge",
        "calls": 6,
        "state": "waits",
        "changed": [],
        "waits_for": {"generation": 6},
        "because": [],
    }


def test_a_judge_that_has_not_seen_the_new_answers_is_explained_through_them(
    judged: Evaluation, tmp_path: Path
) -> None:
    adapter = make_tiny_adapter(judged.place.model, tmp_path / "adapter", seed=9, scale=10.0)
    assert judged("run", judge="exact", adapter=adapter).status == 0
    lines = explained(judged, judge=JUDGE, adapter=adapter)
    assert [line.partition(":")[0] for line in lines] == ["6 judge", "  because of 6 generation"]
    assert lines[0].startswith("6 judge: response (output of generation) / text: ")
    assert lines[1].startswith(
        "  because of 6 generation: another output: adapter / files / adapters.safetensors: xxh3:"
    )
    assert lines[1].endswith("…; adapter / settings / scale: 20.0 → 10.0")
    told = judged("explain", "--json", judge=JUDGE, adapter=adapter).json["reasons"]
    (cause,) = told[0]["because"]
    assert (cause["node"], cause["calls"]) == ("generation", 6)
    assert [field["where"] for field in cause["changed"]] == [
        "adapter / files / adapters.safetensors",
        "adapter / settings / scale",
    ]


def test_a_changed_criterion_reaches_no_generation(judged: Evaluation, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.toml"
    rubric.write_text('[[criteria]]\nname = "truth"\ndescription = "Is it true?"\n')
    more = ("--criteria", str(rubric))
    found = plan(judged, *more, judge=JUDGE)
    assert found["generation"] == (6, 0, 0)
    assert found["judge"] == (0, 6, 0)
    lines = explained(judged, *more, judge=JUDGE)
    assert [line.partition(":")[0] for line in lines] == ["6 judge"]
    assert "rubric / criteria / 0 / name: 'accuracy' → 'truth'" in lines[0]


def test_one_more_question_is_one_more_of_each(judged: Evaluation) -> None:
    judged.data = judged.place.questions(judged.folder, QUESTIONS + 1)
    assert plan(judged, judge=JUDGE) == {
        "generation": (6, 1, 0),
        "judge": (6, 0, 1),
    }
    first = explained(judged, judge=JUDGE)[0]
    assert first.startswith("1 generation: messages / 0 / content: ")


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_no_model_is_loaded_and_no_connection_opened(
    judged: Evaluation, server: JudgeServer, command: str
) -> None:
    judged.judged_by(server)
    arguments = [command, *judged.options(judge=JUDGE), "--max-tokens", "9"]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE.format(arguments=arguments)],
        cwd=judged.place.root,
        env=environment(judged.env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "generation" in done.stdout
    assert server.connections == 0


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_neither_needs_a_key(evaluation: Evaluation, command: str) -> None:
    assert evaluation(command, judge=JUDGE).status == 0


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_planning_computes_nothing(judged: Evaluation, command: str) -> None:
    def records() -> Any:
        nodes = judged.place.run("cache", "stats", "--json", "--cache", judged.cache).json["nodes"]
        return {name: node for name, node in nodes.items() if name != "files"}

    before = records()
    assert judged(command, "--max-tokens", "9", judge=JUDGE).status == 0
    assert records() == before
