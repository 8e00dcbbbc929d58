"""No command shows the password of a cache URL."""

import logging
from pathlib import Path

import pytest

from cachedeval import Engine, node, open_backend
from cachedeval.cli.main import execute
from cachedeval.engine.backend import GROUP, shown_url
from cachedeval.engine.errors import BackendError

_SECRET = "canary/pass@word"  # noqa: S105  the test looks for it
_URL = f"lock://me:{_SECRET}@host:1/0?token=canary-token"

_CODE = """
from cachedeval_memory import MemoryBackend
def open_url(rest):
    return MemoryBackend()
def fail(rest):
    raise OSError(f"no server at {rest}")
"""


@node(version="1")
def double(x: int) -> int:
    return x * 2


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lockers-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lockers\nVersion: 1\n")
    entries = "lock = lockers_backend:open_url\nshut = lockers_backend:fail\n"
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}")
    (tmp_path / "lockers_backend.py").write_text(_CODE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("scheme", ["lock", "shut", "absent"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["stats"],
        ["stats", "--json"],
        ["ls"],
        ["ls", "--json"],
        ["ls", "--node", "none"],
        ["show", "ab"],
        ["prune", "--older-than", "1d"],
        ["prune", "--older-than", "1d", "--dry-run", "--json"],
        ["verify"],
        ["verify", "--json"],
        ["clear", "--yes"],
        ["clear", "--yes", "--json"],
    ],
    ids=" ".join,
)
def test_a_command_shows_no_password(
    scheme: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = _URL.replace("lock", scheme, 1)
    execute(["cache", *arguments, "--cache", url])
    shown = "".join(capsys.readouterr())
    assert shown
    assert "canary" not in shown
    assert "me:" not in shown


def test_the_error_and_the_warning_of_an_engine_show_no_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = _URL.replace("lock", "shut", 1)
    with pytest.raises(BackendError, match="no server at //…@host:1/0") as raised:
        open_backend(url)
    assert "canary" not in str(raised.value)
    with caplog.at_level(logging.WARNING), Engine(url) as engine:
        assert engine.run(double(2)) == 4
    assert "going on without a cache" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("disk:./a@b?c", "disk:./a@b?c"),
        ("disk://me:canary@host/x", "disk://…@host/x"),
        ("redis:me:canary@host", "redis:…@host"),
        ("redis://me:can/ary@host/0", "redis://…@host/0"),
        ("redis://host/0?password=canary", "redis://host/0?…"),
        ("memory:", "memory:"),
        ("nothing", "nothing"),
    ],
)
def test_a_url_as_it_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
