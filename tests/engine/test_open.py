import logging
from pathlib import Path
from typing import Any

import pytest

from cachedeval import Engine, InputError, node, open_backend
from cachedeval.engine.backend import GROUP, NothingBackend
from cachedeval.engine.errors import BackendError
from cachedeval_memory import MemoryBackend


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entries: str, code: str) -> None:
    """Put a package with entry points on the path, as an installer would."""
    info = folder / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}\n")
    (folder / "elsewhere_backend.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "elsewhere_backend", raising=False)


@node(version="1")
def double(x: int) -> int:
    return x * 2


def test_backends_of_our_own() -> None:
    assert isinstance(open_backend("memory:"), MemoryBackend)


def test_a_backend_from_elsewhere_by_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from cachedeval_memory import MemoryBackend\nopened = []\n"
        "def open_url(rest):\n    opened.append(rest)\n    return MemoryBackend()\n"
    )
    install(tmp_path, monkeypatch, "else = elsewhere_backend:open_url", code)
    with Engine("else:some//where:else") as engine:
        assert engine.run([double(1), double(1)]) == [2, 2]
    import elsewhere_backend  # type: ignore[import-not-found]  # noqa: PLC0415  installed just now

    assert elsewhere_backend.opened == ["some//where:else"]


@pytest.mark.parametrize("url", ["", "memory", "./eval_cache", ":memory", "MEMORY:"])
def test_a_url_that_names_no_backend(url: str) -> None:
    with pytest.raises(InputError, match=r"a cache is given as SCHEME:REST.*disk:, memory:"):
        open_backend(url)
    with pytest.raises(InputError):
        Engine(url)


def test_a_scheme_without_a_backend_is_named_and_no_password_is_shown() -> None:
    with pytest.raises(InputError, match="no backend for `redis:` is installed") as error:
        open_backend("redis://me:secret@host:1/0")
    assert "secret" not in str(error.value)
    assert "redis://…@host:1/0" in str(error.value)


def test_a_folder_is_given_without_slashes() -> None:
    with pytest.raises(InputError, match=r"give disk:/tmp/x or disk:\./tmp/x"):
        open_backend("disk://tmp/x")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(rest): raise OSError('no such server')", "cannot be opened: no such server"),
        ("def f(rest): return object()", "does not return a Backend"),
        ("import no_such_module", "cannot be opened: No module named"),
        ("", "cannot be opened"),
    ],
)
def test_a_backend_that_cannot_be_opened_is_gone_without(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: str,
    message: str,
) -> None:
    install(tmp_path, monkeypatch, "broken = elsewhere_backend:f", code)
    with pytest.raises(BackendError, match=message):
        open_backend("broken:x")
    with caplog.at_level(logging.WARNING, "cachedeval"), Engine("broken:x") as engine:
        assert engine.run([double(1), double(1), double(2)]) == [2, 2, 4]
        assert engine.stats[double.name].computed == 2
    assert len(caplog.records) == 1
    assert "going on without a cache" in caplog.text


def test_bad_input_to_a_backend_is_the_users_to_mend() -> None:
    with pytest.raises(InputError, match="nothing may follow the colon"):
        Engine("memory:x")


@pytest.mark.parametrize("cache", [Path("x"), None, 3, object(), MemoryBackend])
def test_what_is_no_cache(cache: Any) -> None:
    with pytest.raises(InputError, match="is no cache: give a URL"):
        Engine(cache)


def test_nothing_holds_nothing() -> None:
    backend = NothingBackend()
    backend.put_many({b"k": b"v"})
    backend.touch_many({b"k": 1}, 0.0)
    assert backend.get_many([b"k"]) == {}
    assert list(backend.scan()) == []
    assert backend.delete_many([b"k"]) == 0
    with backend.lease(b"k") as one, backend.lease(b"k") as other:
        assert one
        assert other
    backend.close()
