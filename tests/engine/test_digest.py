import hashlib
import sys

import pytest

from cachedeval.engine.digest import digest_bytes, digest_identity


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


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100_000])
@pytest.mark.parametrize("missing", [[], ["_sha256", "_sha2"]], ids=["own", "openssl"])
def test_an_identity_s_digest_is_its_sha256(
    size: int, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    data = bytes(range(256)) * (size // 256 + 1)
    wanted = hashlib.sha256(data[:size]).hexdigest()
    assert digest_identity(data[:size]) == f"sha256:{wanted}"
