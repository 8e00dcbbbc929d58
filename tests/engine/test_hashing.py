import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest
import xxhash

from cachedeval.engine import hashing
from cachedeval.engine.errors import InputError
from cachedeval.engine.hashing import digest_bytes


def tree(data: bytes) -> str:
    """The definition of `xxh3t`, spelled out."""
    chunks = [data[i : i + hashing.CHUNK] for i in range(0, len(data), hashing.CHUNK)]
    leaves = b"".join(xxhash.xxh3_128_digest(chunk) for chunk in chunks)
    return "xxh3t:" + xxhash.xxh3_128_hexdigest(leaves + len(data).to_bytes(8, "little"))


@pytest.mark.parametrize("size", [0, 1, 511 << 10, (512 << 10) + 1, hashing.CHUNK])
def test_a_file_of_one_chunk_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    digest, status = hashing.content_digest(path)
    assert digest == digest_bytes(data)
    assert status.st_size == size
    assert hashing.read_bytes(path) == data


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("extra", [1, hashing.CHUNK, 2 * hashing.CHUNK + 12345])
def test_a_large_file_has_the_digest_of_its_tree(
    tmp_path: Path, extra: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "threads", lambda: threads)
    data = os.urandom(hashing.CHUNK + extra)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert hashing.content_digest(path)[0] == tree(data)
    assert hashing.sha256_digest(path)[0] == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_the_tree_is_pinned(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(3 * hashing.CHUNK + 5)
    assert hashing.content_digest(path)[0] == "xxh3t:c430a24cebc8bc55ac3af8c7e8c00feb"


def test_every_byte_of_a_large_file_counts(tmp_path: Path) -> None:
    data = bytearray(2 * hashing.CHUNK + 100)
    path = tmp_path / "file"
    digests = set()
    places = [0, hashing.CHUNK - 1, hashing.CHUNK, 2 * hashing.CHUNK, len(data) - 1]
    for place in places:
        data[place] ^= 1
        path.write_bytes(data)
        data[place] ^= 1
        digests.add(hashing.content_digest(path)[0])
    path.write_bytes(data)
    digests.add(hashing.content_digest(path)[0])
    path.write_bytes(data + b"\0")
    digests.add(hashing.content_digest(path)[0])
    assert len(digests) == len(places) + 2


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read_into = hashing._read_into

    def slowly(descriptor: int, buffer: memoryview, offset: int) -> int:
        time.sleep(0.002)
        return read_into(descriptor, buffer, offset)

    monkeypatch.setattr(hashing, "_read_into", slowly)


@pytest.mark.usefixtures("slow_reads")
@pytest.mark.parametrize("size", [20 << 20, 5000])
def test_a_file_that_never_stops_changing_is_an_error_that_names_it(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(size))
    stop = threading.Event()

    def rewrite() -> None:
        with path.open("r+b", buffering=0) as file:
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(8))
                time.sleep(0.0005)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        with pytest.raises(InputError, match=r"weights\.safetensors: changes while it is read"):
            hashing.content_digest(path)
    finally:
        stop.set()
        writer.join()


@pytest.mark.usefixtures("slow_reads")
def test_a_file_that_is_still_written_is_read_again_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(20 << 20))
    block = os.urandom(1 << 20)

    def finish() -> None:
        with path.open("r+b", buffering=0) as file:
            for at in range(12):
                file.seek(at << 20)
                file.write(block)
                time.sleep(0.002)

    writer = threading.Thread(target=finish)
    writer.start()
    digest = hashing.content_digest(path)[0]
    writer.join()
    assert digest == tree(block * 12 + bytes(8 << 20))


@pytest.mark.parametrize("change", ["truncate", "append", "replace"])
def test_a_file_changed_between_open_and_end_is_read_again(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 1000)
    read_into = hashing._read_into
    changes = [change]

    def interrupted(descriptor: int, buffer: memoryview, offset: int) -> int:
        match changes.pop() if changes else None:
            case "truncate":
                os.truncate(path, 10)
            case "append":
                with path.open("ab") as file:
                    file.write(b"b")
            case "replace":
                (tmp_path / "other").write_bytes(b"c" * 1000)
                (tmp_path / "other").replace(path)
        return read_into(descriptor, buffer, offset)

    monkeypatch.setattr(hashing, "_read_into", interrupted)
    digest, status = hashing.content_digest(path)
    assert digest == digest_bytes(path.read_bytes())
    assert status.st_ino == path.stat().st_ino


def test_what_is_no_file_is_named_and_never_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: is a pipe, socket or device"):
        hashing.content_digest(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe, socket or device"):
        hashing.stat_file(Path("/dev/null"))
    with pytest.raises(InputError, match="is a folder"):
        hashing.content_digest(tmp_path)
    with pytest.raises(InputError, match=r"gone: no such file$"):
        hashing.content_digest(tmp_path / "gone")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(InputError, match=r"link: is a link to nothing$"):
        hashing.stat_file(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"loop: cannot be read: Too many levels"):
        hashing.stat_file(tmp_path / "loop")
    with pytest.raises(InputError, match=r"is not a path"):
        hashing.stat_file(Path("nul\0byte"))
    with pytest.raises(InputError, match="no such file"):
        hashing.stat_file(tmp_path / "link" / "below")


def test_a_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may be 107 bytes long at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InputError, match="is a pipe, socket or device"):
            hashing.stat_file(Path("socket"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError, match="secret: may not be read: its permissions forbid it"):
        hashing.content_digest(path)


def test_a_denied_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")

    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(InputError, match="secret: may not be read: its permissions forbid it"):
        hashing.content_digest(path)


def test_a_file_that_says_less_than_it_holds_is_refused() -> None:
    """Files of /proc have size 0 and content all the same."""
    path = Path("/proc/self/cmdline")
    if not path.exists():
        pytest.skip("no /proc here")
    with pytest.raises(InputError, match="changes while it is read"):
        hashing.content_digest(path)


@pytest.mark.parametrize("name", ["📦 modèle", "new\nline", os.fsdecode(b"latin\xe9")])
def test_any_name_can_be_read_and_printed_on_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system refuses the name")
    assert hashing.content_digest(path)[0] == digest_bytes(b"x")
    path.unlink()
    with pytest.raises(InputError) as caught:
        hashing.content_digest(path)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()
