"""What a delete gives back, and what sizes say."""

import os
import random
import time
from pathlib import Path

import pytest

from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import DiskBackend

pytestmark = pytest.mark.slow


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _fill(backend: DiskBackend, number: int, most: int, chance: random.Random) -> list[bytes]:
    keys: list[bytes] = []
    for _ in range(number // 50):
        items = {chance.randbytes(16): chance.randbytes(chance.randint(1, most)) for _ in range(50)}
        backend.put_many(items)
        keys += items
    return keys


@pytest.mark.parametrize("most", [300, 3_000, 12_000, 150_000])
def test_sizes_add_up_to_what_the_disk_says(tmp_path: Path, most: int) -> None:
    backend = DiskBackend(tmp_path)
    _fill(backend, min(3000, 20_000_000 // most // 50 * 50), most, random.Random(most))
    backend.close()
    told = sum(entry.size for entry in backend.scan())
    backend.close()
    assert 0.8 < told / _on_disk(tmp_path) < 1.25


@pytest.mark.parametrize("most", [300, 3_000, 150_000])
@pytest.mark.parametrize("which", ["old", "any"])
def test_a_pruned_folder_is_smaller_on_disk(tmp_path: Path, most: int, which: str) -> None:
    chance = random.Random(most)
    backend = DiskBackend(tmp_path)
    keys = _fill(backend, min(4000, 20_000_000 // most // 50 * 50), most, chance)
    backend.touch_many(dict.fromkeys(keys, 1), 2e9)
    backend.close()
    before = _on_disk(tmp_path)
    reader = DiskBackend(tmp_path)  # which stays open
    assert len(reader.get_many(keys)) == len(keys)

    gone = keys[: len(keys) * 3 // 4]
    if which == "any":
        gone = chance.sample(keys, len(gone))
    assert backend.delete_many(gone) == len(gone)
    told = sum(entry.size for entry in backend.scan())
    after = _on_disk(tmp_path)
    beside = 120_000  # an empty database, the file that readers share
    assert after < before * 0.33 + beside
    assert told * 0.75 < after < told * 1.3 + beside
    assert len(reader.get_many(keys)) == len(keys) - len(gone)

    assert backend.delete_many(keys) == len(keys) - len(gone)
    assert _on_disk(tmp_path) < 250_000
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    backend.close()
    reader.close()


def test_pruning_and_writing_at_once_disturb_neither(tmp_path: Path) -> None:
    until = time.monotonic() + 2

    def write(channel: Channel) -> None:
        backend = DiskBackend(tmp_path)
        chance = random.Random(os.getpid())
        while time.monotonic() < until:
            keys = _fill(backend, 50, 5000, chance)
            values = backend.get_many(keys)
            assert all(len(value) >= 1 for value in values.values())
            backend.touch_many(dict.fromkeys(keys, 1), time.time())
            with backend.lease(keys[0]) as mine:
                assert mine
        channel.send()
        backend.close()

    pruner = DiskBackend(tmp_path)
    pruned = 0
    with ForkedProcess(write) as one, ForkedProcess(write) as other:
        while time.monotonic() < until:
            entries = sorted(pruner.scan(), key=lambda entry: entry.used)
            total = sum(entry.size for entry in entries)
            gone = []
            for entry in entries:
                if total <= 200_000:
                    break
                gone.append(entry.key)
                total -= entry.size
            pruned += pruner.delete_many(gone)
            time.sleep(0.02)
        for child in (one, other):
            assert child.channel.receive()
            child.finish()
    assert pruned > 100
    kept = [entry.key for entry in pruner.scan()]
    assert len(pruner.get_many(kept)) == len(kept)
    pruner.delete_many(kept)
    assert _on_disk(tmp_path) < 250_000
    pruner.close()
