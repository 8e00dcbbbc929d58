"""Keys that must never change: a key that does is a cache that is lost, or worse.

`python tests/support/golden.py > tests/engine/golden_keys.json` writes them anew.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.golden import golden

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "support" / "golden.py"
WANTED = json.loads((HERE / "golden_keys.json").read_text("utf-8"))


def pythons() -> list[str]:
    """Return other Pythons at hand: CACHEDEVAL_PYTHONS, those on the PATH, and those of pyenv."""
    given = os.environ.get("CACHEDEVAL_PYTHONS", "").split(os.pathsep)
    names = [f"python3.{minor}" for minor in range(11, 20) if minor != sys.version_info.minor]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    # Its shims are on the PATH, and refuse to run what is not chosen there.
    on_path = [found for found in map(shutil.which, names) if found and "shims" not in found]
    installed = (str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}")))
    return list(dict.fromkeys([*filter(None, given), *on_path, *installed]))


def runs(python: str, code: str) -> bool:
    return not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode


def with_packages(python: str, folder: Path) -> str | None:
    """Return a new environment's Python that has what the engine needs, if it can be had."""
    made = subprocess.run([python, "-m", "venv", folder], capture_output=True, check=False)
    own = str(folder / "bin" / "python")
    install = [own, "-m", "pip", "install", "-q", "msgspec", "xxhash"]
    if made.returncode or subprocess.run(install, capture_output=True, check=False).returncode:
        return None
    return own


def printed(python: str, seed: str) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [python, str(PROGRAM)], env=environment, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_in_this_process() -> None:
    # The names of the classes say where they are from, so all but what holds one must agree.
    here = golden()
    assert {k: v for k, v in here.items() if v != WANTED[k]}.keys() <= {
        "value classes",
        "key options",
    }


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_with_another_hash_seed(seed: str) -> None:
    assert printed(sys.executable, seed) == WANTED


@pytest.mark.parametrize("python", pythons() or [""])
def test_with_another_python(python: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not python or not runs(python, "import sys; sys.exit(sys.version_info < (3, 11))"):
        pytest.skip(f"{python or 'another Python'}: not at hand")
    able: str | None = python
    if not runs(python, "import msgspec, xxhash"):
        if not request.config.getoption("--thorough"):
            pytest.skip(f"{python}: has no msgspec and xxhash; --thorough installs them apart")
        able = with_packages(python, tmp_path / "environment")
    if able is None:
        pytest.skip(f"{python}: msgspec and xxhash cannot be installed")
    assert printed(able, "7") == WANTED
