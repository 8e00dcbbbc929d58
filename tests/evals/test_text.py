import csv
import html as html_module
import io
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.text import cell, clean, html, markdown, xml

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a & b &amp; c",
    "\u202eabc\u202c",
    "\x1b[2J\x1b]0;title\x07",
    "\ud800 half a pair",
    "\x00\x01\x7f\x85",
    "=cmd|' /C calc'!A0",
    "]]> <!-- -->",
    "*bold* [link](javascript:alert(1)) | cell | `code`",
    "line\nline\r\nline\u2028line",
    "שלום " * 3,
    "\ufffe\uffff",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_everywhere(text: str) -> None:
    for shown in (clean(text), html(text), xml(text), cell(text), markdown(text)):
        assert all(c == "\n" or c.isprintable() for c in shown)
        shown.encode("utf-8")
    assert "<" not in html(text)
    assert "<" not in markdown(text)
    assert "\n" not in markdown(text)
    assert not cell(text).startswith(("=", "+", "-", "@"))


@given(st.text())
def test_html_and_xml_show_the_cleaned_text(text: str) -> None:
    shown = clean(text)
    assert html_module.unescape(html(text)) == shown
    parsed = ET.fromstring(f'<a b="{xml(text)}">{xml(text)}</a>')  # noqa: S314  our own
    assert (parsed.text or "") == shown
    assert parsed.get("b") == shown


@given(st.text())
def test_a_cell_is_never_a_formula(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([cell(text)])
    (row,) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    (read,) = row or [""]
    assert not read.lstrip().startswith(("=", "+", "-", "@"))


@given(st.text(st.characters(categories=["L", "N"])))
def test_plain_words_stay_as_they_are(text: str) -> None:
    assert cell(text) == markdown(text) == html(text) == clean(text)
