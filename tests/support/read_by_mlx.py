"""Finds out which files mlx_lm reads, by their access times.

Run as a script, in a process of its own: `read_by_mlx.py JSON`, with a list of loads, each
`{"model": folder, "adapter": folder or null, "trust": bool}`; prints the list of what was read.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

__all__ = ["Load", "access_times_work", "read_by_mlx"]


class Load(TypedDict):
    """What is loaded."""

    model: str
    adapter: str | None
    trust: bool


def access_times_work(folder: Path) -> bool:
    """Tell whether the file system notes that a file was read."""
    path = folder / "access-time"
    path.write_bytes(b"x")
    _forget([path])
    path.read_bytes()
    return _was_read(path)


def read_by_mlx(loads: list[Load]) -> list[set[str]]:
    """Return for each load the files that were read, with the adapter's below `adapter:`."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, __file__, json.dumps(loads)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return [set(names) for names in json.loads(run.stdout.splitlines()[-1])]


def _load(load: Load) -> list[str]:
    from mlx_lm import generate  # noqa: PLC0415 - in the process of its own alone
    from mlx_lm import load as mlx_load  # noqa: PLC0415

    folders = {"": Path(load["model"])}
    if load["adapter"] is not None:
        folders["adapter:"] = Path(load["adapter"])
    files = {
        f"{prefix}{path.relative_to(folder).as_posix()}": path
        for prefix, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file()
    }
    _forget(files.values())
    loaded: Any = mlx_load(
        load["model"], adapter_path=load["adapter"], trust_remote_code=load["trust"]
    )
    model, tokenizer = loaded
    prompt = "the river"
    if tokenizer.has_chat_template:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
    generate(model, tokenizer, prompt=prompt, max_tokens=2)
    return [name for name, path in files.items() if _was_read(path)]


def _forget(paths: Any) -> None:
    for path in paths:
        os.utime(path, ns=(0, path.stat().st_mtime_ns))


def _was_read(path: Path) -> bool:
    return path.stat().st_atime_ns > 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from cachedeval.evals.mlx.cpu import open_blas

    open_blas()
    print(json.dumps([_load(load) for load in json.loads(sys.argv[1])]))  # noqa: T201
