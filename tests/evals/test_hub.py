import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hub_cache import REVISION, add_snapshot
from support.hub_server import COMMIT, HubServer, hub_server

from cachedeval.engine import digest_cache, hashing
from cachedeval.engine.files import digest_file, manifest
from cachedeval.engine.hashing import digest_bytes
from cachedeval.evals.hub import FETCH_PATTERNS, BlobNames, cached_snapshot, hub_folder

pytestmark = pytest.mark.slow

VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": os.urandom(1 << 17),
    "original/consolidated.pth": b"x" * 100,
    "pytorch_model.bin": b"x" * 100,
    "tokenizer.json": b"{}",
}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"XDG_CACHE_HOME": "/x/cache"},
        {"HF_HOME": "~/hf"},
        {"HF_HOME": "$BASE/hf", "XDG_CACHE_HOME": "/x/cache"},
        {"HUGGINGFACE_HUB_CACHE": "/x/legacy", "HF_HOME": "/x/hf"},
        {"HF_HUB_CACHE": "~/hub", "HUGGINGFACE_HUB_CACHE": "/x/legacy"},
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/x/home")
    monkeypatch.setenv("BASE", "/x/base")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert str(hub_folder()) == run.stdout.strip()


def test_the_patterns_are_mlx_lm_s() -> None:
    from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS  # noqa: PLC0415 - heavy

    assert list(FETCH_PATTERNS) == DEFAULT_ALLOW_PATTERNS


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_cached_repository_is_its_main(hub: Path) -> None:
    assert cached_snapshot("org/name") is None
    snapshot = add_snapshot(hub, "org/name", FILES)
    assert cached_snapshot("org/name") == snapshot
    newer = add_snapshot(hub, "org/other", FILES, revision="f" * 40)
    assert cached_snapshot("org/other") == newer
    assert cached_snapshot("org/name") == snapshot
    (hub / "models--org--name" / "refs" / "main").unlink()
    assert cached_snapshot("org/name") is None


def test_a_repository_without_an_organisation_is_found(hub: Path) -> None:
    assert add_snapshot(hub, "gpt2", FILES) == cached_snapshot("gpt2")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_download_is_not_taken(hub: Path, missing: str) -> None:
    snapshot = add_snapshot(hub, "org/name", FILES)
    (snapshot / missing).unlink()
    assert cached_snapshot("org/name") is None


def test_a_missing_shard_is_noticed(hub: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": {"a": names[0], "b": names[1]}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index}
    snapshot = add_snapshot(hub, "org/name", files | {names[0]: b"1"})
    assert cached_snapshot("org/name") is None
    (snapshot / names[1]).symlink_to("../../blobs/gone")
    assert cached_snapshot("org/name") is None
    (snapshot / names[1]).unlink()
    (snapshot / names[1]).write_bytes(b"2")
    assert cached_snapshot("org/name") == snapshot
    for broken in ("", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'):
        (snapshot / "model.safetensors.index.json").unlink()
        (snapshot / "model.safetensors.index.json").write_text(broken)
        assert cached_snapshot("org/name") is None


def resolve(server: HubServer, hub: Path, repo: str, *, fetch: bool) -> str:
    """Return what `resolve_model` says in a process that knows no other hub than the server."""
    code = f"""
from cachedeval.engine.errors import CachedevalError
from cachedeval.evals.models import model_identity, resolve_model
try:
    folder = resolve_model({repo!r}, fetch={fetch})
    print(folder, sorted(model_identity(folder)["files"]))
except CachedevalError as error:
    print(f"{{type(error).__name__}}:", error)
"""
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HUB_CACHE": str(hub),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return run.stdout.strip()


def test_a_model_is_fetched_once_and_then_found_without_a_network(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    with hub_server("org/tiny", FILES) as server:
        assert "InputError: model org/tiny: no such folder" in resolve(
            server, hub, "org/tiny", fetch=False
        )
        assert server.requests == []
        fetched = resolve(server, hub, "org/tiny", fetch=True)
        folder = hub / "models--org--tiny" / "snapshots" / COMMIT
        assert fetched == f"{folder} ['config.json', 'model.safetensors', 'tokenizer.json']"
        present = {path.name for path in folder.rglob("*")}
        assert present == {"config.json", "model.safetensors", "tokenizer.json"}
        asked = len(server.requests)
        assert resolve(server, hub, "org/tiny", fetch=True) == fetched
        assert len(server.requests) == asked
    assert resolve(server, hub, "org/tiny", fetch=False) == fetched


def test_an_interrupted_download_is_taken_up_again(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    snapshot = add_snapshot(hub, "org/tiny", {"config.json": b"{}"}, revision=COMMIT)
    with hub_server("org/tiny", FILES) as server:
        assert str(snapshot) in resolve(server, hub, "org/tiny", fetch=True)


def test_what_cannot_be_fetched_is_an_error_that_says_so(tmp_path: Path) -> None:
    with hub_server("org/tiny", FILES) as server:
        said = resolve(server, tmp_path, "org/gone", fetch=True)
        assert said.startswith(
            "InputError: model org/gone: cannot be fetched from the Hugging Face hub"
        )
    said = resolve(server, tmp_path, "org/tiny", fetch=True)
    assert said.startswith(
        "FetchError: model org/tiny: cannot be fetched from the Hugging Face hub"
    )
    assert "\n" not in said
    with hub_server("org/tiny", {"README.md": b"x", "config.json": b"{}"}) as server:
        said = resolve(server, tmp_path, "org/tiny", fetch=True)
        assert said.endswith("what the Hugging Face hub has of it is no model for mlx_lm")


def test_the_layout_of_the_tests_is_that_of_a_download(tmp_path: Path) -> None:
    """What the other tests lay out is held against what huggingface_hub makes of the same."""
    with hub_server("org/tiny", FILES) as server:
        resolve(server, tmp_path / "real", "org/tiny", fetch=True)
    wanted = {name: data for name, data in FILES.items() if name.endswith(("json", "safetensors"))}
    add_snapshot(tmp_path / "made", "org/tiny", wanted)

    def links(cache: Path, revision: str) -> dict[str, str]:
        snapshot = cache / "models--org--tiny" / "snapshots" / revision
        return {path.name: str(path.readlink()) for path in snapshot.iterdir()}

    assert links(tmp_path / "real", COMMIT) == links(tmp_path / "made", REVISION)


def test_what_was_really_downloaded_is_known_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server("org/tiny", FILES) as server:
        resolve(server, tmp_path, "org/tiny", fetch=True)
    monkeypatch.delattr(hashing, "sha256_digest")
    folder = tmp_path / "models--org--tiny" / "snapshots" / COMMIT
    digest = digest_file(folder / "model.safetensors", linked_sha256=BlobNames())
    assert digest == f"sha256:{hashlib.sha256(FILES['model.safetensors']).hexdigest()}"


LARGE = os.urandom(1 << 17)


@pytest.fixture
def known_digests() -> digest_cache.ProcessDigestCache:
    return digest_cache.ProcessDigestCache()


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


@pytest.mark.parametrize("shared", [False, True])
def test_a_large_file_of_the_hub_s_cache_is_known_unread(
    tmp_path: Path, reads: list[str], *, shared: bool
) -> None:
    contents = {"model.safetensors": LARGE, "config.json": b"{}", "sub/big.bin": LARGE + b"!"}
    snapshot = add_snapshot(tmp_path / "hub", "org/name", contents, shared=shared)
    found = {entry.path: entry for entry in manifest(snapshot, contents, linked_sha256=BlobNames())}
    assert found["model.safetensors"].digest == f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
    assert found["model.safetensors"].size == len(LARGE)
    assert found["sub/big.bin"].digest == f"sha256:{hashlib.sha256(LARGE + b'!').hexdigest()}"
    assert found["config.json"].digest == digest_bytes(b"{}")
    assert reads == ["config.json"]
    (tmp_path / "link").symlink_to(snapshot)
    assert manifest(tmp_path / "link", contents, linked_sha256=BlobNames()) == list(found.values())


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("shared", [False, True])
def test_a_blob_trained_in_place_is_another_file(
    tmp_path: Path,
    known_digests: digest_cache.ProcessDigestCache,
    reads: list[str],
    *,
    shared: bool,
) -> None:
    contents = {"model.safetensors": LARGE}
    path = add_snapshot(tmp_path, "org/name", contents, shared=shared) / "model.safetensors"
    before = path.stat()
    time.sleep(0.02)
    changed = b"changed" + LARGE[7:]
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        digest = digest_file(path, known_digests=known_digests, linked_sha256=BlobNames())
        assert digest == f"sha256:{hashlib.sha256(changed).hexdigest()}"
    assert reads == ["model.safetensors"]


def test_a_cache_that_was_copied_or_touched_keeps_its_digests(
    tmp_path: Path, reads: list[str]
) -> None:
    contents = {"model.safetensors": LARGE}
    snapshot = add_snapshot(tmp_path / "one", "org/name", contents)
    before = manifest(snapshot, contents, linked_sha256=BlobNames())
    assert reads == []
    copy = shutil.copytree(tmp_path / "one", tmp_path / "two", symlinks=True)
    assert (
        manifest(copy / snapshot.relative_to(tmp_path / "one"), contents, linked_sha256=BlobNames())
        == before
    )
    time.sleep(0.02)
    (snapshot / "model.safetensors").touch()
    assert manifest(snapshot, contents, linked_sha256=BlobNames()) == before


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
    digest = digest_file(snapshot / "file", linked_sha256=BlobNames())
    expected = f"sha256:{hashlib.sha256(b'').hexdigest()}" if wrong == "empty" else None
    assert digest == (expected or digest_bytes(LARGE))


def test_a_large_file_outside_the_hub_s_cache_is_known_by_its_own_digest(tmp_path: Path) -> None:
    """Documented: a copy out of the cache counts as another file."""
    contents = {"model.safetensors": LARGE}
    snapshot = add_snapshot(tmp_path / "hub", "org/name", contents)
    shutil.copyfile(snapshot / "model.safetensors", tmp_path / "model.safetensors")
    assert digest_file(tmp_path / "model.safetensors", linked_sha256=BlobNames()) == digest_bytes(
        LARGE
    )
