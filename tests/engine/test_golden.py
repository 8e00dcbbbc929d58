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
    """Return other Pythons at hand: those of CACHEDEVAL_PYTHONS, and those on the PATH."""
    given = os.environ.get("CACHEDEVAL_PYTHONS", "").split(os.pathsep)
    names = [f"python3.{minor}" for minor in range(11, 20) if minor != sys.version_info.minor]
    return [*filter(None, given), *filter(None, map(shutil.which, names))]


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
def test_with_another_python(python: str) -> None:
    needed = "import sys, msgspec, xxhash; sys.exit(sys.version_info < (3, 11))"
    if (
        not python
        or subprocess.run([python, "-c", needed], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"{python or 'another Python'}: not at hand with msgspec and xxhash")
    assert printed(python, "7") == WANTED
