import os
import time
from pathlib import Path

import pytest

from cachedeval.engine import digest_cache


def test_a_digest_is_reused_for_the_same_stat_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    status = path.stat()
    key, value = digest_cache.entry("content", status, "xxh3:abc")
    assert len(key) == 16
    assert digest_cache.recalled("content", status, value) == "xxh3:abc"
    assert digest_cache.recalled("sha256", status, value) is None
    assert digest_cache.recalled("content", status, None) is None
    assert digest_cache.recalled("content", status, b"") is None
    other = tmp_path / "other"
    other.write_bytes(b"one")
    assert digest_cache.recalled("content", other.stat(), value) is None


def test_a_collision_of_keys_is_no_hit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    (tmp_path / "other").write_bytes(b"two")
    _, value = digest_cache.entry("content", (tmp_path / "file").stat(), "xxh3:abc")
    assert digest_cache.recalled("content", (tmp_path / "other").stat(), value) is None


def test_each_part_of_the_stat_is_in_the_key(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    keys = {
        digest_cache.entry("content", path.stat())[0],
        digest_cache.entry("sha256", path.stat())[0],
    }
    os.utime(path, ns=(1, 1))  # another mtime, and another ctime
    keys.add(digest_cache.entry("content", path.stat())[0])
    time.sleep(0.02)
    path.chmod(0o600)  # another ctime alone
    keys.add(digest_cache.entry("content", path.stat())[0])
    assert len(keys) == 4


def test_another_machine_has_other_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    key, value = digest_cache.entry("content", path.stat(), "xxh3:abc")
    monkeypatch.setattr(digest_cache, "_machine", lambda: "another")
    assert digest_cache.entry("content", path.stat())[0] != key
    assert digest_cache.recalled("content", path.stat(), value) is None


def test_the_machine_is_its_id_and_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = digest_cache._machine.__wrapped__
    ids = tmp_path / "machine-id"
    monkeypatch.setattr(digest_cache, "_MACHINE_ID_FILES", (ids,))
    without = machine()
    ids.write_text("0123\n")
    assert machine() != without
    assert machine() == machine()


@pytest.mark.parametrize(
    ("age_s", "young"), [(0, True), (1.9, True), (2.1, False), (9999, False), (-3600, True)]
)
def test_the_young_file_rule(tmp_path: Path, age_s: float, *, young: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    status = path.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    assert digest_cache.is_young(status, changed + int(age_s * 1e9)) is young


def test_a_restored_mtime_makes_no_file_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 0))
    assert digest_cache.is_young(path.stat(), time.time_ns())


def test_an_mtime_in_the_future_is_young(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    later = time.time_ns() + 10**13
    os.utime(path, ns=(later, later))
    assert digest_cache.is_young(path.stat(), time.time_ns() + 10**12)
