"""`cachedeval doctor`, on the machine that the tests run on."""

from pathlib import Path

from support.workplace import Workplace

KEY = "csk-a-secret-that-is-told-nobody"


def test_all_is_checked_and_nothing_left_behind(place: Workplace, tmp_path: Path) -> None:
    done = place.run(
        *("doctor", "--model", place.model, "--judge", "cerebras:m", "--json"),
        env={"CEREBRAS_API_KEY": KEY},
        cwd=tmp_path,
    )
    found = {check["name"]: check for check in done.json}
    assert (done.status, done.err) == (0, "")
    assert {"versions", "packages", "device", "model", "judge", "cache", "disk"} <= set(found)
    assert {check["state"] for check in found.values()} <= {"ok", "warn"}
    assert found["judge"]["found"] == "cerebras:m: key set"
    assert KEY not in done.out
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_says_what_to_do(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = place.run(
        *("doctor", "--model", tmp_path / "none", "--judge", "cerebras:m"),
        *("--cache", f"disk:{tmp_path / 'file'}"),
    )
    assert (done.status, done.err) == (2, "")
    lines = done.out.splitlines()
    failed = {line.split()[1] for line in lines if line.startswith("fail")}
    assert failed == {"model", "judge", "cache"}
    assert any("set CEREBRAS_API_KEY" in line for line in lines)
