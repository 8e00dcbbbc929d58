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

import xxhash

__all__ = ["digest_bytes"]


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the `xxh3:` digest of the bytes: the tag and 32 hexadecimal digits."""
    return "xxh3:" + xxhash.xxh3_128_hexdigest(data)
