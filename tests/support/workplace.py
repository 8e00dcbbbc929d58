"""A folder as a user has it: a tiny model, adapters, questions; and the command line run in it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support.tiny_model import make_tiny_adapter, make_tiny_model


class Finished(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Workplace:
    """The folder, made once and read by many tests; what a test writes goes elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = make_tiny_model(root / "model")
        self.changing = make_tiny_adapter(self.model, root / "adapters" / "changing", seed=1)
        self.other = make_tiny_adapter(self.model, root / "adapters" / "other", seed=2)
        self.same = make_tiny_adapter(self.model, root / "adapters" / "same", strength=0.0)

    def questions(self, folder: Path, count: int, *, start: int = 0) -> Path:
        """Write a file of questions."""
        path = folder / f"questions-{start}-{count}.jsonl"
        lines = [
            json.dumps({"question": f"What is {n} plus {n}? 🧮", "answer": str(2 * n)})
            for n in range(start, start + count)
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def run(
        self, *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> Finished:
        """Run `cachedeval` as a user does, in a process of its own."""
        done = subprocess.run(
            command(arguments),
            cwd=cwd or self.root,
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "cachedeval", *map(str, arguments)]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment, less what would choose a judge or a cache by itself."""
    ours = ("CACHEDEVAL_", "CEREBRAS_", "OPENAI_API", "OPENAI_BASE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **(extra or {})}
