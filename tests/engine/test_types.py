"""Values of many types: each comes back equal and of the same type, cold and warm."""

import datetime as dt
import decimal
import importlib
import importlib.util
import math
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, TypedDict
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plain import Access, Colour, Level, Old, Pair, Point, Slim, Struct

from cachedeval import (
    Backend,
    EncodingError,
    Engine,
    InputError,
    node,
    open_backend,
    register_codec,
)
from cachedeval.engine.encoding import Coded, decode, encode
from cachedeval.engine.values import Codec
from cachedeval_memory import MemoryBackend


@dataclass
class Row:
    when: dt.datetime
    score: float
    tags: set[str] = field(default_factory=set)
    price: decimal.Decimal | None = None


@dataclass(frozen=True)
class Key:
    x: int


@dataclass
class Computed:
    x: int
    double: int = field(init=False)

    def __post_init__(self) -> None:
        self.double = 2 * self.x


class Shape:
    pass


@dataclass
class Circle(Shape):
    radius: float


@dataclass
class Square(Shape):
    side: float


class Options(TypedDict, total=False):
    when: dt.date


class Named(NamedTuple):
    key: Key
    at: dt.time


class Zoned(Enum):
    PARIS = ZoneInfo("Europe/Paris")


class Molecule:
    def __init__(self, formula: str) -> None:
        self.formula = formula

    def __eq__(self, other: object) -> bool:
        return type(other) is Molecule and other.formula == self.formula

    def __hash__(self) -> int:
        return hash(self.formula)


register_codec(
    Molecule,
    "laboratory.Molecule",
    lambda value: value.formula.encode(),
    lambda data: Molecule(data.decode()),
)

PLUS_TWO = dt.timezone(dt.timedelta(hours=2))
FOLDED = dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris"))

VALUES: dict[str, tuple[Any, Any]] = {
    # Plain data.
    "None": (None, None),
    "bool": (bool, True),
    "int": (int, -(2**63) - 1),
    "float": (float, -0.0),
    "not a number": (float, math.nan),
    "str": (str, "\ud800é"),
    "bytes": (bytes, b"\0\xff"),
    "list": (list[Any], [1, 1.0, "1", (True,)]),
    "tuple": (tuple[int, ...], (1, 2)),
    "set": (set[str], {"b", "a"}),
    "frozenset": (frozenset[int], frozenset({1, 2**70})),
    "dict": (dict[str, int], {"b": 1, "a": 2}),
    "dict with other keys": (dict[Any, Any], {(1, "a"): 1, None: 2, 1.5: 3}),
    "enum": (Colour, Colour.BLUE),
    "int enum": (Level, Level.HIGH),
    "flags": (Access, Access.READ | Access.WRITE),
    "dataclass": (Point, Point(1, "a")),
    "dataclass with slots": (Slim, Slim(1, "a")),
    "dataclass with a computed field": (Computed, Computed(2)),
    "named tuple": (Pair, Pair(1, 2)),
    "old named tuple": (Old, Old(1, (2,))),
    "struct": (Struct, Struct(1, {"b": 1})),
    "typed dict": (Options, {"when": dt.date(2024, 2, 29)}),
    "literal": (Literal["a", 2], 2),
    # The standard library.
    "datetime": (dt.datetime, dt.datetime(2024, 2, 29, 12, 0, 0, 1)),  # noqa: DTZ001  without a zone
    "datetime in UTC": (dt.datetime, dt.datetime(2024, 2, 29, tzinfo=dt.UTC)),
    "datetime with an offset": (dt.datetime, dt.datetime(2024, 2, 29, tzinfo=PLUS_TWO)),
    "datetime in a zone": (dt.datetime, FOLDED),
    "date": (dt.date, dt.date(1, 1, 1)),
    "time": (dt.time, dt.time(23, 59, 59, 999_999, fold=1)),
    "time with an offset": (dt.time, dt.time(1, tzinfo=PLUS_TWO)),
    "timedelta": (dt.timedelta, dt.timedelta(-1, 1, 1)),
    "timezone": (dt.timezone, dt.timezone(dt.timedelta(hours=1), "CET")),
    "zone": (ZoneInfo, ZoneInfo("Asia/Kathmandu")),
    "Decimal": (decimal.Decimal, decimal.Decimal("-1.50E+3")),
    "Decimal zero": (decimal.Decimal, decimal.Decimal("-0.00")),
    "Fraction": (Fraction, Fraction(-1, 3)),
    "complex": (complex, complex(-0.0, math.inf)),
    "range": (range, range(10, 0, -3)),
    "bytearray": (bytearray, bytearray(b"\0\xff")),
    "UUID": (uuid.UUID, uuid.UUID(int=2**127 + 1)),
    "Path": (Path, Path("a/b")),
    "pure Path": (PurePosixPath, PurePosixPath("/a/../b")),
    "Windows path": (PureWindowsPath, PureWindowsPath("c:\\a")),
    "Counter": (Counter[str], Counter({"b": 2, "a": -1})),
    "OrderedDict": (OrderedDict[str, int], OrderedDict(b=1, a=2)),
    "defaultdict": (defaultdict[str, list[int]], defaultdict(list, {"b": [1], "a": []})),
    "defaultdict without a factory": (defaultdict[str, int], defaultdict(None, a=1)),
    "deque": (deque[Key], deque([Key(1), Key(2)], maxlen=3)),
    # What is inside of others.
    "dataclass with a datetime": (Row, Row(FOLDED, 1, {"a"}, decimal.Decimal("1.0"))),
    "named tuple of others": (Named, Named(Key(1), dt.time(1))),
    "enum of others": (Zoned, Zoned.PARIS),
    "dict of dates": (dict[dt.date, Counter[Key]], {dt.date(2024, 1, 1): Counter([Key(1)])}),
    "set of UUIDs": (set[uuid.UUID], {uuid.UUID(int=n) for n in range(5)}),
    "union": (int | Path | dt.datetime, Path("x")),
    "union of classes": (list[Circle | Square], [Square(1.0), Circle(2.0)]),
    "subclass of what is declared": (Shape, Circle(1.0)),
    "abstract": (Mapping[str, Sequence[int]], OrderedDict(a=(1, 2))),
    "Any": (Any, {"when": dt.date(1, 2, 3), "n": Counter("aab"), "at": Path("x")}),
    "object": (object, decimal.Decimal("sNaN")),
    "class with a codec": (Molecule, Molecule("H2O")),
    "dict of a class with a codec": (dict[Molecule, int], {Molecule("H2O"): 1}),
}


def installed(name: str) -> Any:
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def add_numpy(np: Any) -> None:
    for name, value in {
        "float64": np.float64(-0.0),
        "int8": np.int8(-1),
        "bool_": np.bool_(True),
        "str_": np.str_("é"),
        "datetime64": np.datetime64("2024-02-29T12:00", "ns"),
        "complex64": np.complex64(1j),
        "0 dimensions": np.array(1.5),
        "no elements": np.zeros((0, 3), np.float32),
        "2 dimensions": np.arange(6, dtype=np.int16).reshape(2, 3),
        "order of Fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "part of another": np.arange(12).reshape(3, 4)[::2, ::-1],
        "big-endian": np.array([1, 2], ">i4"),
        "strings": np.array(["a", "bcd"]),
        "times": np.array(["2024-02-29", "NaT"], "M8[D]"),
        "records": np.array([(1, 2.5)], [("a", "i4"), ("b", "f8", (1,))]),
        "NaN": np.array([math.nan, -0.0]),
    }.items():
        VALUES[f"numpy {name}"] = (type(value), value)
    VALUES["numpy inside"] = (dict[str, list[np.ndarray]], {"a": [np.arange(3), np.eye(2)]})
    VALUES["numpy as Any"] = (Any, (np.float32(1.5), np.arange(3)))


def add_mlx(mx: Any) -> None:
    for dtype in ("float32", "bfloat16", "float16", "int64", "uint8", "bool_", "complex64"):
        VALUES[f"mlx {dtype}"] = (mx.array, mx.array([[0, 1], [1, 0]]).astype(getattr(mx, dtype)))


def add_pandas(pd: Any) -> None:
    frame = pd.DataFrame({"b": [1, 2], "a": ["x", None], "c": [1.5, math.nan]})
    dated = frame.set_index(pd.date_range("2024-01-01", periods=2, freq="D", tz="UTC"))
    VALUES["pandas frame"] = (pd.DataFrame, frame)
    VALUES["pandas frame with dates"] = (pd.DataFrame, dated.astype({"a": "category"}))
    VALUES["pandas series"] = (pd.Series, pd.Series([1, 2, 3], name="n", index=["x", "y", "z"]))
    VALUES["pandas series without a name"] = (pd.Series, pd.Series([True, False]))


def add_arrow(pa: Any) -> None:
    table = pa.table({"b": [1, None], "a": [["x"], []]})
    VALUES["arrow table"] = (pa.Table, table)
    VALUES["arrow batch"] = (pa.RecordBatch, table.to_batches()[0])
    VALUES["arrow batch without rows"] = (pa.RecordBatch, table.to_batches()[0].slice(0, 0))
    VALUES["arrow array"] = (pa.Array, pa.array([1, None, 3])[1:])
    VALUES["arrow chunks"] = (pa.ChunkedArray, table.column(0))
    VALUES["arrow schema"] = (pa.Schema, table.schema)


def add_attrs(attrs: Any) -> None:
    @attrs.define
    class Attrs:
        x: int
        _when: dt.date
        double: int = attrs.field(init=False)

        def __attrs_post_init__(self) -> None:
            self.double = 2 * self.x

    make: Any = Attrs
    VALUES["attrs class"] = (Attrs, make(1, dt.date(2024, 1, 1)))
    VALUES["list of an attrs class"] = (list[Attrs], [make(1, dt.date(2024, 1, 1))])


def add_pydantic(pydantic: Any) -> None:
    class Inner(pydantic.BaseModel):  # type: ignore[misc]  # imported at run time
        price: decimal.Decimal

    class Model(pydantic.BaseModel):  # type: ignore[misc]
        inner: Inner
        alias: int = pydantic.Field(1, alias="otherName")
        seen: set[str] = pydantic.Field(default_factory=set)

    class Numbers(pydantic.RootModel[list[int]]):  # type: ignore[misc]
        pass

    model = Model(inner=Inner(price="1.50"), otherName=3)
    VALUES["pydantic model"] = (Model, model)
    VALUES["pydantic root"] = (Numbers, Numbers([1, 2]))
    VALUES["list of a pydantic model"] = (list[Model], [model])


for _name, _add in {
    "numpy": add_numpy,
    "mlx.core": add_mlx,
    "pandas": add_pandas,
    "pyarrow": add_arrow,
    "attrs": add_attrs,
    "pydantic": add_pydantic,
}.items():
    if (_module := installed(_name)) is not None:
        _add(_module)


def same(one: Any, other: Any) -> bool:  # noqa: PLR0911  a case a kind
    """Whether two values are equal and of one type; owes nothing to the encoding."""
    if type(one) is not type(other):
        return False
    package = type(one).__module__.partition(".")[0]
    if package == "numpy":
        alike = one.dtype == other.dtype and one.shape == other.shape
        return bool(alike and one.tobytes() == other.tobytes())
    if package == "mlx":
        return bool(one.dtype == other.dtype and (one == other).all().item())
    if package == "pandas":
        return bool(one.equals(other) and one.index.equals(other.index))
    if package == "pyarrow":
        return bool(one.equals(other))
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(a, b) for a, b in pairs)
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dt.datetime):
        return (repr(one), one.fold) == (repr(other), other.fold)
    return repr(one) == repr(other) or bool(one == other)


def echo(declared: Any) -> Any:
    """Return a node that returns its input, declared as of this type."""

    def echo(value: Any) -> Any:
        return value

    echo.__annotations__["return"] = declared
    return node(version="1", name="types.echo")(echo)


@pytest.fixture(scope="module", params=["memory", "disk"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "memory":
        shared = MemoryBackend()
        return lambda: shared
    folder = tmp_path_factory.mktemp("types")
    return lambda: open_backend(f"disk:{folder}")


@pytest.mark.parametrize("name", VALUES)
def test_it_comes_back_as_it_was(name: str, backend: Callable[[], Backend]) -> None:
    declared, value = VALUES[name]
    call = echo(declared)(value)
    for computed in (1, 0):
        with Engine(backend()) as engine:
            [outcome] = engine.settle([call])
            assert same(outcome.value, value)
            assert same(outcome.copy(), value)
            assert outcome.record is not None
            assert engine.stats["types.echo"].computed == computed
            assert outcome.record.payload  # it is stored


def test_there_are_many_and_each_has_a_key_of_its_own() -> None:
    assert len(VALUES) >= 60
    encodings = {encode(value) for _, value in VALUES.values()}
    assert len(encodings) == len(VALUES)


# What differs has another key, what is equal has the same; what is read is what was written.

AWARE = st.datetimes(
    timezones=st.none()
    | st.timezones()
    | st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
    allow_imaginary=True,
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "datetime": AWARE,
    "date": st.dates(),
    "time": st.times(),
    "timedelta": st.timedeltas(),
    "Decimal": st.decimals(),
    "Fraction": st.fractions(),
    "complex": st.complex_numbers(),
    "UUID": st.uuids(),
    "Path": st.text(st.characters(exclude_characters="\0")).map(PurePosixPath),
    "range": st.builds(range, st.integers(), st.integers(), st.integers(1)),
    "bytearray": st.binary().map(bytearray),
    "Counter": st.dictionaries(st.text(max_size=3), st.integers()).map(Counter),
    "OrderedDict": st.dictionaries(st.dates(), st.decimals()).map(OrderedDict),
    "defaultdict": st.builds(
        defaultdict,
        st.sampled_from([None, int, list]),
        st.dictionaries(st.integers(), st.lists(st.uuids(), max_size=2)),
    ),
    "deque": st.builds(deque, st.lists(st.times(), max_size=3), st.none() | st.integers(3, 9)),
    "Molecule": st.text(st.characters(codec="utf-8")).map(Molecule),
}
ANY = Codec()


def told(value: Any) -> Any:
    """Return all that a function can observe of a value."""
    if isinstance(value, (dt.datetime, dt.time)):
        return repr(value), value.fold, type(value.tzinfo)
    if isinstance(value, Molecule):
        return value.formula
    if isinstance(value, dict):
        factory = getattr(value, "default_factory", None)
        return factory, [(told(k), told(v)) for k, v in value.items()]
    if isinstance(value, (list, deque)):
        return getattr(value, "maxlen", None), [told(member) for member in value]
    if isinstance(value, complex):
        return repr(value).replace("-nan", "nan")
    return repr(value)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_obeys_the_laws(kind: str) -> None:
    @settings(max_examples=40)
    @given(KINDS[kind], KINDS[kind])
    def laws(one: Any, other: Any) -> None:
        back = ANY.load(ANY.dump(one))
        assert type(back) is type(one)
        assert told(back) == told(one)
        assert (encode(one) == encode(other)) == (told(one) == told(other))

    laws()


@given(st.one_of(*KINDS.values()), st.one_of(*KINDS.values()))
def test_kinds_do_not_meet(one: Any, other: Any) -> None:
    equal = type(one) is type(other) and told(one) == told(other)
    assert (encode(one) == encode(other)) == equal


@settings(max_examples=50)
@given(st.data())
def test_arrays_obey_the_laws(data: st.DataObject) -> None:
    np: Any = pytest.importorskip("numpy")
    from hypothesis.extra import numpy as hnp  # noqa: PLC0415  needs numpy

    arrays = hnp.arrays(
        hnp.scalar_dtypes().filter(lambda dtype: dtype.char not in "gG"),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
    one, other = data.draw(arrays), data.draw(arrays)
    back = ANY.load(ANY.dump(one))
    assert same(back, one)
    assert back.flags.writeable

    def seen(array: Any) -> Any:
        return array.dtype.str, array.shape, array.tobytes()

    assert (encode(one) == encode(other)) == (seen(one) == seen(other))
    if one.size:
        scalar = one.reshape(-1)[0]
        assert same(ANY.load(ANY.dump(scalar)), scalar)
        assert encode(scalar) != encode(np.asarray(scalar))


# What is refused, and what a codec may not do.


def refused() -> list[Any]:
    values: list[Any] = [
        defaultdict(lambda: 1),
        dt.datetime(2024, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {})()),
        type("MyCounter", (Counter,), {})(),
        type("MyDate", (dt.date,), {})(2024, 1, 1),
    ]
    if (np := installed("numpy")) is not None:
        values += [np.array([object()]), np.array(["a"], "O"), np.ma.array([1]), np.longdouble(1)]
        values += [np.matrix([[1]]) if False else np.rec.array([(1,)])]
    if (pd := installed("pandas")) is not None:
        noted = pd.DataFrame({"a": [1]})
        noted.attrs["unit"] = "m"
        values += [noted, pd.DataFrame({"a": [1, "x"]}), pd.Timestamp("2024-01-01")]
        values += [pd.DataFrame({"a": [object()]})]
    pydantic: Any = installed("pydantic")
    if pydantic is not None:

        class Open(pydantic.BaseModel):  # type: ignore[misc]
            model_config = pydantic.ConfigDict(extra="allow")

        values.append(Open(x=1))
    return values


@pytest.mark.parametrize("value", refused(), ids=lambda value: type(value).__qualname__)
def test_what_would_change_is_refused(value: Any) -> None:
    with pytest.raises(EncodingError):
        encode(value)


def test_a_model_tells_which_fields_were_set() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):  # type: ignore[misc]
        x: int = 1
        y: int = 2

    codec = Codec(Model)
    models = [Model(), Model(x=1), Model(x=1, y=2)]
    assert len({encode(model) for model in models}) == 3
    for model in models:
        assert codec.load(codec.dump(model)).model_fields_set == model.model_fields_set


class Other:
    pass


@pytest.mark.parametrize(
    ("cls", "name", "message"),
    [
        (int, "x.int", "needs no codec"),
        (dt.datetime, "x.datetime", "needs no codec"),
        (Counter, "x.Counter", "needs no codec"),
        ("Other", "x.Other", "registered for a class"),
        (Other, "", "needs a name"),
        (Other, "laboratory.Molecule", "belongs to .*Molecule"),
        (Molecule, "x.Molecule", "has a codec already"),
        (Other, "numpy.ndarray", "is reserved"),
        (Other, "datetime.datetime", "is reserved"),
    ],
)
def test_a_codec_that_cannot_be(cls: Any, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_codec(cls, name, lambda _: b"", lambda _: Other())


def test_a_codec_that_fails() -> None:
    class Odd:
        result: Any = b""

    def encoded(value: Odd) -> bytes:
        if isinstance(value.result, Exception):
            raise value.result
        return value.result  # type: ignore[no-any-return]

    def decoded(data: bytes) -> Odd:
        raise RuntimeError(data)

    register_codec(Odd, "odd.Odd", encoded, decoded)
    odd = Odd()
    for odd.result, message in [
        ("text", "returned a str: it must return bytes"),
        (ValueError("no"), "raised ValueError: no"),
    ]:
        with pytest.raises(EncodingError, match=message):
            encode([odd])
    odd.result = bytearray(b"x")
    assert decode(encode(odd)) == Coded("odd.Odd", b"x")
    with pytest.raises(EncodingError, match="RuntimeError"):
        ANY.dump(odd)


def test_a_codec_of_a_class_that_was_encoded_by_its_fields_before() -> None:
    @dataclass
    class Late:
        x: int

    before = encode(Late(1))
    register_codec(Late, "late.Late", lambda late: b"%d" % late.x, lambda data: Late(int(data)))
    assert encode(Late(1)) != before
    assert ANY.load(ANY.dump(Late(1))) == Late(1)


def test_a_codec_that_is_not_registered_here_is_a_miss() -> None:
    payload = b"c" + encode(Molecule("H2O")).replace(b"laboratory", b"alchemists")
    with pytest.raises(EncodingError, match=r"'alchemists\.Molecule', which is not registered"):
        ANY.load(payload)


def test_a_stored_array_cannot_hold_pickles() -> None:
    np: Any = pytest.importorskip("numpy")
    payload = ANY.dump(np.arange(3))
    assert b"'<i8'" in payload
    with pytest.raises(EncodingError):
        ANY.load(payload.replace(b"'<i8'", b"'|O' "))


def test_what_a_step_changes_is_not_what_later_steps_get() -> None:
    np: Any = pytest.importorskip("numpy")

    @node(version="1", name="types.zeros")
    def zeros() -> Any:
        return np.zeros(3)

    @node(version="1", name="types.fill")
    def fill(array: Any) -> float:
        array += 1
        return float(array.sum())

    with Engine() as engine:
        assert engine.run([fill(zeros()), zeros()])[0] == 3.0
        assert engine.run(zeros()).sum() == 0
