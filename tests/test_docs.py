"""The examples in README.md, CONTRIBUTING.md and docs/ run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import make_tiny_adapter, make_tiny_model

from cachedeval.testing import check_backend

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    if any("path/to/model" in block for block in blocks):
        model = make_tiny_model(tmp_path / "path" / "to" / "model")
        make_tiny_adapter(model, tmp_path / "adapters" / "4b-nested")
        rows = [{"question": f"{n}?", "answer": str(n)} for n in range(3)]
        Path("qa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, page.name, "exec", dont_inherit=True), names)  # noqa: S102  our docs
    assert capsys.readouterr().err == ""


def test_the_first_pages_have_examples() -> None:
    assert BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert BLOCK.search((ROOT / "docs" / "engine.md").read_text(encoding="utf-8"))


def test_the_backend_of_the_guide_passes_the_conformance_kit() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    for block in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        exec(compile(block, "CONTRIBUTING.md", "exec", dont_inherit=True), names)  # noqa: S102  our docs
    opened = names["TestDictBackend"]()
    check_backend(
        opened.open_backend,
        persistent=opened.persistent,
        shared=opened.shared,
        leases=opened.leases,
        uses=opened.uses,
    )
