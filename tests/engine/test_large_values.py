"""Large values: stored and read without needless copies, and equal to what was returned."""

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cachedeval import Engine, Entry, node, open_backend
from cachedeval.engine.encoding import LARGE
from cachedeval.engine.record import Pieces, Record, pack, pack_pieces, unpack
from cachedeval.engine.values import Codec, payload_digest, plain_data
from cachedeval_disk import DiskBackend

BIG = bytes(range(256)) * (LARGE // 256 + 1)
TEXT = "é" * LARGE


@dataclass
class Holder:
    name: str
    data: bytes


@dataclass
class Doubling:
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) < 2 * LARGE:
            self.data += self.data


class SimpleBackend:
    """A third party's: four methods, and values that must be bytes."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self.values[key] for key in keys if key in self.values}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        assert all(type(value) is bytes for value in items.values())
        self.values.update(items)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        return sum(self.values.pop(key, None) is not None for key in keys)

    def scan(self) -> Iterator[Entry]:
        return iter([Entry(key, len(v), 0.0, 0.0, 0) for key, v in self.values.items()])


VALUES: dict[str, tuple[Any, Any]] = {
    "bytes": (bytes, BIG),
    "bytes as Any": (Any, BIG),
    "text": (str, TEXT),
    "bytes of the least size": (bytes, bytes(LARGE)),
    "bytes just below": (bytes, bytes(LARGE - 1)),
    "list": (list[bytes], [BIG, b"small", BIG[1:]]),
    "dict": (dict[str, Any], {"b": BIG, "a": {"x": (1, TEXT)}}),
    "dataclass": (Holder, Holder("name", BIG)),
    "set": (set[bytes], {BIG, b"small"}),
    "bytearray": (bytearray, bytearray(BIG)),
    "many small ones beside it": (list[Any], [BIG, *["x" * 100] * 20_000]),
    "int": (int, 1 << (8 * LARGE + 9)),
}


@pytest.mark.parametrize("name", VALUES)
def test_it_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    declared, value = VALUES[name]

    @node(version="1", name="large.step")
    def step() -> Any:
        return value

    plain: Any = node(version="1", name="large.step")(_typed(step.function, declared))
    backends: list[Any] = [SimpleBackend(), open_backend("memory:"), DiskBackend(tmp_path)]
    for backend in backends:
        for state in ("computed", "hit"):
            with Engine(backend) as engine:
                [outcome] = engine.settle([plain()])
                assert (outcome.state, type(outcome.value)) == (state, type(value))
                assert outcome.value == outcome.copy() == value
                assert outcome.digest == payload_digest(outcome.record.payload)  # type: ignore[union-attr]


def _typed(function: Any, declared: Any) -> Any:
    function.__annotations__["return"] = declared
    return function


def test_a_value_that_its_class_changes_is_not_stored() -> None:
    @node(version="1", name="large.doubling")
    def doubling() -> Doubling:
        made = Doubling(bytes(2 * LARGE))
        made.data = bytes(LARGE)
        return made

    backend: Any = SimpleBackend()
    with Engine(backend) as engine:
        assert len(engine.run(doubling()).data) == LARGE
    assert not backend.values


@pytest.mark.parametrize("declared", [int, list[str], Holder])
def test_a_value_of_another_type_is_not_stored(declared: Any) -> None:
    with pytest.raises(Exception, match="not a"):
        Codec(declared).dump(BIG)


def test_a_record_in_pieces_is_the_record_in_one() -> None:
    payload = Codec(bytes).dump(BIG)
    assert isinstance(payload, Pieces)
    record = Record(b"recipe", payload, payload_digest(payload), 1.5, 0.5, {"usd": 1.0}, b"notes")
    whole = msgspec.structs.replace(record, payload=payload.joined())
    data = pack(whole)
    assert b"".join(pack_pieces(record, payload)) == pack(record) == data
    back = unpack(data)
    assert isinstance(back.payload, Pieces)
    assert back == record
    assert Codec(bytes).load(back.payload) == BIG
    assert payload_digest(back.payload) == record.digest
    assert plain_data(back.payload) == plain_data(payload) == BIG
    assert len(back.payload) == len(whole.payload)


@pytest.mark.parametrize("at", [3, 10, 40, LARGE // 2, -1])
def test_damage_is_noticed(at: int) -> None:
    payload = Codec(bytes).dump(BIG)
    data = bytearray(pack(Record(b"recipe", payload, payload_digest(payload), 1.5, 0.5)))
    data[at] ^= 1
    with pytest.raises(Exception, match=r"digest does not match|not a record"):
        unpack(bytes(data))


def test_a_payload_that_messagepack_holds_is_still_read() -> None:
    payload = b"m" + msgspec.msgpack.encode(BIG)  # as earlier versions wrote it
    record = Record(b"recipe", payload, payload_digest(payload), 1.5, 0.5)
    back = unpack(pack(record))
    assert Codec(bytes).load(back.payload) == BIG
    assert payload_digest(back.payload) == record.digest


def test_pieces_on_disk(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    items: Any = {
        bytes(16): (BIG, memoryview(b"middle"), BIG),
        b"1" * 16: (b"a", b"b"),
        b"2" * 16: (),
    }
    backend.put_many(items)
    assert backend.get_many([*items]) == {key: b"".join(value) for key, value in items.items()}
    for wrong in ((b"a", "b"), [b"a"], bytearray(b"a")):
        with pytest.raises(TypeError, match="a value is bytes"):
            backend.put_many({b"3" * 16: wrong})  # type: ignore[dict-item]
    backend.close()


made: list[int] = []


@node(version="1", name="large.zeros")
def zeros(size: int) -> bytes:
    made.append(size)
    return bytes(size)


def test_an_array_is_copied_once() -> None:
    np: Any = pytest.importorskip("numpy")
    array = np.arange(2 * LARGE)
    codec = Codec()
    payload = codec.dump({"a": [array, array[:3]]})
    record = unpack(pack(Record(b"recipe", payload, payload_digest(payload), 1.5, 0.5)))
    tracemalloc.start()
    try:
        back = codec.load(record.payload)["a"]
        assert tracemalloc.get_traced_memory()[1] < 1.2 * array.nbytes
    finally:
        tracemalloc.stop()
    assert (back[0] == array).all()
    assert back[1].tolist() == [0, 1, 2]
    assert back[0].flags.writeable


def test_no_more_than_one_copy_is_made(tmp_path: Path) -> None:
    size = 16 * LARGE

    def peak() -> float:
        with Engine(f"disk:{tmp_path}") as engine:
            tracemalloc.start()
            try:
                assert len(engine.run(zeros(size))) == size
                return tracemalloc.get_traced_memory()[1] / size
            finally:
                tracemalloc.stop()

    made.clear()
    assert peak() < 1.2  # the value itself
    assert peak() < 2.2  # the record as it was read, and the value
    assert made == [size]
