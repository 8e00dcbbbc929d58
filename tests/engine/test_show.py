import dataclasses
import enum
import re
from collections import Counter, OrderedDict
from datetime import date
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval import Resource, node
from cachedeval.engine.node import describe
from cachedeval.engine.show import add_note, show, show_text


@dataclasses.dataclass
class Login:
    user: str
    password: str


class Pair(NamedTuple):
    a: int
    api_key: str


class Held(msgspec.Struct):
    x: int
    token: str = "hunter2"  # noqa: S105


class Colour(enum.Enum):
    RED = 1


class Odd:
    @property
    def label(self) -> str:
        raise AssertionError

    shape = label

    def __repr__(self) -> str:
        raise AssertionError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb\x1b[31m", r"'a\nb\x1b[31m'"),
        (b"\x00", r"b'\x00'"),
        (10**6, "1000000"),
        (1 << 10_000, "<int of 10001 bits>"),
        (None, "None"),
        ([1, (2,), (3, 4)], "[1, (2,), (3, 4)]"),
        ({"a": {1}}, "{'a': {1}}"),
        (Login("me", "hunter2"), "Login(user='me', password=***)"),
        (Pair(1, "hunter2"), "Pair(a=1, api_key=***)"),
        (Held(1), "Held(x=1, token=***)"),
        ({"Authorization": "hunter2", "max_tokens": 5}, "{'Authorization': ***, 'max_tokens': 5}"),
        ("postgres://me:hunter2@host/db", "'postgres://me:***@host/db'"),
        ("postgres://me:" + "hunter2" * 100 + "@host/db", "'postgres://me:***'"),
        ("Bearer abcdefghijkl", "'Bearer ***'"),
        ("key sk-0123456789abcdef", "'key ***'"),
        ("http://localhost:8080/x", "'http://localhost:8080/x'"),
        (Colour.RED, "Colour.RED"),
        (date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (Decimal("1.50"), "Decimal('1.50')"),
        (PurePosixPath("a/b"), "'a/b'"),
        (Counter("aab"), "Counter({'a': 2, 'b': 1})"),
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (Odd(), "<Odd>"),
        ([[[[[[1]]]]]], "[[[[[…]]]]]"),
        (Resource("model", 1, object), "<model>"),
    ],
)
def test_a_value_is_shown(value: Any, text: str) -> None:
    assert show(value, 400) == text


def test_a_collection_that_contains_itself_is_shown() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert show(loop, 40) == "[[[[[…]]]]]"


class Endless(dict[Any, Any]):
    def __len__(self) -> int:
        return 10**9

    def items(self) -> Any:
        while True:
            yield 1, 2


def test_a_text_needs_only_the_start_of_a_value() -> None:
    assert show(Endless(), 20) == "Endless({1: 2, 1: 2…"
    assert show("x" * 10**7, 5) == "'xxx…"


@given(
    st.recursive(st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v))
)
def test_a_text_is_bounded_and_on_one_line(value: Any) -> None:
    for width in (10, 60):
        text = show(value, width)
        assert len(text) <= width
        assert text.isprintable()


def test_an_error_text_is_on_one_line() -> None:
    assert show_text("a\nb", 10) == r"a\nb"
    assert show_text("x" * 20, 10) == "x" * 9 + "…"


@node(version="1", name="fetch")
def fetch(url: str, api_key: str, tries: int = 3, more: Any = None) -> str:
    return f"{url}{api_key}{tries}{more}"


def test_a_call_is_described_without_secrets() -> None:
    call = fetch("https://me:hunter2@host", "hunter2")
    assert describe(call) == "fetch(url='https://me:***@host', api_key=***, tries=3, …)"
    assert "hunter2" not in describe(fetch(["hunter2" * 0, {"secret": "hunter2"}], "k"))  # type: ignore[arg-type]
    assert (
        describe(fetch(fetch("", ""), "")) == "fetch(url=<call of fetch>, api_key=***, tries=3, …)"
    )


def test_the_notes_of_an_error_of_many_calls_are_few() -> None:
    error = ValueError("x")
    for number in [0, 0, *range(50)]:
        add_note(error, f"f(x={number})")
    assert error.__notes__ == [
        "cachedeval: in f(x=0)",
        "cachedeval: in f(x=1)",
        "cachedeval: in f(x=2)",
        "cachedeval: and in other calls",
    ]


class Frozen(Exception):  # noqa: N818
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def add_note(self, note: str, /) -> None:
        raise re.error(note)


@pytest.mark.parametrize("error", [Frozen(), ValueError()])
def test_an_error_that_takes_no_notes_is_left_alone(error: Exception) -> None:
    if isinstance(error, ValueError):
        error.__notes__ = 5  # type: ignore[assignment]
    add_note(error, "f()")
