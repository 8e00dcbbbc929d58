import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bound import answer_to, asked, bench_of, judge_of, recipe

from cachedeval import Engine, node
from cachedeval.engine.errors import InputError
from cachedeval.engine.result import Outcome
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.judge import Judge
from cachedeval.evals.judging.scorers import ScorerError

WHY = asked("Why?", "So.")


@node(version="1", name="answered_custom")
def answered(text: str) -> Generation:
    return Generation(text)


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def settled(judge: Judge, response: str = "So.") -> Outcome:
    (call,) = bench_of(judge)(WHY, answered(response))
    with Engine() as engine:
        (outcome,) = engine.settle([call])
    return outcome


def key(judge: Judge) -> bytes:
    (call,) = bench_of(judge)(WHY, answer_to(WHY))
    return recipe(call)


def test_a_function_of_a_file_scores(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "from helper_of_mine import same\n"
        "def score(question, reference, response):\n"
        "    assert question == 'Why?'\n"
        "    return {'same': same(reference, response), 'short': len(response) < 10}\n",
    )
    write(tmp_path, "def same(one, other):\n    return one == other\n", "helper_of_mine.py")
    judge = judge_of(f"{path}:score")
    assert judge.name == "mine.py:score"
    verdict = settled(judge, "No.").value
    assert verdict.scores == {"same": 0, "short": 1}
    assert judge.read([verdict], WHY) == (50, {"same": 0, "short": 1}, "", None)


def test_a_function_scores_and_may_be_async() -> None:
    def half(response: str) -> float:
        return len(response) / 6

    async def whole(response: str, **others: Any) -> bool:
        return bool(response) and others["reference"] == "So."

    assert judge_of(half).name == "half"
    assert settled(judge_of(half)).value.scores == {"score": 0.5}
    assert settled(judge_of(whole)).value.scores == {"score": 1}


def test_the_key_holds_the_source_and_not_the_place(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    source = "BONUS = 0.1\ndef more(x):\n    return x + BONUS\ndef score(response):\n    return more(0)\n"
    here = key(judge_of(f"{write(first, source)}:score"))
    there = write(second, "# a comment\n" + source.replace("0.1", "0.10"))
    assert key(judge_of(f"{there}:score")) == here
    others = [
        source.replace("more(0)", "more(0.5)"),
        source.replace("x + BONUS", "x - BONUS"),
        source.replace("BONUS = 0.1", "BONUS = 0.2"),
    ]
    keys = {
        key(judge_of(f"{write(second, other, f'other{n}.py')}:score"))
        for n, other in enumerate(others)
    }
    assert len(keys | {here}) == 4


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "def score(response):\n    return 0.25\n")
    before = judge_of(f"{path}:score")
    write(tmp_path, "def score(response):\n    return 0.125 + 0.375\n")
    after = judge_of(f"{path}:score")
    assert key(before) != key(after)
    assert settled(before).value.scores == {"score": 0.25}
    assert settled(after).value.scores == {"score": 0.5}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 1.5", "returned 1.5: a scorer returns a number from 0 to 1"),
        ("return -0.1", "returned -0.1"),
        ("return float('nan')", "returned nan"),
        ("return None", "returned None"),
        ("return '1'", "returned '1'"),
        ("return {}", "returned an empty dict"),
        ("return {1: 1}", "returned a dict with the key 1"),
        ("return {'a': 2}", "returned 2"),
        ("return 1 / 0", "raised ZeroDivisionError: division by zero (line 2)"),
        ("raise ValueError('odd')", "raised ValueError: odd (line 2)"),
    ],
)
def test_a_scorer_that_fails_fails_its_item_by_name(tmp_path: Path, body: str, why: str) -> None:
    path = write(tmp_path, f"def score(response):\n    {body}\n")
    error = settled(judge_of(f"{path}:score")).error
    assert isinstance(error, ScorerError)
    assert error.kind == "scorer_failed"
    assert not error.fatal
    assert str(error).startswith(f"mine.py:score {why}")


@pytest.mark.parametrize(
    ("source", "function", "why"),
    [
        ("", "score", "there is no function score in"),
        ("score = 3", "score", "is a int; a scorer is a function"),
        ("def score(answer): return 1", "score", "takes (answer); a scorer takes question"),
        ("def score(): return 1", "score", "takes ()"),
        ("def score(response, /): return 1", "score", "takes (response)"),
        ("def score(response", "score", "cannot be imported: SyntaxError"),
        ("\nimport nothing_of_the_kind", "score", "No module named 'nothing_of_the_kind' (line 2)"),
        ("raise SystemExit(3)", "score", "cannot be imported: SystemExit"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, source: str, function: str, why: str
) -> None:
    path = write(tmp_path, source)
    with pytest.raises(InputError) as raised:
        judge_of(f"{path}:{function}")
    assert why in str(raised.value)
    assert "judge mine.py:score" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_missing_function_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.py cannot be read: No such file"):
        judge_of(f"{tmp_path}/none.py:score")
    with pytest.raises(InputError, match=r"name the function too, as in .*none\.py:score"):
        judge_of(f"{tmp_path}/none.py")


def test_a_node_with_a_version_is_keyed_by_it_too() -> None:
    def versioned(version: str) -> Callable[..., Any]:
        @node(version=version, name="rated")
        def rated(response: str) -> float:
            return 0.5 if response else 0.0

        return rated

    one, other = judge_of(versioned("1")), judge_of(versioned("2"))
    assert one.name == "rated"
    assert key(one) != key(other)
    assert settled(one).value.scores == {"score": 0.5}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with scorers and a judge."""
    info = tmp_path / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cachedeval.scorers]\nlength = rival_scorers:length\nupto = rival_scorers:upto\n"
        "wrapped = rival_scorers:wrapped\nbroken = rival_scorers:broken\n"
    )
    write(
        tmp_path,
        "from cachedeval.evals.judging.scorers import open_scorer\n"
        "def length(response):\n    return min(len(response) / 10, 1)\n"
        "def upto(setting):\n"
        "    most = float(setting)\n"
        "    def score(response):\n        return len(response) <= most\n"
        "    return score\n"
        "def wrapped(setting):\n    return open_scorer('exact')\n"
        "def broken(setting):\n    raise RuntimeError('no')\n",
        "rival_scorers.py",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rival_scorers", raising=False)
    return "rival"


def test_an_installed_package_adds_scorers_and_judges(package: str) -> None:
    assert package
    assert settled(judge_of("length")).value.scores == {"score": 0.3}
    assert settled(judge_of("upto:3")).value.scores == {"score": 1}
    assert settled(judge_of("upto:2")).value.scores == {"score": 0}
    assert key(judge_of("upto:3")) != key(judge_of("upto:2"))
    assert judge_of("upto:3").name == "upto:3"
    assert judge_of("wrapped").name == "exact"
    with pytest.raises(InputError, match=r"entry point rival_scorers:broken .* RuntimeError: no"):
        judge_of("broken")
    with pytest.raises(InputError, match="tool_call, broken, length, upto, wrapped or FILE"):
        judge_of("nobody")
