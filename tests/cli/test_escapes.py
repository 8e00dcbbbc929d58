"""What a cache holds cannot command the terminal: names, units, tags, inputs, values, recipes."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from cachedeval import open_backend
from cachedeval.cli.main import execute
from cachedeval.engine.encoding import encode
from cachedeval.engine.keys import key_of
from cachedeval.engine.labels import label_of
from cachedeval.engine.record import Record, pack, write_notes
from cachedeval.engine.values import payload_digest

_EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[str, str]:
    """A cache URL and a key in it."""
    url = f"disk:{tmp_path / 'cache'}"
    backend = open_backend(url)
    key = b""
    names = (f"{_EVIL}node", "generation", "judge")
    for name, odd in zip(names, (5.0, float("nan"), float("inf")), strict=True):
        recipe = encode(("recipe", name, f"{_EVIL}1", {f"{_EVIL}a": _EVIL}))
        payload = b"m" + msgspec.msgpack.encode(f"{_EVIL}value")
        notes = write_notes({"tags": [f"{_EVIL}tag"], f"{_EVIL}note": _EVIL})
        cost = {f"{_EVIL}unit": 5.0, "usd": odd, "prompt_tokens": odd}
        record = Record(recipe, payload, payload_digest(payload), time.time(), odd, cost, notes)
        label = label_of(record)
        key = key_of(recipe)
        backend.put_labelled({key: pack(record)}, {key: label} if label else {})
        backend.touch_many({key: 3}, time.time())
    backend.put_many({b"foreign record!!": _EVIL.encode()})
    backend.close()
    return url, key.hex()


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats"],
        ["ls"],
        ["ls", "--node", f"{_EVIL}node"],
        ["ls", "--node", f"{_EVIL}absent"],
        ["ls", "--tag", f"{_EVIL}absent"],
        ["show", "KEY"],
        ["show", _EVIL],
        ["verify"],
        ["prune", "--older-than", "1d", "--dry-run"],
        ["prune", "--node", f"{_EVIL}node", "--dry-run"],
        ["stats", "--json"],
        ["ls", "--json"],
        ["show", "KEY", "--json"],
        ["verify", "--json"],
        ["prune", "--older-than", "1d", "--dry-run", "--json"],
    ],
    ids=lambda arguments: ascii(" ".join(arguments)).replace("\\", "."),
)
def test_a_hostile_cache_sends_no_control_characters(
    hostile: tuple[str, str], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url, key = hostile
    execute(["cache", *(key if each == "KEY" else each for each in arguments), "--cache", url])
    shown = capsys.readouterr()
    assert shown.out or shown.err
    assert not [c for c in shown.out + shown.err if c in "\x1b\x07\x9b\u202e"]
    if "--json" in arguments:
        json.loads(shown.out, parse_constant=pytest.fail)
