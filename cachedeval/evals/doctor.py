"""Checks that this machine can run evaluations."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from cachedeval import __version__
from cachedeval.engine.backend import open_backend, shown_url
from cachedeval.engine.digest_cache import StoreDigestCache
from cachedeval.engine.engine import Engine
from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.maintenance import disk_folder
from cachedeval.evals.evaluator import DEFAULT_JUDGE
from cachedeval.evals.judging.judges import BY_RUBRIC, open_judge
from cachedeval.evals.judging.spec import api_key_of, parse_judge
from cachedeval.evals.models import model_files, model_resource, read_json_object, resolve_model
from cachedeval.evals.proofs import BATCH_SIZE, Proofs

__all__ = ["Check", "examine"]

State = Literal["ok", "warn", "fail"]

_PACKAGES = ("mlx", "mlx-lm", "transformers", "cerebras-cloud-sdk", "diskcache", "msgspec")
_PROBE_SECONDS = 120
_SLOW_BLAS = 0.5
"""Under this share of mlx's own speed, the BLAS that takes its place does harm."""

_LITTLE_SPACE, _NO_SPACE = 2**30, 50 * 2**20


class Check(NamedTuple):
    """The result of one check."""

    name: str
    state: State
    found: str
    advice: str = ""
    """The remedy; empty where none is needed."""


def examine(
    *, model: str | None = None, judge: str | None = None, cache: str = "disk:./eval_cache"
) -> Iterator[Check]:
    """Yield each check as soon as it is made; no model is loaded, and no connection opened.

    Args:
        model: folder or hub name of a model to look at; the environment's CACHEDEVAL_MODEL if
            None, and none where that is not set.
        judge: as `cachedeval run` takes it; the environment's CACHEDEVAL_JUDGE or the default if
            None.
        cache: URL of the cache.
    """
    about = f"cachedeval {__version__}, Python {platform.python_version()}"
    yield Check("versions", "ok", f"{about} on {platform.platform(terse=True)}")
    yield from _packages()
    device = ""
    for check, device in _mlx():  # noqa: B007  the last check names the device
        yield check
    chosen = model or os.environ.get("CACHEDEVAL_MODEL")
    if chosen:
        yield from _model(chosen, device)
        yield from _decoding(chosen, cache)
    yield _judge(judge or os.environ.get("CACHEDEVAL_JUDGE"))
    yield from _cache(cache)


def _packages() -> Iterator[Check]:
    versions, missing = [], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        found = f"{', '.join(missing)} not installed; there are {', '.join(versions) or 'none'}"
        yield Check("packages", "fail", found, "install cachedeval with its dependencies")
    else:
        yield Check("packages", "ok", ", ".join(versions))


def _mlx() -> Iterator[tuple[Check, str]]:
    """Look at mlx's device and, on a CPU, at its BLAS; each check comes with the device."""
    found, trouble = _probe()
    if found is None:
        advice = "install mlx for this machine: pip install --force-reinstall mlx mlx-lm"
        if "SIGILL" in trouble and os.environ.get("OPENBLAS_CORETYPE"):
            advice = "unset OPENBLAS_CORETYPE: it names a processor that this one is not"
        yield Check("device", "fail", f"mlx cannot be used: {trouble}", advice), ""
        return
    device = str(found["device"])
    threads = f", {os.cpu_count()} threads" if device == "cpu" else ""
    named = f"{device} ({found['name'] or platform.machine()}{threads})"
    yield Check("device", "ok", named), device
    if device == "cpu" and sys.platform == "linux":
        own, _ = _probe("--own-blas") if found["blas"] else (found, "")
        yield _blas(found, own), device


def _blas(found: dict[str, Any], own: dict[str, Any] | None) -> Check:
    speed = f"{found['gflops']:.0f} GFLOP/s in float32"
    if not found["blas"]:
        return Check(
            "blas",
            "warn",
            f"mlx's own, {speed}",
            "an OpenBLAS is many times as fast: pip install ngsolve-openblas (x86-64), or "
            "install your system's libopenblas0",
        )
    path = Path(found["blas"])
    if own is None:
        return Check("blas", "ok", f"{path.name}, {speed}")
    ratio = found["gflops"] / own["gflops"]
    summary = f"{path.name}, {speed}, {ratio:.1f} times mlx's own ({own['gflops']:.0f})"
    if ratio < _SLOW_BLAS:
        advice = f"it takes the place of a faster one: is {path} made for this processor?"
        return Check("blas", "warn", summary, advice)
    return Check("blas", "ok", summary)


def _probe(*arguments: str) -> tuple[dict[str, Any] | None, str]:
    """Return what the probe found, or None and what is wrong."""
    try:
        done = subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-m", "cachedeval.evals.mlx.cpu", *arguments],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"it did not answer within {_PROBE_SECONDS} s"
    except OSError as error:
        return None, f"no second process can be started: {error.strerror}"
    if done.returncode < 0:
        return None, f"it was killed by {signal.Signals(-done.returncode).name}"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode or not lines:
        return None, lines[-1] if lines else f"it ended with status {done.returncode}"
    found: dict[str, Any] = json.loads(lines[-1])
    return found, ""


def _model(name: str, device: str) -> Iterator[Check]:
    try:
        folder = resolve_model(name)
        size = sum((folder / file).stat().st_size for file in model_files(folder))
        config = read_json_object(folder / "config.json")
    except (InputError, OSError) as error:
        yield Check("model", "fail", str(error), "give a folder, or fetch it once with run --fetch")
        return
    quantization = config.get("quantization") or config.get("quantization_config")
    bits = quantization.get("bits") if isinstance(quantization, dict) else None
    found = f"{folder} ({config['model_type']}, {size / 2**20:,.0f} MB"
    found += ")" if not quantization else f", quantized{f' to {bits} bits' if bits else ''})"
    if quantization and device == "cpu":
        yield Check(
            "model",
            "warn",
            found,
            "quantized models are slow on a CPU: mlx_lm.convert --hf-path "
            f"{name} --mlx-path {folder.name}-float32 --dequantize --dtype float32",
        )
    else:
        yield Check("model", "ok", found)


def _decoding(name: str, url: str) -> Iterator[Check]:
    """Check whether the model's answers are decoded together, as far as the cache knows."""
    folder = disk_folder(url)
    if folder is not None and not folder.exists():
        return
    try:
        path = resolve_model(name)
        with Engine(url) as engine:
            model = model_resource(path, StoreDigestCache(engine.store))
            trouble = Proofs(engine.store, model.weights).recall(BATCH_SIZE)
    except (CachedevalError, OSError):
        return  # another check says what is wrong with the model, or the cache
    if trouble is None:
        found = f"{path.name} has not been tried yet; the first run finds out"
        yield Check("decoding", "ok", found)
    elif trouble:
        yield Check(
            "decoding",
            "warn",
            f"one by one: batches of this model cannot be trusted: {trouble}",
            "nothing needs to be done: the answers are right, but take longer",
        )
    else:
        found = f"together: batches of up to {BATCH_SIZE} give what each prompt gives alone"
        yield Check("decoding", "ok", found)


def _no_model(path: object, known_digests: object) -> NoReturn:
    raise AssertionError(path, known_digests)  # only `mlx:` judges have one


def _judge(name: str | None) -> Check:
    on_trouble: State = "warn" if name is None else "fail"
    try:
        if name and not name.strip().startswith(BY_RUBRIC):
            judge = open_judge(name, local_model=_no_model)
            return Check("judge", "ok", f"{judge.name}: needs no service")
        spec = parse_judge(name or DEFAULT_JUDGE)
        if spec.provider == "mlx":
            return _local_judge(resolve_model(spec.model))
        key = api_key_of(spec, os.environ)
    except InputError as error:
        default = "" if name else " (the default judge)"
        what, _, advice = str(error).partition("; ")
        return Check("judge", on_trouble, what + default, advice)
    return Check("judge", "ok", f"{spec}: {'key set' if key else 'no key, and none needed'}")


def _local_judge(path: Path) -> Check:
    """Have the model judge twenty answers: does it rank right ones above wrong ones?"""
    from cachedeval.evals.mlx.model import load_model  # noqa: PLC0415  only this check needs mlx here
    from cachedeval.evals.mlx.ranking import rank_answers  # noqa: PLC0415

    found = rank_answers(load_model(path))
    if found.area is None:
        why = "it scores none of 20 simple answers"
    else:
        why = (
            f"it ranks right answers above wrong ones in {found.area:.0%} of pairs, 95% interval "
            f"{found.low:.0%} to {found.high:.0%}; 50% is chance"
        )
    if found.can_judge:
        return Check("judge", "ok", f"mlx:{path}: {why}")
    return Check(
        "judge",
        "warn",
        f"mlx:{path}: this model cannot judge: {why}",
        "take a larger model as judge",
    )


def _cache(url: str) -> Iterator[Check]:
    folder = disk_folder(url)
    if folder is not None and not folder.exists():
        parent = next(each for each in folder.parents if each.exists())
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            yield Check(
                "cache", "ok", f"{shown_url(url)}: does not exist yet; the first run creates it"
            )
        else:
            advice = "give another folder: --cache disk:PATH"
            yield Check("cache", "fail", f"{shown_url(url)}: {parent} cannot be written to", advice)
        yield from _space(parent)
        return
    try:
        yield Check("cache", "ok", f"{shown_url(url)}: {_try_writing(url)}")
    except CachedevalError as error:
        yield Check("cache", "fail", str(error), "give another: --cache disk:PATH")
    except Exception as error:  # noqa: BLE001  whatever a backend raises
        yield Check(
            "cache",
            "fail",
            f"{shown_url(url)}: cannot be written: {error}",
            "results would not be stored: make it writable, or give another, --cache disk:PATH",
        )
    if folder is not None:
        yield from _space(folder)


def _try_writing(url: str) -> str:
    """Write a value, read it back and delete it; return the finding."""
    backend = open_backend(url)
    try:
        key, value = os.urandom(16), os.urandom(64)
        backend.put_many({key: value})
        found = backend.get_many([key]).get(key)
        backend.delete_many([key])
    finally:
        backend.close()
    if found != value:
        raise InputError(f"cache {url}: what was written could not be read back")
    return "can be read and written"


def _space(folder: Path) -> Iterator[Check]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Check("disk", "warn", f"{folder}: its free space is unknown: {error.strerror}")
        return
    state: State = "fail" if free < _NO_SPACE else "warn" if free < _LITTLE_SPACE else "ok"
    advice = "" if state == "ok" else "free some space, or `cachedeval cache prune --max-size SIZE`"
    yield Check("disk", state, f"{free / 2**30:,.1f} GB free at {folder}", advice)
