"""Remembers which parameters a judge's service refuses, so that a run of hits need not ask.

The key of a verdict holds the parameters that were really sent, and is made before anything is sent.
So what a service refused is stored, beside the digests of files, and recalled for the next keys.
"""

from contextlib import suppress
from typing import Any

import msgspec
import xxhash

from cachedeval.engine.digest_cache import DigestCache, ProcessDigestCache
from cachedeval.engine.encoding import encode

__all__ = ["RefusedNote"]


class RefusedNote:
    """The parameters that one service refuses, as far as a cache knows.

    Args:
        identity: The judge's.

    Attributes:
        names: All of them.
    """

    def __init__(self, identity: Any) -> None:
        self.names = frozenset[str]()
        self._about = encode(("refused parameters", identity))
        self._key = xxhash.xxh3_128_digest(self._about)
        self._cache: DigestCache = ProcessDigestCache()

    def recall(self, cache: DigestCache) -> None:
        """Read from a cache, and write there from now on."""
        self._cache = cache
        value = cache.get_many([self._key]).get(self._key)
        if value is None or not value.startswith(self._about):  # of another service
            return
        with suppress(msgspec.DecodeError):
            stored = msgspec.json.decode(value[len(self._about) :], type=list[str])
            self.names |= frozenset(stored)

    def remember(self, names: frozenset[str]) -> None:
        """Store all the parameters that the service refuses; from any thread."""
        self.names |= names
        value = self._about + msgspec.json.encode(sorted(self.names))
        self._cache.put_many({self._key: value})
