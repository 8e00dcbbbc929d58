from pathlib import Path

import pytest

from cachedeval.cli import explain, plan, run
from cachedeval.cli.main import execute
from cachedeval.cli.options import Namespace, Parser
from cachedeval.engine.errors import InputError

FILE = """\
model = "path/to/model"   # the base
adapter = ["base", "4b-nested"]
data = "questions é.jsonl"
num_questions = 40
temperature = 0.5
fetch = true
"no-cache" = false
judge = "f1"
fail-under = 70
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*args: str, command: str = "run") -> Namespace:
    parser = Parser(f"cachedeval {command}", None)
    {"run": run, "plan": plan, "explain": explain}[command].declare(parser)
    return parser.parse(list(args))


@pytest.mark.parametrize("named", [False, True])
def test_a_file_stands_for_options(folder: Path, *, named: bool) -> None:
    (folder / ("eval.toml" if named else "cachedeval.toml")).write_text(FILE, encoding="utf-8")
    options = parsed("--seed", "7", *(["--config", "eval.toml"] if named else []))
    assert options.model == "path/to/model"
    assert options.adapters == ["base", "4b-nested"]
    assert options.data == "questions é.jsonl"
    assert (options.num_questions, options.seed, options.temperature) == (40, 7, 0.5)
    assert options.fetch is True
    assert options.fail_under == 70.0


def test_the_command_line_wins(folder: Path) -> None:
    (folder / "cachedeval.toml").write_text(FILE, encoding="utf-8")
    options = parsed("--adapter", "other", "--num-questions=5", "--judge", "exact")
    assert options.adapters == ["other"]
    assert options.num_questions == 5
    assert "exact" in options.judge


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_one_file_serves_all_commands(folder: Path, command: str) -> None:
    (folder / "cachedeval.toml").write_text(FILE, encoding="utf-8")
    assert parsed(command=command).num_questions == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nnum-question = 3", "line 2: num-question: there is no such option; did you mean num-q"),
        ('a = 1\nseed = "x"', "line 1: a: there is no such option"),
        ('seed = "x"', "line 1: seed: 'x' is not a whole number"),
        ("seed = [1, 2]", "line 1: seed: takes one value, not a list"),
        ("seed = true", "line 1: seed: takes a text or a number, not true"),
        ("fetch = 1", "line 1: fetch: takes true or false, not 1"),
        ("[seed]\na = 1", "line 1: seed: takes a text or a number, not a table"),
        ('sampling = "odd"', "'odd' is none of nested, shuffle"),
        ("fail-under = 101", "line 1: fail-under: 101 is not from 0 to 100"),
        ("seed = ", "is not TOML"),
        ("config = 'x'", "line 1: config: there is no such option"),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(folder: Path, text: str, message: str) -> None:
    (folder / "cachedeval.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        parsed("--data", "q.jsonl")
    assert "cachedeval.toml" in str(caught.value)
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match=r"--config none\.toml: cannot be read"):
        parsed("--data", "q.jsonl", "--config", "none.toml")
    with pytest.raises(InputError, match="a value is missing"):
        parsed("--data", "q.jsonl", "--config")


def test_a_printed_file_stands_for_the_same_options(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        *("--data", 'odd "name"\\é\x7f.jsonl', "--adapter", "a", "--adapter", "b", "--fetch"),
        *("--temperature", "0.25", "--no-cache", "--export", "rows.csv", "--seed", "7"),
    ]
    with pytest.raises(SystemExit) as ended:
        execute(["run", *args, "--print-config"])
    assert ended.value.code == 0
    (folder / "printed.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    expected, found = vars(parsed(*args)), vars(parsed("--config", "printed.toml"))
    assert {**found, "config": None} == expected
