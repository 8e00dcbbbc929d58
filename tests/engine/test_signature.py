import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval import Computed, InputError
from cachedeval.engine.signature import signature_of


def plain(a: Any, b: Any = 2, *, c: Any, d: Any = 4) -> Any: ...
def only_keywords(*, a: Any, b: Any = None) -> Any: ...
def nothing() -> Any: ...
def positional(a: Any, b: Any = 2, /, c: Any = 3) -> Any: ...
def rest(a: Any, *args: Any, b: Any = 2, **kwargs: Any) -> Any: ...
def all_rest(*args: Any, **kwargs: Any) -> Any: ...


FUNCTIONS: list[Callable[..., Any]] = [plain, only_keywords, nothing, positional, rest, all_rest]
ARGUMENTS = st.lists(st.integers(0, 9), max_size=5).map(tuple)
KEYWORDS = st.dictionaries(st.sampled_from("abcdex"), st.integers(0, 9), max_size=5)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(args=ARGUMENTS, kwargs=KEYWORDS)
def test_binds_and_calls_as_python_does(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    ours = signature_of(function, batch=False)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            ours.bind(*args, **kwargs)
        return
    bound.apply_defaults()
    inputs = ours.bind(*args, **kwargs)
    assert inputs == bound.arguments

    def call(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    got_args, got_kwargs = ours.call(call, inputs)
    again = inspect.signature(function).bind(*got_args, **got_kwargs)
    again.apply_defaults()
    assert again.arguments == bound.arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1, 2, 3), {"c": 1}, r"takes from 1 to 2 positional arguments but 3 .*given"),
        ((1,), {"c": 1, "z": 1}, "unexpected keyword argument 'z'"),
        ((1,), {"z": 1}, "unexpected keyword argument 'z'"),
        ((1,), {"c": 1, "a": 1}, "multiple values for argument 'a'"),
        ((), {"b": 1}, "missing 1 required positional argument: 'a'"),
    ],
)
def test_what_does_not_fit(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"plain.* {message}"):
        signature_of(plain, batch=False).bind(*args, **kwargs)  # type: ignore[arg-type]


# What a node returns.


def returns(declared: Any) -> Any:
    def f() -> None: ...

    f.__annotations__["return"] = declared
    return signature_of(f, batch=False).returns  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        (int, int),
        ("int", int),
        ("list[int] | None", list[int] | None),
        (list[int], list[int]),
        (Computed[int], int),
        ("Computed[list[int]]", list[int]),
        (Computed, Any),
        (Any, Any),
        (None, None),
    ],
)
def test_the_declared_type(declared: Any, wanted: Any) -> None:
    assert returns(declared) == wanted


def test_without_an_annotation_anything_is_returned() -> None:
    def f(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  that is the case
        return x

    assert signature_of(f, batch=False).returns is Any  # type: ignore[arg-type]


def test_an_annotation_that_cannot_be_read() -> None:
    with pytest.raises(InputError, match=r"annotation cannot be read .*'Nowhere'"):
        returns("Nowhere")


def test_annotations_of_inputs_are_not_read() -> None:
    def f(x: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
        return int(x)

    assert signature_of(f, batch=False).returns is int  # type: ignore[arg-type]


# Batched nodes.


@dataclass
class Item:
    a: int
    b: list[int] = field(default_factory=list)
    c: int = 3
    later: int = field(default=0, init=False)
    d: int = field(default=4, kw_only=True)


class StructItem(msgspec.Struct):
    a: int
    b: list[int] = []
    c: int = 3


class KeywordItem(msgspec.Struct, kw_only=True):
    a: int
    b: int = 2


def batch_of(item: Any, produced: Any = tuple[int, str]) -> Any:
    def f(batch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        yield batch

    f.__annotations__ = {"batch": Sequence[item], "return": Iterator[produced]}
    return signature_of(f, batch=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("item", [Item, StructItem, KeywordItem])
@given(args=ARGUMENTS, kwargs=KEYWORDS)
def test_a_batched_node_binds_as_its_items_are_made(
    item: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    ours = batch_of(item)
    try:
        made = item(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            ours.bind(*args, **kwargs)
        return
    assert item(**ours.bind(*args, **kwargs)) == made


def test_a_default_that_is_made_is_made_for_each() -> None:
    ours = batch_of(Item)
    assert ours.bind(1)["b"] is not ours.bind(1)["b"]


@dataclass
class A:
    x: int


@dataclass
class B:
    y: int


@pytest.mark.parametrize(
    ("produced", "wanted"),
    [
        (tuple[int, str], str),
        (tuple[int, str] | None, str),
        (tuple[int, str | None], str | None),
        (tuple[int, str | Exception] | None, str),
        (tuple[int, Computed[str] | ValueError] | None, str),
        (tuple[int, Computed[tuple[int, str]]], tuple[int, str]),
        (tuple[int, tuple[int, str]], tuple[int, str]),
        (tuple[int, int | str | Exception], int | str),
        (Optional[tuple[int, Union[str, Exception]]], str),  # noqa: UP007, UP045  the old spelling
        (tuple[int, Exception], Any),
        (Any, Any),
    ],
)
def test_the_type_that_a_batched_node_yields(produced: Any, wanted: Any) -> None:
    assert batch_of(Item, produced).returns == wanted


def test_a_batched_node_declares_its_items() -> None:
    with pytest.raises(InputError, match="a batched node declares its item class"):
        batch_of(int)

    def bare(batch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        yield batch

    with pytest.raises(InputError, match="a batched node declares its item class"):
        signature_of(bare, batch=True)  # type: ignore[arg-type]

    def none() -> Iterator[None]:
        yield

    with pytest.raises(InputError, match="a batched node declares its item class"):
        signature_of(none, batch=True)  # type: ignore[arg-type]


def test_a_batched_node_yields() -> None:
    def f(batch: Sequence[Item]) -> list[int]:
        return [item.a for item in batch]

    with pytest.raises(InputError, match="a batched node yields"):
        signature_of(f, batch=True)  # type: ignore[arg-type]


def test_a_generator_is_refused() -> None:
    def f() -> Iterator[int]:
        yield 1

    async def g() -> Any:
        yield 1

    for function in (f, g):
        with pytest.raises(InputError, match="a generator cannot be stored"):
            signature_of(function, batch=False)  # type: ignore[arg-type]


def test_items_are_dataclasses() -> None:
    assert dataclasses.is_dataclass(Item)
    assert batch_of(Item).names == ("a", "b", "c", "d")
