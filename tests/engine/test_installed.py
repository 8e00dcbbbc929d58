import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from cachedeval.engine.installed import entry_points, load, version


def install(folder: Path, name: str, release: str, group: str, entries: str) -> None:
    info = folder / f"{name}-{release}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {release}\n", "utf-8")
    (info / "entry_points.txt").write_text(f"# ours\n[{group}]\n{entries}\n[other]\nx = y:z\n")


@pytest.mark.parametrize("group", ["cachedeval.backends", "console_scripts", "pytest11"])
def test_finds_what_importlib_finds(group: str) -> None:
    assert entry_points(group) == {e.name: e.value for e in metadata.entry_points(group=group)}


def test_versions_are_those_of_importlib() -> None:
    names = {found.name for found in metadata.distributions()}
    assert {name: version(name) for name in names} == {
        name: metadata.version(name) for name in names
    }


def test_any_package_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "Some_Backend", "1.2", "cachedeval.backends", "redis = some.where:open [x]")
    monkeypatch.syspath_prepend(tmp_path)
    assert entry_points("cachedeval.backends")["redis"] == "some.where:open [x]"
    assert "disk" in entry_points("cachedeval.backends")
    assert "x" not in entry_points("cachedeval.backends")
    assert version("some.backend") == "1.2"


def test_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "old", "thing", "1", "g", "a = old:f")
    install(tmp_path / "new", "thing", "2", "g", "a = new:f")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "new"), str(tmp_path / "old"), *sys.path])
    assert entry_points("g") == {"a": "new:f"}
    assert version("thing") == "2"


def test_an_archive_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("zipped-3.dist-info/METADATA", "Name: zipped\nVersion: 3\n")
        archive.writestr("zipped-3.dist-info/entry_points.txt", "[g]\na = zipped:f\n")
    monkeypatch.syspath_prepend(tmp_path / "all.zip")
    assert entry_points("g") == {"a": "zipped:f"}
    assert version("zipped") == "3"
    assert version("absent") is None


def test_an_egg_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "aged-4.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: aged\nVersion: 4\n")
    (info / "entry_points.txt").write_text("[g]\na = aged:f\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert entry_points("g") == {"a": "aged:f"}
    assert version("aged") == "4"


def test_none() -> None:
    assert entry_points("no such group") == {}
    assert version("no such package") is None


def test_load() -> None:
    assert load("os.path:join") is load("os:path.join [extra]") is __import__("os").path.join
