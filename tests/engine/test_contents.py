"""What a cache holds, told by step."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.faulty import FaultyBackend

from cachedeval import Computed, Engine, node
from cachedeval.engine.digest_cache import StoreDigestCache
from cachedeval.engine.errors import InputError
from cachedeval.engine.maintenance import (
    contents_of,
    disk_folder,
    find_record,
    identity_of,
    inputs_of,
    lines_of,
    page_of,
    summary,
)
from cachedeval.engine.resource import Handle, Resource
from cachedeval_disk import DiskBackend
from cachedeval_memory import MemoryBackend


@node(version="1", name="double")
def double(x: int) -> Computed[int]:
    return Computed(2 * x, cost={"tokens": 10})


@node(version="1", name="shout")
def shout(text: str, voice: Handle[str]) -> str:
    with voice as suffix:
        return text.upper() + suffix


LOUD = Resource("voice", {"name": "loud"}, lambda: "!")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("memory:") as engine:
        yield engine


def test_records_hits_and_what_they_saved_are_counted_by_step(engine: Engine) -> None:
    engine.run([double(1), double(2), shout("hey", LOUD)])
    for _ in range(3):
        engine.run([double(1), double(2)])
    engine.store.flush()
    found = contents_of(engine.store)
    assert {name: (n.records, n.hits) for name, n in found.nodes.items()} == {
        "double": (2, 6),
        "shout": (1, 0),
        "identities": (1, 0),
    }
    assert found.nodes["double"].saved["tokens"] == 60
    assert found.nodes["double"].saved["seconds"] > 0
    assert found.nodes["shout"].saved == {}
    assert found.saved == found.nodes["double"].saved
    assert found.hits == 6
    assert (found.records, found.corrupt) == (4, 0)
    assert found.bytes == sum(node.bytes for node in found.nodes.values()) > 0


def test_reading_counts_no_hits(engine: Engine) -> None:
    engine.run([double(1)])
    contents_of(engine.store)
    lines_of(engine.store)
    engine.store.flush()
    assert contents_of(engine.store).hits == 0


def test_what_is_damaged_is_counted_apart_and_listed() -> None:
    backend = MemoryBackend()
    engine = Engine(backend)
    engine.run([double(1), double(2)])
    key = next(iter(backend.scan())).key
    backend.put_many({key: backend.get_many([key])[key][:-1]})
    found = contents_of(engine.store)
    assert (found.records, found.corrupt) == (1, 1)
    assert found.corrupt_bytes > 0
    (corrupt,) = lines_of(engine.store, "(corrupt)")
    assert corrupt.key == key
    assert "digest does not match" in corrupt.summary
    engine.close()


def test_lines_come_by_step_the_newest_first(engine: Engine) -> None:
    engine.run(shout("a", LOUD))
    for x in (1, 2, 3):
        engine.run(double(x))
        time.sleep(0.002)
    engine.run(double(2))
    engine.store.flush()
    lines = lines_of(engine.store)
    assert [(line.node, line.summary) for line in lines[:4]] == [
        ("double", "6"),
        ("double", "4"),
        ("double", "2"),
        ("shout", "A!"),
    ]
    assert lines[4].node == "identities"
    assert [line.hits for line in lines[:3]] == [0, 1, 0]
    assert lines[1].used is not None
    assert lines[0].used is None
    assert [line.node for line in lines_of(engine.store, "shout")] == ["shout"]
    assert lines_of(engine.store, "no such") == []


def test_the_engine_s_own_records_are_labelled(engine: Engine) -> None:
    engine.run(shout("hey", LOUD))
    StoreDigestCache(engine.store).put_many({bytes(16): b"file/1 machine content 1:2 xxh3:00ff"})
    told = {line.node: line.summary for line in lines_of(engine.store)}
    assert told["files"] == "xxh3:00ff"
    assert told["identities"] == f"voice {LOUD.identified.digest}"


def test_an_identity_is_found_by_its_digest(engine: Engine) -> None:
    engine.run(shout("hey", LOUD))
    (record,) = [r for _, r in engine.store.records() if "voice" in inputs_of(r)]  # type: ignore[arg-type]
    assert identity_of(engine.store, inputs_of(record)["voice"]) == {"name": "loud"}  # type: ignore[arg-type]
    other = Resource("voice", {"name": "other"}, lambda: "")
    assert identity_of(engine.store, other.identified) is None


def test_an_unreadable_payload_is_reported_and_not_raised(engine: Engine) -> None:
    engine.run(double(1))
    ((_, record),) = engine.store.records()
    assert not isinstance(record, Exception)
    broken = msgspec.structs.replace(record, payload=b"?")
    assert "cannot be read" in summary("double", broken)


def test_the_folder_of_a_disk_cache_is_known_and_nothing_is_made(tmp_path: Path) -> None:
    assert disk_folder(f"disk:{tmp_path}/no/such") == tmp_path / "no" / "such"
    assert disk_folder("disk:~/x") == Path("~/x").expanduser().resolve()
    assert disk_folder("memory:") is None
    assert disk_folder("disk:") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cost", [math.inf, -math.inf, math.nan, 1e308])
def test_a_cost_without_end_is_left_out(engine: Engine, cost: float) -> None:
    @node(version="1", name="costly")
    def costly(x: int) -> Computed[int]:
        return Computed(x, cost={"tokens": cost if x else 10.0})

    for _ in range(12):
        engine.run([costly(0), costly(1)])
    engine.store.flush()
    found = contents_of(engine.store).saved
    assert all(map(math.isfinite, found.values()))
    assert found["tokens"] >= 10 * 11
    plan = engine.plan([costly(2)])["costly"]
    assert all(map(math.isfinite, plan.cost.values()))


@node(version="1", name="plain", tags=("mine",))
def plain(x: int) -> int:
    return x


@pytest.mark.parametrize("url", ["memory:", "disk:"])
def test_records_with_labels_are_counted_unread(url: str, tmp_path: Path) -> None:
    backend = FaultyBackend() if url == "memory:" else DiskBackend(tmp_path)
    with Engine(backend) as engine:
        engine.run([plain(x) for x in range(5)] + [double(x) for x in range(3)])
        engine.run([plain(x) for x in range(2)])
        engine.store.flush()
        if isinstance(backend, FaultyBackend):
            backend.counts.clear()
        found = contents_of(engine.store)
        assert {name: (n.records, n.hits) for name, n in found.nodes.items()} == {
            "plain": (5, 2),
            "double": (3, 0),
        }
        assert found.bytes == sum(entry.size for entry in backend.scan())
        assert found.nodes["plain"].saved["seconds"] > 0
        if isinstance(backend, FaultyBackend):
            assert backend.counts["keys read"] == 0
        page = page_of(engine.store, limit=2)
        assert page.totals == {"double": 3, "plain": 5}
        assert [line.node for line in page.lines] == ["double", "double", "plain", "plain"]
        if isinstance(backend, FaultyBackend):
            assert backend.counts["keys read"] == 4
        assert contents_of(engine.store, tag="mine").records == 5
        assert contents_of(engine.store, node="double").records == 3
        assert contents_of(engine.store, unused_since=time.time() - 60).records == 0
        later = time.time() + 60
        assert contents_of(engine.store, unused_since=later, tag="mine").records == 5
        assert page_of(engine.store, unused_since=later, tag="mine", limit=1).totals == {"plain": 5}
    backend.close()


def test_a_record_is_found_by_its_key_or_how_that_begins(engine: Engine) -> None:
    engine.run([double(21), plain(3)])
    engine.run(double(21))
    engine.store.flush()
    key = next(line.key.hex() for line in lines_of(engine.store, "double"))
    for given in (key, key[:12].upper()):
        found = find_record(engine.store, given)
        assert found is not None
        assert (found.node, found.version, found.inputs, found.value) == (
            *("double", "1", {"x": 21}),
            42,
        )
        assert found.entry.hits == 1
        assert found.record.cost == {"tokens": 10}
    assert find_record(engine.store, "0" * 32) is None
    with pytest.raises(InputError, match="is not a key"):
        find_record(engine.store, "double")
