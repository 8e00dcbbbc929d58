"""Tiny models, made once for all tests here."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_model import make_tiny_model

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that gives the folder of a tiny model; the same one for the same kind."""
    base = tmp_path_factory.mktemp("models")

    def folder(**kind: object) -> Path:
        path = base / ("-".join(f"{k}={v}" for k, v in sorted(kind.items())) or "plain")
        return path if path.exists() else make_tiny_model(path, **kind)  # type: ignore[arg-type]

    return folder
