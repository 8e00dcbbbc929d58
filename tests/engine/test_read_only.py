"""A cache that may be read and not written."""

import errno
import logging
from typing import Any

import pytest

from cachedeval import Engine, node
from cachedeval_memory import MemoryBackend


@node(version="1")
def double(x: int) -> int:
    return x * 2


class _ReadOnly(MemoryBackend):
    locked = False

    def put_labelled(self, *arguments: Any) -> None:
        if self.locked:
            raise OSError(errno.EROFS, "Read-only file system")
        super().put_labelled(*arguments)


def test_a_cache_that_cannot_be_written_is_used_and_said_to_be_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = _ReadOnly()
    with Engine(backend) as engine, caplog.at_level(logging.WARNING):
        engine.run([double(1), double(2)])
        backend.locked = True
        outcomes = engine.settle([double(1), double(2), double(3)])
        engine.run([double(4)])
    assert [outcome.state for outcome in outcomes][:2] == ["hit", "hit"]
    assert [outcome.value for outcome in outcomes] == [2, 4, 6]
    assert caplog.text.count("can be read and not written") == 1
    assert "going on without" not in caplog.text
