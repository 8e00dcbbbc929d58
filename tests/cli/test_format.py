"""What people are shown: nothing that others wrote can command the terminal."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.cli.format import clean, short, show, show_json, table


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    shown = clean(text)
    assert len(shown) == len(text)
    assert all(c.isprintable() or c in "\n\u200c\u200d" for c in shown)
    assert clean(shown) == shown
    assert "\n" not in short(text)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"])))
def test_what_is_printable_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\ufffd[2Jb"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b31m", "\ufffd31m"),
        ("over\rwritten\ttext", "over written text"),
        ("left \u202eto right", "left \ufffdto right"),
        ("two\nlines", "two\nlines"),
        ("a\u2028b\xa0c", "a b c"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\ud800", "\ufffd"),
    ],
)
def test_what_a_text_is_shown_as(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_every_way_to_print_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    show("a\x1b[2J")
    show("b\x1b[2J", error=True)
    show_json({"c\x1b": "\x9b"})
    show(table(["x"], [["d\x1b\nd"]]))
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\x9b" not in shown.out
    assert "d\ufffd d" in shown.out, "a line break would break the table"


def test_what_is_logged_is_clean() -> None:
    program = (
        "from cachedeval.cli.format import clean_log\n"
        "from cachedeval.engine import log\n"
        "log.configure = clean_log\n"
        "log.logger().warning('the server says %s', 'no\\x1b[2J')\n"
        "log.logger().warning('again\\x07')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "the server says no\ufffd[2J\nagain\ufffd\n"
