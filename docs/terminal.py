# ruff: noqa: INP001, S603, T201  (a script, whose commands are its own)
"""Draw the terminal in the README: run its commands for real and write `docs/terminal.svg`.

Run it as `.venv/bin/python docs/terminal.py`. It takes some minutes on two cores. It compares the
demo's model with one of the adapters in `examples/`, changes one criterion, and compares again. The
judge is the same model, so it needs no key. Nothing but the commands' own output is shown.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from cachedeval.evals.demo.examples import adapter_folder, questions_file
from cachedeval.evals.demo.model import ensure_demo_model

PICTURE = Path(__file__).parent / "terminal.svg"
COLUMNS = 96

CRITERIA = """\
name = "triage"

[[criteria]]
name = "order"
description = "The answer names the item and the order number of the reference."

[[criteria]]
name = "problem"
description = "The answer names the problem of the reference."
"""
COMPARE = (
    "cachedeval compare base my-adapter --data qa.jsonl --criteria rubric.toml --max-tokens 24"
)
CHANGE = "sed -i.bak 's/names the problem/names only the problem/' rubric.toml"


def main() -> None:
    """Run the commands in a new folder, and draw what they printed."""
    model = ensure_demo_model(progress=print)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(adapter_folder("triage"), place / "adapters" / "my-adapter")
        shutil.copy(questions_file(), place / "qa.jsonl")
        (place / "rubric.toml").write_text(CRITERIA, encoding="utf-8")
        for command in (COMPARE, CHANGE, COMPARE):
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            for line in run(command, place, model).splitlines():
                console.print(Text(line), soft_wrap=True)
    # A viewer's own monospace font: a picture in a README may not load one.
    start, end = CONSOLE_SVG_FORMAT.index("@font-face"), CONSOLE_SVG_FORMAT.index(".{unique_id}-m")
    form = (CONSOLE_SVG_FORMAT[:start] + CONSOLE_SVG_FORMAT[end:]).replace(
        "Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
    )
    picture = console.export_svg(
        title="cachedeval", theme=MONOKAI, code_format=form, unique_id="terminal"
    )
    text = "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"
    PICTURE.write_text(text, encoding="utf-8")
    print(f"wrote {PICTURE}")


def run(command: str, place: Path, model: Path) -> str:
    """Return what a command prints in a folder; its progress bar stays on this terminal."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CACHEDEVAL_MODEL": str(model),
        "CACHEDEVAL_JUDGE": f"mlx:{model}",
        "CACHEDEVAL_CACHE": "disk:./eval_cache",
        "COLUMNS": str(COLUMNS),
    }
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
