from pathlib import Path

import pytest

from cachedeval.engine.backend import Backend
from cachedeval.engine.errors import InputError
from cachedeval.testing import BackendContract
from cachedeval_memory import MemoryBackend, open_url


class TestContract(BackendContract):
    persistent = False
    shared = False

    def open_backend(self, place: Path) -> Backend:  # noqa: ARG002  it stores nothing there
        return MemoryBackend()


def test_each_url_is_a_store_of_its_own() -> None:
    one, other = open_url(""), open_url("")
    one.put_many({b"k" * 16: b"v"})
    assert other.get_many([b"k" * 16]) == {}


def test_a_url_with_more_is_refused() -> None:
    with pytest.raises(InputError, match="give 'memory:'"):
        open_url("somewhere")
