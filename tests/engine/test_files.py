import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachedeval.engine import digest_cache, files, hashing
from cachedeval.engine.errors import InputError
from cachedeval.engine.hashing import digest_bytes


class CountingMemo(digest_cache.ProcessDigestCache):
    """A digest cache that counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: list[int] = []
        self.puts: list[int] = []

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, bytes]:
        self.gets.append(len(keys))
        return super().get_many(keys)

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        self.puts.append(len(items))
        super().put_many(items)


@pytest.fixture
def known_digests() -> CountingMemo:
    return CountingMemo()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in order."""
    names: list[str] = []
    read = hashing._read_steady

    def noted(path: Path, how: Callable[[int, int], Any]) -> tuple[Any, os.stat_result]:
        names.append(path.name)
        return read(path, how)

    monkeypatch.setattr(hashing, "_read_steady", noted)
    return names


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files old as soon as they are written, so that a test need not wait."""
    monkeypatch.setattr(digest_cache, "GRAIN_NS", 0)


@pytest.mark.usefixtures("old")
def test_an_unchanged_file_is_read_once(
    tmp_path: Path, known_digests: CountingMemo, reads: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    for _ in range(3):
        assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"one")
    assert reads == ["file"]


def test_without_a_memo_a_file_is_read_each_time(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert files.digest_file(str(path)) == files.digest_file(path) == digest_bytes(b"one")
    assert reads == ["file", "file"]


def test_a_young_file_is_neither_remembered_nor_recalled(
    tmp_path: Path, known_digests: CountingMemo, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    for _ in range(2):
        assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"one")
    assert (known_digests.gets, known_digests.puts, reads) == ([], [], ["file"] * 2)

    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + digest_cache.GRAIN_NS)  # it grows old
    for _ in range(2):
        assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"one")
    assert (known_digests.gets, known_digests.puts, reads) == ([1, 1], [1], ["file"] * 3)

    monkeypatch.setattr(time, "time_ns", lambda: clock() - 10**12)  # the clock is set back
    assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"one")
    assert (known_digests.gets, known_digests.puts, reads) == ([1, 1], [1], ["file"] * 4)


@pytest.mark.usefixtures("old")
def test_a_file_changed_in_place_with_size_and_mtime_restored_is_seen(
    tmp_path: Path, known_digests: CountingMemo
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = path.stat()
    assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"one")
    time.sleep(0.02)  # a tick of the file system's clock
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"two")


@pytest.mark.usefixtures("old")
def test_changed_twice_within_the_grain_is_seen(
    tmp_path: Path, known_digests: CountingMemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rule is for: the second change leaves the stat as it was."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    status = path.stat()
    key, value = digest_cache.entry("content", status, digest_bytes(b"stale"))
    known_digests.put_many({key: value})
    assert files.digest_file(path, known_digests=known_digests) == digest_bytes(
        b"stale"
    )  # were there no rule
    monkeypatch.setattr(digest_cache, "GRAIN_NS", 2_000_000_000)
    assert files.digest_file(path, known_digests=known_digests) == digest_bytes(b"one")


@pytest.mark.usefixtures("old")
def test_the_manifest_looks_everything_up_at_once(
    tmp_path: Path, known_digests: CountingMemo, reads: list[str]
) -> None:
    names = [f"{index}.bin" for index in range(10)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    first = files.manifest(tmp_path, names, known_digests=known_digests)
    assert files.manifest(tmp_path, reversed(names), known_digests=known_digests) == first
    assert first == [
        files.FileEntry(name, 5, digest_bytes(name.encode())) for name in sorted(names)
    ]
    assert (known_digests.gets, known_digests.puts, len(reads)) == ([10, 10], [10], 10)


def test_the_manifest_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    one = tmp_path / "one"
    (one / "below").mkdir(parents=True)
    (one / "a").write_bytes(b"a")
    (one / "below" / "b 📦").write_bytes(b"b")
    names = ["a", "below/b 📦"]
    digest = files.manifest_digest(files.manifest(one, names))
    two = shutil.copytree(one, tmp_path / "two")
    (tmp_path / "linked").symlink_to(two)
    (tmp_path / "links" / "below").mkdir(parents=True)
    for name in names:
        (tmp_path / "links" / name).symlink_to(two / name)
        os.utime(one / name)
    for folder in (one, two, tmp_path / "linked", tmp_path / "links"):
        assert files.manifest_digest(files.manifest(folder, names)) == digest


def test_names_and_contents_are_distinct_in_a_manifest() -> None:
    def digest(*entries: tuple[str, int, str]) -> str:
        return files.manifest_digest(files.FileEntry(*entry) for entry in entries)

    assert digest(("a", 1, "x"), ("b", 1, "y")) == digest(("b", 1, "y"), ("a", 1, "x"))
    different = [
        digest(),
        digest(("a", 1, "x")),
        digest(("a", 1, "y")),
        digest(("a", 2, "x")),
        digest(("a1", 1, "x")),
        digest(("a", 11, "x")),
        digest(("a", 1, "x"), ("b", 1, "y")),
        digest(("a", 1, "y"), ("b", 1, "x")),
        digest((os.fsdecode(b"\xe9"), 1, "x")),
    ]
    assert len(set(different)) == len(different)
    assert digest(("a", 1, "x")) == "xxh3:3bc11d8f61e1fe70c9f3e068ed87be86"


@pytest.mark.usefixtures("old")
def test_what_was_read_before_a_failure_is_remembered(
    tmp_path: Path, known_digests: CountingMemo, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    digest_of = hashing.content_digest

    def failing(path: Path) -> tuple[str, os.stat_result]:
        if path.name == "b":
            message = "b: changes while it is read"
            raise InputError(message)
        return digest_of(path)

    with monkeypatch.context() as patch:
        patch.setattr(hashing, "content_digest", failing)
        with pytest.raises(InputError):
            files.manifest(tmp_path, ["a", "b"], known_digests=known_digests)
    files.manifest(tmp_path, ["a", "b"], known_digests=known_digests)
    assert reads == ["a", "b"]


def test_a_missing_file_is_found_out_before_any_is_read(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(InputError, match="gone: no such file"):
        files.manifest(tmp_path, ["a", "gone"])
    assert reads == []


@pytest.mark.usefixtures("old")
def test_a_link_that_names_its_target_s_sha256_spares_the_read(
    tmp_path: Path, reads: list[str], known_digests: CountingMemo
) -> None:
    """As long as the target has not changed since the link was made."""
    named = "ab" * 32
    target = tmp_path / "target"
    target.write_bytes(b"one")
    link = tmp_path / "link"
    link.symlink_to(target)

    def digest(path: Path) -> str:
        return files.digest_file(path, known_digests=known_digests, linked_sha256=lambda _: named)

    assert digest(link) == f"sha256:{named}"
    assert reads == []
    assert files.digest_file(link, linked_sha256=lambda _: None) == digest_bytes(b"one")
    assert digest(target) == digest_bytes(b"one")  # no link: nothing names it
    time.sleep(0.02)
    target.write_bytes(b"two")
    assert digest(link) == f"sha256:{hashlib.sha256(b'two').hexdigest()}"
    assert reads == ["link", "target", "link"]
