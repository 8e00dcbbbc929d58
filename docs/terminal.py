# ruff: noqa: INP001, S603, T201  (a script, whose commands are its own)
"""Draw the terminal in the README: run its commands for real and write `docs/terminal.svg`.

Run it as `.venv/bin/python docs/terminal.py` on an idle machine: the picture shows how long the commands
took. It compares the demo's model with one of the adapters in `examples/`, edits one criterion, and
compares again. The judge is a server on this machine. It is a program, not a model: it scores how
many of the parts that a criterion names (item, order number, problem) the answer has in common with
the reference. Nothing but the commands' own output is shown.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from cachedeval.evals.demo.model import ensure_demo_model

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURE = Path(__file__).parent / "terminal.svg"
COLUMNS = 100

RUBRIC = """\
name = "triage"

[[criteria]]
name = "order"
description = "The answer names the item and the order number."

[[criteria]]
name = "problem"
description = "The answer names the problem."
"""
COMPARE = "cachedeval compare base my-adapter --data qa.jsonl --criteria rubric.toml --max-tokens 24 --top 3"
CHANGE = "sed -i.bak 's/the item and the order number/the order number/' rubric.toml"

PARTS = ("item", "order number", "problem")
"""What the references of the demo's questions consist of, in this order."""


class Judge(BaseHTTPRequestHandler):
    """Answers chat completions with a verdict."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Judge one answer."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = "\n".join(message["content"] for message in request["messages"])
        message = {"role": "assistant", "content": json.dumps(verdict(prompt))}
        body = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def verdict(prompt: str) -> dict[str, object]:
    """Return the scores of an answer, 0 to 10 for each criterion."""
    reference, response = (
        re.search(rf"<{name} (\w+)>\n(.*)\n</{name} \1>", prompt, re.DOTALL)[2].lower()  # type: ignore[index]
        for name in ("reference", "response")
    )
    expected = dict(zip(PARTS, reference.split(", "), strict=True))
    scores = {}
    for name, description in re.findall(r"^- (\w+) \(0 to 10\): (.*)$", prompt, re.MULTILINE):
        asked = [text for part, text in expected.items() if part in description]
        found = sum(re.search(rf"\b{re.escape(text)}\b", response) is not None for text in asked)
        scores[name] = round(10 * found / len(asked))
    identity = re.search(r"\bitem[ _]id\W+([0-9a-f]{8})\b", prompt, re.IGNORECASE)
    return {"item_id": identity[1] if identity else "", "rationale": "", "scores": scores}


@contextmanager
def judge() -> Iterator[str]:
    """Run the judge in this process; yield its base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def main() -> None:
    """Run the commands in a new folder, and draw what they printed."""
    model = ensure_demo_model(progress=print)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as name, judge() as url:
        place = Path(name)
        shutil.copytree(EXAMPLES / "adapters" / "triage", place / "adapters" / "my-adapter")
        shutil.copy(EXAMPLES / "demo.jsonl", place / "qa.jsonl")
        (place / "rubric.toml").write_text(RUBRIC, encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CACHEDEVAL_MODEL": str(model),
            "CACHEDEVAL_JUDGE": "openai:triage-rules",
            "CACHEDEVAL_CACHE": "disk:./eval_cache",
            "OPENAI_BASE_URL": url,
        }
        for command in (COMPARE, CHANGE, COMPARE):
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=place,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            print(done.stdout, end="", flush=True)
            for line in done.stdout.splitlines():
                console.print(Text(line), soft_wrap=True)
    # A viewer's own monospace font: a picture in a README may not load one.
    start, end = CONSOLE_SVG_FORMAT.index("@font-face"), CONSOLE_SVG_FORMAT.index(".{unique_id}-m")
    form = (CONSOLE_SVG_FORMAT[:start] + CONSOLE_SVG_FORMAT[end:]).replace(
        "Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
    )
    picture = console.export_svg(title="", theme=MONOKAI, code_format=form, unique_id="terminal")
    text = "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"
    PICTURE.write_text(text, encoding="utf-8")
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
