import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.hub_cache import add_snapshot

from cachedeval.engine import digest_cache, files, hashing
from cachedeval.engine.errors import InputError
from cachedeval.engine.hashing import digest_bytes


class CountingMemo(digest_cache.ProcessMemo):
    """A memo that counts the calls."""

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
def memo() -> CountingMemo:
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
    tmp_path: Path, memo: CountingMemo, reads: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    for _ in range(3):
        assert files.digest_file(path, memo=memo) == digest_bytes(b"one")
    assert reads == ["file"]


def test_without_a_memo_a_file_is_read_each_time(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert files.digest_file(str(path)) == files.digest_file(path) == digest_bytes(b"one")
    assert reads == ["file", "file"]


def test_a_young_file_is_neither_remembered_nor_recalled(
    tmp_path: Path, memo: CountingMemo, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    for _ in range(2):
        assert files.digest_file(path, memo=memo) == digest_bytes(b"one")
    assert (memo.gets, memo.puts, reads) == ([], [], ["file"] * 2)

    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + digest_cache.GRAIN_NS)  # it grows old
    for _ in range(2):
        assert files.digest_file(path, memo=memo) == digest_bytes(b"one")
    assert (memo.gets, memo.puts, reads) == ([1, 1], [1], ["file"] * 3)

    monkeypatch.setattr(time, "time_ns", lambda: clock() - 10**12)  # the clock is set back
    assert files.digest_file(path, memo=memo) == digest_bytes(b"one")
    assert (memo.gets, memo.puts, reads) == ([1, 1], [1], ["file"] * 4)


@pytest.mark.usefixtures("old")
def test_a_file_changed_in_place_with_size_and_mtime_restored_is_seen(
    tmp_path: Path, memo: CountingMemo
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = path.stat()
    assert files.digest_file(path, memo=memo) == digest_bytes(b"one")
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
    assert files.digest_file(path, memo=memo) == digest_bytes(b"two")


@pytest.mark.usefixtures("old")
def test_changed_twice_within_the_grain_is_seen(
    tmp_path: Path, memo: CountingMemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rule is for: the second change leaves the stat as it was."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    status = path.stat()
    key, value = digest_cache.entry("content", status, digest_bytes(b"stale"))
    memo.put_many({key: value})
    assert files.digest_file(path, memo=memo) == digest_bytes(b"stale")  # were there no rule
    monkeypatch.setattr(digest_cache, "GRAIN_NS", 2_000_000_000)
    assert files.digest_file(path, memo=memo) == digest_bytes(b"one")


@pytest.mark.usefixtures("old")
def test_the_manifest_looks_everything_up_at_once(
    tmp_path: Path, memo: CountingMemo, reads: list[str]
) -> None:
    names = [f"{index}.bin" for index in range(10)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    first = files.manifest(tmp_path, names, memo=memo)
    assert files.manifest(tmp_path, reversed(names), memo=memo) == first
    assert first == [
        files.FileEntry(name, 5, digest_bytes(name.encode())) for name in sorted(names)
    ]
    assert (memo.gets, memo.puts, len(reads)) == ([10, 10], [10], 10)


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


def test_names_and_contents_are_told_apart_in_a_manifest() -> None:
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
    tmp_path: Path, memo: CountingMemo, reads: list[str], monkeypatch: pytest.MonkeyPatch
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
            files.manifest(tmp_path, ["a", "b"], memo=memo)
    files.manifest(tmp_path, ["a", "b"], memo=memo)
    assert reads == ["a", "b"]


def test_a_missing_file_is_found_out_before_any_is_read(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(InputError, match="gone: no such file"):
        files.manifest(tmp_path, ["a", "gone"])
    assert reads == []


LARGE = os.urandom(1 << 17)


@pytest.mark.parametrize("shared", [False, True])
def test_a_large_file_of_the_hub_s_cache_is_known_unread(
    tmp_path: Path, reads: list[str], *, shared: bool
) -> None:
    contents = {"model.safetensors": LARGE, "config.json": b"{}", "sub/big.bin": LARGE + b"!"}
    snapshot = add_snapshot(tmp_path / "hub", "org/name", contents, shared=shared)
    found = {entry.path: entry for entry in files.manifest(snapshot, contents)}
    assert found["model.safetensors"].digest == f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
    assert found["model.safetensors"].size == len(LARGE)
    assert found["sub/big.bin"].digest == f"sha256:{hashlib.sha256(LARGE + b'!').hexdigest()}"
    assert found["config.json"].digest == digest_bytes(b"{}")
    assert reads == ["config.json"]
    (tmp_path / "link").symlink_to(snapshot)
    assert files.manifest(tmp_path / "link", contents) == list(found.values())


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("shared", [False, True])
def test_a_blob_trained_in_place_is_another_file(
    tmp_path: Path, memo: CountingMemo, reads: list[str], *, shared: bool
) -> None:
    contents = {"model.safetensors": LARGE}
    path = add_snapshot(tmp_path, "org/name", contents, shared=shared) / "model.safetensors"
    before = path.stat()
    time.sleep(0.02)
    changed = b"changed" + LARGE[7:]
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        digest = files.digest_file(path, memo=memo)
        assert digest == f"sha256:{hashlib.sha256(changed).hexdigest()}"
    assert reads == ["model.safetensors"]


def test_a_cache_that_was_copied_or_touched_keeps_its_digests(
    tmp_path: Path, reads: list[str]
) -> None:
    contents = {"model.safetensors": LARGE}
    snapshot = add_snapshot(tmp_path / "one", "org/name", contents)
    before = files.manifest(snapshot, contents)
    assert reads == []
    copy = shutil.copytree(tmp_path / "one", tmp_path / "two", symlinks=True)
    assert files.manifest(copy / snapshot.relative_to(tmp_path / "one"), contents) == before
    time.sleep(0.02)
    (snapshot / "model.safetensors").touch()
    assert files.manifest(snapshot, contents) == before


@pytest.mark.parametrize("wrong", ["repository", "folder", "chain", "empty", "elsewhere"])
def test_a_link_that_is_not_the_hub_s_is_read(tmp_path: Path, wrong: str) -> None:
    name = hashlib.sha256(b"not what lies there").hexdigest()
    repository = tmp_path / ("datasets--x" if wrong == "repository" else "models--org--name")
    snapshot = repository / ("folders" if wrong == "folder" else "snapshots") / "abc"
    snapshot.mkdir(parents=True)
    blob = repository / "blobs" / name
    if wrong == "elsewhere":
        blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    data = b"" if wrong == "empty" else LARGE
    if wrong == "chain":
        (tmp_path / "data").write_bytes(data)
        blob.symlink_to(tmp_path / "data")
    else:
        blob.write_bytes(data)
    (snapshot / "file").symlink_to(os.path.relpath(blob, snapshot))
    digest = files.digest_file(snapshot / "file")
    expected = f"sha256:{hashlib.sha256(b'').hexdigest()}" if wrong == "empty" else None
    assert digest == (expected or digest_bytes(LARGE))


def test_a_large_file_outside_the_hub_s_cache_is_known_by_its_own_digest(tmp_path: Path) -> None:
    """Documented: a copy out of the cache counts as another file."""
    contents = {"model.safetensors": LARGE}
    snapshot = add_snapshot(tmp_path / "hub", "org/name", contents)
    shutil.copyfile(snapshot / "model.safetensors", tmp_path / "model.safetensors")
    assert files.digest_file(tmp_path / "model.safetensors") == digest_bytes(LARGE)
