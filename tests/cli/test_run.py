"""The main job as its user runs it: whole processes, a real model, a judge over real HTTP."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.judge_server import JudgeServer
from support.tiny_model import make_tiny_model
from support.workplace import Finished, Workplace, command, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        yield server


def judged_by(server: JudgeServer) -> dict[str, str]:
    return {"CEREBRAS_BASE_URL": server.url, "CEREBRAS_API_KEY": "test-key-0123456789"}


class Job:
    """A run with its own cache, repeated with changes."""

    def __init__(self, place: Workplace, folder: Path, server: JudgeServer) -> None:
        self.place = place
        self.folder = folder
        self.env = judged_by(server)
        self.data = place.questions(folder, 10)

    def __call__(self, *more: str | Path, adapter: Path | None = None, count: int = 6) -> Finished:
        return self.place.run(
            *("run", "--model", self.place.model, "--adapter", adapter or self.place.changing),
            *("--data", self.data, "--num-questions", str(count), "--max-tokens", "8"),
            *("--judge", "cerebras:some-model", "--cache", f"disk:{self.folder / 'cache'}"),
            *("--json", *more),
            env=self.env,
        )


@pytest.fixture
def job(place: Workplace, tmp_path: Path, server: JudgeServer) -> Job:
    return Job(place, tmp_path, server)


def computed(finished: Finished) -> tuple[int, int, int]:
    assert finished.status == 0, finished.err
    run = finished.json["run"]
    return (
        run["nodes"]["generation"]["computed"],
        run["nodes"]["judge"]["computed"],
        run["loads"],
    )


def test_a_second_run_computes_loads_and_connects_to_nothing(
    job: Job, server: JudgeServer, tmp_path: Path
) -> None:
    time.sleep(2.1)  # digests of younger files are not cached yet, and the next run stores them
    first = job()
    assert computed(first) == (6, 6, 1)
    assert server.calls == 6
    assert first.json["report"]["scored"] == 6
    assert 0 <= first.json["report"]["score"] <= 100
    connections = server.connections
    server.stop()
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys, atexit\n"
        "def tell():\n"
        "    heavy = {'mlx', 'mlx_lm', 'transformers', 'cerebras', 'httpx', 'numpy', 'asyncio'}\n"
        "    heavy |= {'inspect', 'dataclasses', 'hashlib', 'tomllib', 'random', 'shutil'}\n"
        "    print(sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
        "atexit.register(tell)\n"
        "def audit(event, args):\n"
        "    if event.startswith('socket.'): print('SOCKET', event, file=sys.stderr)\n"
        "sys.addaudithook(audit)\n"
        "from cachedeval.cli.main import main\n"
        "main()\n"
    )
    again = subprocess.run(
        [sys.executable, str(probe), *_arguments(job)],
        env=environment(job.env),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert again.stderr.strip() == "[]"
    second = Finished(again.returncode, again.stdout, again.stderr)
    assert computed(second) == (0, 0, 0)
    assert json.dumps(second.json["report"]) == json.dumps(first.json["report"])
    assert server.connections == connections


def _arguments(job: Job) -> list[str]:
    return [
        *("run", "--model", str(job.place.model), "--adapter", str(job.place.changing)),
        *("--data", str(job.data), "--num-questions", "6", "--max-tokens", "8"),
        *("--judge", "cerebras:some-model", "--cache", f"disk:{job.folder / 'cache'}", "--json"),
    ]


def test_only_what_changed_is_computed(job: Job, server: JudgeServer, tmp_path: Path) -> None:
    assert computed(job()) == (6, 6, 1)

    rubric = tmp_path / "mine.toml"
    rubric.write_text('[[criteria]]\nname = "accuracy"\ndescription = "It is right."\n')
    assert computed(job("--criteria", rubric)) == (0, 6, 0)
    rubric.write_text('[[criteria]]\nname = "accuracy"\ndescription = "It is true."\n')
    assert computed(job("--criteria", rubric)) == (0, 6, 0)

    with job.data.open("a") as file:
        file.write('{"question": "What is one more?", "answer": "this"}\n')
    again = computed(job(count=7))
    assert again[:2] == (1, 1)
    assert server.calls == 6 + 6 + 6 + 1


def test_an_adapter_that_answers_the_same_is_not_judged_again(job: Job, place: Workplace) -> None:
    base = place.run(
        *("run", "--model", place.model, "--data", job.data, "--num-questions", "6"),
        *("--max-tokens", "8", "--judge", "cerebras:some-model", "--json"),
        *("--cache", f"disk:{job.folder / 'cache'}"),
        env=job.env,
    )
    assert computed(base) == (6, 6, 1)
    assert base.json["report"]["adapter"] is None
    assert computed(job(adapter=place.same)) == (6, 0, 1)


def test_two_adapters_in_one_run_load_the_base_once(job: Job, place: Workplace) -> None:
    both = job("--adapter", place.other)
    assert computed(both)[0] == 12
    assert computed(both)[2] == 1
    first, second = both.json["reports"]
    assert (first["adapter"], second["adapter"]) == ("changing", "other")
    alone = job(adapter=place.other)
    assert computed(alone) == (0, 0, 0)
    assert alone.json["report"] == second


def test_another_seed_computes_only_questions_not_seen_before(job: Job) -> None:
    seen = {item["id"] for item in job().json["report"]["items"]}
    again = job("--seed", "7")
    new = {item["id"] for item in again.json["report"]["items"]} - seen
    assert computed(again)[:2] == (len(new), len(new))


def test_memory_disk_and_no_cache_give_the_same_report_bytes(job: Job, tmp_path: Path) -> None:
    reports = [
        json.dumps(job(*more).json["report"])
        for more in ([], ["--cache", "memory:"], ["--no-cache"], ["--refresh"])
    ]
    assert len(set(reports)) == 1
    fresh = tmp_path / "never"
    assert job("--cache", f"disk:{fresh}", "--no-cache").status == 0
    assert not list(fresh.glob("*.db"))


def test_failed_questions_are_shown_and_only_they_are_asked_again(
    place: Workplace, tmp_path: Path
) -> None:
    with JudgeServer(fail={"What is 3 plus 3": 400, "What is 5 plus 5": "malformed"}) as server:
        job = Job(place, tmp_path, server)
        job.data = place.questions(tmp_path, 6)
        broken = job()
        assert broken.status == 3
        report = broken.json["report"]
        assert (report["scored"], report["failed"]) == (4, 2)
        failed = [item for item in report["items"] if item["error"]]
        assert {item["question"][:17] for item in failed} == {
            "What is 3 plus 3?",
            "What is 5 plus 5?",
        }
        assert all(item["score"] is None for item in failed)
        assert report["failures"] == {"bad_request": 1, "bad_verdict": 1}
        assert report["score"] == pytest.approx(
            sum(item["score"] for item in report["items"] if not item["error"]) / 4, abs=1e-5
        )
        server.fail.clear()
        before = server.calls
        mended = job()
        assert computed(mended) == (0, 2, 0)
        assert server.calls == before + 2
        assert mended.json["report"]["failed"] == 0


def test_a_failure_that_ends_the_run_is_no_bad_input(place: Workplace, tmp_path: Path) -> None:
    with JudgeServer(fail={"What is": 400}) as server:
        done = Job(place, tmp_path, server)("--on-failure", "raise")
    assert (done.status, done.out) == (3, "")
    assert "answered 400" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_wrong_key_is_bad_input(place: Workplace, tmp_path: Path) -> None:
    with JudgeServer(fail={"What is": 401}) as server:
        done = Job(place, tmp_path, server)()
    assert (done.status, done.out) == (2, "")
    assert len(done.err.strip().splitlines()) == 1


def test_the_base_model_can_be_named_beside_adapters(job: Job, place: Workplace) -> None:
    found = job("--adapter", "base").json
    assert [report["adapter"] for report in found["reports"]] == ["changing", None]
    assert found["report"] == found["reports"][0]
    shown = place.run(
        *("run", "--model", place.model, "--data", job.data, "--num-questions", "6"),
        *("--max-tokens", "8", "--judge", "cerebras:some-model", "--adapter", "base"),
        *("--cache", f"disk:{job.folder / 'cache'}", "--offline"),
        env={"CEREBRAS_BASE_URL": job.env["CEREBRAS_BASE_URL"]},  # and no key
    )
    assert shown.out.startswith("base: ")


def test_names_and_errors_of_others_cannot_command_the_terminal(
    place: Workplace, tmp_path: Path
) -> None:
    adapter = tmp_path / "rude\x1b[2Jname"
    shutil.copytree(place.changing, adapter)
    rubric = tmp_path / "rude.toml"
    rubric.write_text(
        "".join(
            f'[[criteria]]\nname = "{name}\\u001b]0;owned\\u0007"\ndescription = "It is right."\n'
            for name in ("one", "two")
        )
    )
    with JudgeServer(fail={"What is 3 plus 3": 400}) as server:
        job = Job(place, tmp_path, server)
        job.data = place.questions(tmp_path, 6)
        arguments = _arguments(job)
        arguments.remove("--json")
        arguments[arguments.index("--adapter") + 1] = str(adapter)
        done = place.run(*arguments, "--criteria", rubric, env=judged_by(server))
        missing = place.run(*arguments[:-2], "--adapter", f"{adapter}-none", env=judged_by(server))
    assert done.status == 3
    assert done.out.startswith("rude\ufffd[2Jname: ")
    assert "one\ufffd]0;owned\ufffd" in done.out
    assert missing.status == 2
    assert not any(c in done.out + missing.err for c in "\x1b\x07")


def test_a_cache_that_cannot_be_opened_is_one_clean_warning(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "rude\x1b[2J"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "cache.db")) as database, database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    for more in ([], ["--verbose"]):
        done = job("--cache", f"disk:{folder}", *more)
        assert computed(done) == (6, 6, 1)
        assert "going on without a cache" in done.err
        assert "\x1b" not in done.err


def test_offline_names_what_is_missing(job: Job) -> None:
    assert "there is no such folder" in job("--offline").err
    (job.folder / "cache").mkdir()
    lacking = job("--offline")
    assert lacking.status == 2
    assert "6 of generation" in lacking.err
    assert "6 of judge;" in lacking.err
    assert computed(job())[0] == 6
    assert computed(job("--offline")) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--adapter", "nobody"], "nobody"),
        (["--data", "gone.jsonl"], "gone.jsonl"),
        (["--judge", "cerebras:"], "which model"),
        (["--judge", "oracle"], "oracle"),
        (["--criteria", "unheard-of"], "unheard-of"),
        (["--num-questions", "0"], "1 or more"),
        (["--max-tokens", "0"], "max_tokens"),
        (["--cache", "nosuch:thing"], "nosuch"),
        (["--cache", "./eval_cache"], "SCHEME"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    place: Workplace, tmp_path: Path, arguments: list[str], says: str
) -> None:
    given = {
        "--model": str(place.model),
        "--data": str(place.questions(tmp_path, 3)),
        "--judge": "f1",
        "--cache": "memory:",
        **dict([arguments]),
    }
    done = place.run("run", *(part for pair in given.items() for part in pair))
    assert done.status == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", ":2: not JSON"),
        ("[1]", ":2: it must be a JSON object"),
        ('{"quest": "x"}', ":2: no question in it"),
        ('{"question": "  "}', ":2: the question is empty"),
        ('{"question": ["x"]}', ":2: `question`"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', ":2: `messages`[0]"),
        ('{"text": "plain"}', ":2: a line of plain `text`"),
    ],
)
def test_a_bad_line_is_named(place: Workplace, tmp_path: Path, line: str, says: str) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text('{"question": "fine", "answer": "yes"}\n' + line + "\n")
    done = place.run("run", "--model", place.model, "--data", data, "--judge", "f1")
    assert done.status == 2
    assert f"bad.jsonl{says}" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_missing_key_is_an_error_before_the_model_is_loaded(
    place: Workplace, tmp_path: Path
) -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('mlx' in sys.modules))\n"
        "from cachedeval.cli.main import main\n"
        "main()\n"
    )
    arguments = [
        *("run", "--model", place.model, "--data", place.questions(tmp_path, 3)),
        *("--judge", "cerebras:some-model", "--cache", f"disk:{tmp_path / 'c'}"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "CEREBRAS_API_KEY" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_adapter_that_does_not_fit_its_base(place: Workplace, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "wide", hidden=128)
    done = place.run(
        *("run", "--model", other, "--adapter", place.changing, "--judge", "f1"),
        *("--data", place.questions(tmp_path, 3), "--cache", "memory:"),
    )
    assert done.status == 2
    assert "changing" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_rubric_without_criteria(place: Workplace, tmp_path: Path) -> None:
    rubric = tmp_path / "empty.toml"
    rubric.write_text('name = "empty"\n')
    done = place.run(
        *("run", "--model", place.model, "--data", place.questions(tmp_path, 3)),
        *("--judge", "cerebras:some-model", "--criteria", rubric),
    )
    assert done.status == 2
    assert "empty.toml" in done.err
    assert "criteria" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_done(
    place: Workplace, tmp_path: Path, number: signal.Signals
) -> None:
    with JudgeServer(latency=0.3) as server:
        job = Job(place, tmp_path, server)
        job.data = place.questions(tmp_path, 200)
        arguments = [*_arguments(job)]
        arguments[arguments.index("--num-questions") + 1] = "200"
        process = subprocess.Popen(
            command(arguments),
            env=environment(job.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while server.calls < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "interrupted" in err
        assert "Traceback" not in err
        answered = sum(got.status == 200 for got in server.requests)
        server.latency = 0.0
        before = server.calls
        again = job(count=200)
        assert again.status == 0
        asked = server.calls - before
        assert 200 - answered <= asked <= 200 - answered + 64
        assert again.json["report"]["scored"] == 200


def test_out_writes_the_report(job: Job, tmp_path: Path) -> None:
    done = job("--out", tmp_path / "reports")
    written = json.loads((tmp_path / "reports" / "changing.json").read_text())
    assert written == done.json["report"]


def test_gates_files_and_exit_status(job: Job, tmp_path: Path) -> None:
    done = job("--out", tmp_path)
    score = done.json["report"]["score"]
    summary, page, rows = tmp_path / "summary.md", tmp_path / "page.html", tmp_path / "rows.csv"
    files = ("--summary", summary, "--html", page, "--export", rows)
    baseline = tmp_path / "changing.json"
    passed = job(*files, "--fail-under", str(score), "--not-worse-than", baseline)
    assert passed.status == 0
    assert "fail-under passed" in passed.err
    assert "not-worse-than passed" in passed.err
    assert passed.json["run"]["nodes"]["generation"]["computed"] == 0
    assert summary.read_text("utf-8").count("✅") == 2
    assert "changing" in page.read_text("utf-8")
    assert len(rows.read_text("utf-8").splitlines()) > 6
    failed = job(*files, "--fail-under", str(min(100.0, score + 0.5)))
    assert failed.status == 1
    assert "fail-under failed" in failed.err
    assert failed.json["report"] == passed.json["report"]
    assert summary.read_text("utf-8").count("❌") == 1
    for wrong, message in (
        (("--not-worse-than", tmp_path / "none.json"), "cannot be read"),
        (("--margin", "2"), "--margin needs --not-worse-than"),
        (("--fail-under", "101"), "not from 0 to 100"),
        (("--export", tmp_path / "rows.pdf"), "its extension is none of"),
    ):
        refused = job(*wrong)
        assert refused.status == 2
        assert message in refused.err


def test_identity_follows_content(place: Workplace, tmp_path: Path, server: JudgeServer) -> None:
    job = Job(place, tmp_path, server)
    mine = tmp_path / "mine"
    shutil.copytree(place.changing, mine)
    assert computed(job(adapter=mine))[0] == 6
    moved = mine.rename(tmp_path / "moved")
    (moved / "README.md").write_text("notes")
    (moved / "0000100_adapters.safetensors").write_bytes(b"a checkpoint")
    assert computed(job(adapter=moved)) == (0, 0, 0)
    weights = moved / "adapters.safetensors"
    status = weights.stat()
    weights.write_bytes((place.other / "adapters.safetensors").read_bytes())
    assert weights.stat().st_size == status.st_size
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert computed(job(adapter=moved))[0] == 6


def test_people_get_text_and_a_pipe_gets_no_bar(place: Workplace, tmp_path: Path) -> None:
    done = place.run(
        *("run", "--model", place.model, "--adapter", "changing", "--max-tokens", "4"),
        *("--data", place.questions(tmp_path, 3), "--judge", "f1", "--cache", "memory:"),
    )
    assert done.status == 0
    assert done.err == ""
    assert re.match(r"changing: \d+\.\d, 95% interval \d+\.\d to \d+\.\d  \(3 scored", done.out)
    assert "generation: 3 calls" in done.out
