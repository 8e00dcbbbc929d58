"""Digests: content hashes that carry the name of their algorithm.

A digest is text, `<algorithm>:<lower-case hex>`. Two digests of different algorithms are never
equal, so that a change of algorithm is a miss and not a mistake.

| tag | is |
| --- | --- |
| `xxh3` | xxh3_128 over the bytes, seed 0, canonical (big-endian) |
| `xxh3t` | the same over a tree of chunks, for large files: see `cachedeval.engine.reading` |
| `sha256` | SHA-256 over the bytes, where somebody else has named a file by it |

xxh3 is fast and not cryptographic: whoever can choose the bytes can make two contents share a
digest. It tells apart what changed, not what was forged.
"""

from importlib import import_module
from typing import Any

import xxhash

__all__ = ["digest_bytes", "digest_identity"]


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the `xxh3:` digest of the bytes: the tag and 32 hexadecimal digits."""
    return "xxh3:" + xxhash.xxh3_128_hexdigest(data)


def digest_identity(data: bytes) -> str:
    """Return the `sha256:` digest of the few short texts that even a run of hits digests.

    OpenSSL takes 3 ms to load. The interpreter's own sha256, a tenth as fast, is there at once; a
    build that lacks it has OpenSSL's.
    """
    for module in ("_sha2", "_sha256", "hashlib"):  # from Python 3.12 on, before, and for sure
        try:
            sha256: Any = import_module(module).sha256
        except (ImportError, AttributeError):
            continue
        return f"sha256:{sha256(data).hexdigest()}"
    raise AssertionError("hashlib has a sha256")
