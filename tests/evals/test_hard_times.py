"""Evaluations while things go wrong around them: processes that die, disks that fill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.judge_server import JudgeServer
from support.workplace import Finished, Workplace, command, environment

pytestmark = pytest.mark.slow

KEY = "csk-secret-0123456789abcdef"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


def arguments(place: Workplace, data: Path, cache: Path, count: int) -> list[str]:
    return [
        *("run", "--model", str(place.model), "--adapter", str(place.changing), "--json"),
        *("--data", str(data), "--num-questions", str(count), "--max-tokens", "8"),
        *("--judge", "cerebras:m", "--cache", f"disk:{cache}"),
    ]


def env_of(server: JudgeServer) -> dict[str, str]:
    return environment({"CEREBRAS_BASE_URL": server.url, "CEREBRAS_API_KEY": KEY})


def start(given: list[str], server: JudgeServer) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(given),
        env=env_of(server),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> Finished:
    out, err = process.communicate(timeout=100)
    return Finished(process.returncode, out, err)


def run(given: list[str], server: JudgeServer) -> Finished:
    return end(start(given, server))


def wait_for_answers(server: JudgeServer, answers: int) -> None:
    deadline = time.monotonic() + 90
    while sum(got.status == 200 for got in list(server.requests)) < answers:
        assert time.monotonic() < deadline, "the judge was not asked in time"
        time.sleep(0.01)


def test_four_processes_at_once_compute_each_step_once(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 40)
    with JudgeServer(latency=0.05) as server:
        given = arguments(place, data, tmp_path / "cache", 40)
        done = [end(process) for process in [start(given, server) for _ in range(4)]]
        assert [one.status for one in done] == [0] * 4, [one.err for one in done]
        assert server.calls == 40
    generations = [one.json["run"]["nodes"]["generation"]["computed"] for one in done]
    assert sum(generations) == 40
    assert len({json.dumps(one.json["report"]) for one in done}) == 1


def test_one_of_four_killed_at_half(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 40)
    with JudgeServer(latency=0.3) as server:
        given = arguments(place, data, tmp_path / "cache", 40)
        processes = [start(given, server) for _ in range(4)]
        wait_for_answers(server, 20)
        processes[0].kill()
        end(processes[0])
        done = [end(process) for process in processes[1:]]
        assert [one.status for one in done] == [0] * 3, [one.err for one in done]
        # What the killed one had asked and not yet kept is asked once more, and nothing else.
        assert 40 <= server.calls <= 40 + 32
    assert len({json.dumps(one.json["report"]) for one in done}) == 1


def test_a_killed_run_goes_on_where_it_was(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 30)
    given = arguments(place, data, tmp_path / "cache", 30)
    with JudgeServer(latency=0.1) as server:
        process = start(given, server)
        wait_for_answers(server, 10)
        process.send_signal(signal.SIGKILL)
        end(process)
        before = server.calls
        done = run(given, server)
        assert done.status == 0
        assert done.json["report"]["scored"] == 30
        computed = done.json["run"]["nodes"]["judge"]["computed"]
        assert server.calls - before == computed < 30


def test_the_key_is_nowhere(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 4)
    given = arguments(place, data, tmp_path / "cache", 4)
    with JudgeServer(fail={"What is 2 plus 2": 400}) as server:
        done = run([*given, "--verbose", "--out", str(tmp_path / "out")], server)
    assert done.status == 3
    assert KEY not in done.out
    assert KEY not in done.err
    for folder in ("cache", "out"):
        for path in (tmp_path / folder).rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    with JudgeServer(api_key="another") as server:
        refused = run([*given[:-1], "memory:", "--verbose"], server)
    assert refused.status == 2
    assert KEY not in refused.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def warnings_in(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.strip()]


def test_a_full_disk_is_one_warning(place: Workplace, tmp_path: Path, small_disk: Path) -> None:
    data = place.questions(tmp_path, 6)
    (small_disk / "filler").write_bytes(b"x" * 900_000)
    with JudgeServer() as server:
        expected = run(arguments(place, data, tmp_path / "fine", 6), server)
        done = run(arguments(place, data, small_disk / "cache", 6), server)
    assert done.status == 0
    assert done.json["report"] == expected.json["report"]
    assert len(warnings_in(done.err)) == 1, done.err


def test_a_folder_removed_at_half(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 30)
    cache = tmp_path / "cache"
    with JudgeServer(latency=0.1) as server:
        process = start(arguments(place, data, cache, 30), server)
        wait_for_answers(server, 10)
        shutil.rmtree(cache, ignore_errors=True)
        done = end(process)
        expected = run(arguments(place, data, tmp_path / "fine", 30), server)
    assert done.status == 0, done.err
    assert done.json["report"] == expected.json["report"]
    assert len(warnings_in(done.err)) <= 1, done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount takes root")
def test_a_read_only_cache_serves_its_hits(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 8)
    cache = tmp_path / "cache"
    with JudgeServer() as server:
        assert run(arguments(place, data, cache, 6), server).status == 0
        bound = subprocess.run(
            ["mount", "--bind", str(cache), str(cache)], capture_output=True, check=False
        )
        if bound.returncode != 0:
            pytest.skip("no right to mount here")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(cache)], check=True)
            before = server.calls
            hits = run(arguments(place, data, cache, 6), server)
            assert hits.status == 0, hits.err
            assert server.calls == before
            more = run(arguments(place, data, cache, 8), server)
            assert more.status == 0, more.err
            assert server.calls == before + 2
            assert len(warnings_in(more.err)) == 1, more.err
        finally:
            subprocess.run(["umount", "-l", str(cache)], check=True)


def test_a_prune_during_an_evaluation(place: Workplace, tmp_path: Path) -> None:
    data = place.questions(tmp_path, 60)
    cache = tmp_path / "cache"
    with JudgeServer(latency=0.02) as server:
        process = start(arguments(place, data, cache, 60), server)
        wait_for_answers(server, 10)
        pruned = []
        with ThreadPoolExecutor(1) as threads:
            ended = threads.submit(end, process)  # it reads the output: a full pipe would stop it
            while not ended.done():
                pruned.append(
                    place.run("cache", "prune", "--max-size", "20KB", "--cache", f"disk:{cache}")
                )
            done = ended.result()
    assert done.status == 0, done.err
    assert done.json["report"]["scored"] == 60
    assert all(one.status == 0 for one in pruned), [one.err for one in pruned]
    assert warnings_in(done.err) == []


@pytest.mark.parametrize("name", ["a cache with spaces", "🗃️ ünï", "per%cent#hash?mark"])
def test_odd_cache_paths(place: Workplace, tmp_path: Path, name: str) -> None:
    data = place.questions(tmp_path, 3)
    with JudgeServer() as server:
        given = arguments(place, data, tmp_path / name, 3)
        assert run(given, server).status == 0
        assert run(given, server).json["run"]["nodes"]["judge"]["hits"] == 3
        link = tmp_path / "link"
        link.symlink_to(tmp_path / name)
        linked = run(arguments(place, data, link, 3), server)
        assert linked.json["run"]["nodes"]["judge"]["hits"] == 3
