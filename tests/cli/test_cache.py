"""`cachedeval cache`, on a cache that real runs have filled."""

import contextlib
import json
import os
import pickle
import pty
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.evaluation import QUESTIONS, Evaluation
from support.workplace import Workplace, command, environment

from cachedeval import open_backend

pytestmark = pytest.mark.slow


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def filled(judged_once: Evaluation) -> Path:
    """A cache that one evaluation wrote and another read."""
    return judged_once.kept


@pytest.fixture
def cache(judged: Evaluation) -> Path:
    """A copy of it, to spoil."""
    return judged.kept


def look(place: Workplace, folder: Path, *arguments: str) -> Any:
    done = place.run("cache", *arguments, "--cache", f"disk:{folder}", "--json")
    assert done.err == ""
    return done.json


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def damage(folder: Path, count: int) -> list[str]:
    """Flip a bit in so many records; return their keys."""
    backend = open_backend(f"disk:{folder}")
    keys = sorted(entry.key for entry in backend.scan())[:count]
    for key, data in backend.get_many(keys).items():
        backend.put_many({key: data[:-1] + bytes([data[-1] ^ 1])})
    backend.close()
    return [key.hex() for key in keys]


def test_stats_count_records_hits_and_what_they_saved(place: Workplace, filled: Path) -> None:
    found = look(place, filled, "stats")
    nodes = found["nodes"]
    assert {name: (n["records"], n["hits"]) for name, n in nodes.items() if name != "files"} == {
        "render": (QUESTIONS, QUESTIONS),
        "decode": (QUESTIONS, QUESTIONS),
        "text": (QUESTIONS, QUESTIONS),
        "judge": (QUESTIONS, QUESTIONS),
        "judge_parse": (QUESTIONS, QUESTIONS),
        "adapter_effect": (1, 1),
        "identities": (5, 0),
        "batch_proof": (1, 0),
    }
    assert nodes["decode"]["saved"]["seconds"] > 0
    assert nodes["judge"]["saved"]["prompt_tokens"] > 0
    tokens = nodes["judge"]["saved"]
    wanted = (tokens["prompt_tokens"] * 0.35 + tokens["completion_tokens"] * 0.75) / 1e6
    assert found["saved"]["usd"] == pytest.approx(wanted)
    assert found["records"] == sum(node["records"] for node in nodes.values())
    assert found["bytes"] == sum(node["bytes"] for node in nodes.values())
    assert found["corrupt"] == 0
    shown = place.run("cache", "stats", "--cache", f"disk:{filled}")
    assert (shown.status, shown.err) == (0, "")
    assert f"disk:{filled}: {found['records']} records" in shown.out
    assert "(file)" not in shown.out
    assert "saved at list prices: $" in shown.out


def test_stats_change_nothing(place: Workplace, filled: Path) -> None:
    assert look(place, filled, "stats") == look(place, filled, "stats")


def test_ls_lists_by_step_the_newest_first(place: Workplace, filled: Path) -> None:
    lines = look(place, filled, "ls")
    assert len(lines) == look(place, filled, "stats")["records"]
    answers = [line for line in lines if line["node"] == "render"]
    assert len(answers) == QUESTIONS
    assert [line["created"] for line in answers] == sorted(
        (line["created"] for line in answers), reverse=True
    )
    assert all("🧮 → " in line["summary"] for line in answers)
    assert all(line["hits"] == 1 and line["used"] >= line["created"] for line in answers)
    shown = place.run("cache", "ls", "--cache", f"disk:{filled}")
    assert shown.status == 0
    assert len(shown.out.splitlines()) == len(lines) + 1
    assert "identities" in shown.out.splitlines()[-1]


def test_ls_filters_by_step_and_limits_the_records(place: Workplace, filled: Path) -> None:
    shown = place.run(
        "cache", "ls", "--node", "decode", "--limit", "2", "--cache", f"disk:{filled}"
    )
    lines = shown.out.splitlines()
    assert len(lines) == 1 + 2 + 1
    assert lines[-1] == f"… and {QUESTIONS - 2} more of decode; --limit 0 shows all"
    assert len(look(place, filled, "ls", "--limit", "1", "--node", "decode")) == 1
    unknown = place.run("cache", "ls", "--node", "jury", "--cache", f"disk:{filled}")
    assert unknown.status == 2
    assert "no records of a step 'jury'; there are " in unknown.err


def test_verify_finds_corrupt_records_and_deletes_them(place: Workplace, cache: Path) -> None:
    whole = look(place, cache, "stats")["records"]
    assert look(place, cache, "verify")["good"] == whole
    keys = damage(cache, 3)
    done = place.run("cache", "verify", "--cache", f"disk:{cache}")
    assert (done.status, done.err) == (3, "")
    assert f"{whole - 3} good" in done.out
    assert all(f"corrupt {key}" in done.out for key in keys)
    # It warns if it meets one: where it reads what a result cost.
    stats = place.run("cache", "stats", "--json", "--cache", f"disk:{cache}")
    assert stats.json["corrupt"] == 3
    deleted = place.run("cache", "verify", "--delete", "--json", "--cache", f"disk:{cache}")
    assert deleted.status == 0
    assert deleted.json["deleted"] == 3
    assert sorted(fault["key"] for fault in deleted.json["faults"]) == keys
    again = place.run("cache", "verify", "--json", "--cache", f"disk:{cache}")
    assert (again.status, again.json["good"], again.json["corrupt"]) == (0, whole - 3, 0)


def test_a_cache_of_pickles_is_all_corrupt_and_none_is_run(
    place: Workplace, cache: Path, tmp_path: Path
) -> None:
    whole = look(place, cache, "stats")["records"]
    made = tmp_path / "made"
    bomb = pickle.dumps(Bomb(made))
    pickle.loads(bomb)  # noqa: S301  to see that it is a real one
    made.rmdir()
    with contextlib.closing(sqlite3.connect(cache / "cache.db")) as database, database:
        # In all the ways in which diskcache keeps pickles: as values, as keys, and both.
        database.execute("UPDATE Cache SET mode = 4, value = ?", (bomb,))
        database.execute("UPDATE Cache SET raw = 0 WHERE rowid % 2", ())
        database.execute("UPDATE Cache SET key = ? WHERE rowid = 1", (bomb,))
    assert look(place, cache, "stats")["corrupt"] == whole
    done = place.run("cache", "verify", "--json", "--cache", f"disk:{cache}")
    assert (done.status, done.err) == (3, "")
    assert (done.json["good"], done.json["corrupt"], done.json["foreign"]) == (0, whole, 0)
    listed = look(place, cache, "ls")
    assert [line["node"] for line in listed] == ["(corrupt)"] * whole
    deleted = place.run("cache", "verify", "--delete", "--json", "--cache", f"disk:{cache}")
    assert (deleted.status, deleted.json["deleted"]) == (0, whole)
    assert look(place, cache, "verify")["corrupt"] == 0
    with contextlib.closing(sqlite3.connect(cache / "cache.db")) as database:
        assert database.execute("SELECT count(*) FROM Cache").fetchall() == [(0,)]
    assert not made.exists()


def test_prune_honours_age_and_size_and_a_dry_run_deletes_nothing(
    place: Workplace, cache: Path
) -> None:
    whole = look(place, cache, "stats")
    dry = look(place, cache, "prune", "--max-size", "3KB", "--dry-run")
    assert dry["dry_run"] is True
    assert dry["deleted"] + dry["kept"] == whole["records"]
    assert 0 < dry["kept_bytes"] <= 3 * 1024
    assert look(place, cache, "stats") == whole
    assert look(place, cache, "prune", "--older-than", "1d")["deleted"] == 0
    real = look(place, cache, "prune", "--max-size", "3KB")
    assert {**real, "dry_run": True} == dry
    assert look(place, cache, "stats")["bytes"] == real["kept_bytes"]
    assert look(place, cache, "prune", "--older-than", "0s")["kept"] == 0


def test_prune_needs_a_limit(place: Workplace, filled: Path) -> None:
    done = place.run("cache", "prune", "--cache", f"disk:{filled}")
    assert done.status == 2
    assert "give --older-than, --max-size, or both" in done.err


def test_clear_asks_and_needs_yes_in_a_pipe(place: Workplace, cache: Path) -> None:
    done = place.run("cache", "clear", "--cache", f"disk:{cache}")
    assert done.status == 2
    assert "give --yes" in done.err
    assert look(place, cache, "stats")["records"] > 0
    done = place.run("cache", "clear", "--yes", "--json", "--cache", f"disk:{cache}")
    assert done.status == 0
    assert done.json["kept"] == 0
    assert look(place, cache, "stats")["records"] == 0


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("y\n", False)])
def test_clear_on_a_terminal_follows_the_answer(
    place: Workplace,
    cache: Path,
    answer: str,
    left: bool,  # noqa: FBT001  pytest names it
) -> None:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        command(["cache", "clear", "--cache", f"disk:{cache}"]),
        cwd=place.root,
        env=environment(),
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(terminal, answer.encode())
        out, err = process.communicate(timeout=60)
    os.close(end)
    os.close(terminal)
    assert process.returncode == 0
    assert "Delete " in err
    assert ("nothing is deleted" in err) == left
    assert ("deleted" in out) != left
    assert (look(place, cache, "stats")["records"] > 0) == left


@pytest.mark.parametrize(
    "arguments",
    [["stats"], ["ls"], ["verify"], ["prune", "--max-size", "1GB"], ["clear", "--yes"]],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_cache_is_an_error_and_is_not_created(
    place: Workplace, tmp_path: Path, arguments: list[str]
) -> None:
    done = place.run("cache", *arguments, "--cache", f"disk:{tmp_path}/none", cwd=tmp_path)
    assert done.status == 2
    assert done.out == ""
    assert done.err == (
        f"cachedeval: cache disk:{tmp_path}/none: there is no such folder; the first run creates it\n"
    )
    assert tree(tmp_path) == set()


def test_looking_at_an_empty_folder_puts_nothing_there(place: Workplace, tmp_path: Path) -> None:
    assert look(place, tmp_path, "stats")["records"] == 0
    assert look(place, tmp_path, "ls") == []
    assert look(place, tmp_path, "verify")["good"] == 0
    assert look(place, tmp_path, "prune", "--max-size", "0")["deleted"] == 0
    assert tree(tmp_path) == set()


def test_a_cache_that_cannot_be_opened_is_one_line(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    other = tmp_path / "other"
    other.mkdir()
    with contextlib.closing(sqlite3.connect(other / "cache.db")) as database, database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    for url in (f"disk:{tmp_path}/file", f"disk:{other}", "nowhere:x", "eval_cache"):
        done = place.run("cache", "stats", "--cache", url)
        assert done.status == 2
        assert done.err.startswith("cachedeval: ")
        assert done.err.count("\n") == 1


def test_what_a_model_wrote_cannot_command_the_terminal(place: Workplace, tmp_path: Path) -> None:
    url = f"disk:{tmp_path / 'cache'}"
    script = (
        "from cachedeval import Engine, node\n"
        "@node(version='1', name='rude')\n"
        "def rude(x: int) -> str: return 'a\\x1b[2Jb\\x07'\n"
        f"with Engine({url!r}) as engine: engine.run(rude(1))\n"
    )
    (tmp_path / "rude.py").write_text(script)
    subprocess.run([*command([])[:1], tmp_path / "rude.py"], check=True, env=environment())
    shown = place.run("cache", "ls", "--cache", url)
    assert "a\ufffd[2Jb\ufffd" in shown.out
    assert "\x1b" not in shown.out
    assert json.loads(place.run("cache", "ls", "--json", "--cache", url).out)[0]["summary"] == (
        "a\x1b[2Jb\x07"
    )


def test_one_record_is_shown(place: Workplace, filled: Path) -> None:
    line = next(x for x in look(place, filled, "ls") if x["node"] == "render")
    found = look(place, filled, "show", line["key"][:16])
    assert (found["key"], found["node"], found["hits"]) == (line["key"], "render", 1)
    assert "messages" in found["inputs"]
    assert found["seconds"] > 0
    shown = place.run("cache", "show", line["key"], "--cache", f"disk:{filled}")
    assert (shown.status, shown.err) == (0, "")
    assert "step        render" in shown.out
    missing = place.run("cache", "show", "0" * 32, "--cache", f"disk:{filled}")
    assert missing.status == 2
    assert "no record with the key" in missing.err


def test_records_are_filtered_by_step_and_by_last_use(place: Workplace, cache: Path) -> None:
    assert set(look(place, cache, "stats", "--node", "judge")["nodes"]) == {"judge"}
    assert look(place, cache, "stats", "--unused-since", "1d")["records"] == 0
    assert look(place, cache, "ls", "--tag", "nobody") == []
    whole = look(place, cache, "stats")["records"]
    assert look(place, cache, "prune", "--node", "judge_parse")["deleted"] == QUESTIONS
    assert look(place, cache, "clear", "--yes", "--node", "judge")["deleted"] == QUESTIONS
    assert look(place, cache, "clear", "--yes", "--unused-since", "1d")["deleted"] == 0
    assert look(place, cache, "stats")["records"] == whole - 2 * QUESTIONS


def test_a_size_without_a_unit_deletes_nothing(place: Workplace, filled: Path) -> None:
    done = place.run("cache", "prune", "--max-size", "2", "--cache", f"disk:{filled}")
    assert done.status == 2
    assert "'2' has no unit; give 2GB, 2MB or 2B" in done.err
