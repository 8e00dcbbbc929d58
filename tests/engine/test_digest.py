import pytest

from cachedeval.engine.digest import digest_bytes


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "xxh3:99aa06d3014798d86001c324468d497f"),
        (b"cachedeval", "xxh3:bf072c442832d03ad132975d89a7bfef"),
    ],
)
def test_digests_are_pinned(data: bytes, digest: str) -> None:
    assert digest_bytes(data) == digest


def test_any_buffer_with_the_same_bytes_has_the_same_digest() -> None:
    data = bytes(range(256))
    assert digest_bytes(bytearray(data)) == digest_bytes(data)
    assert digest_bytes(memoryview(data)) == digest_bytes(data)
