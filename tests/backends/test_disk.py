from pathlib import Path

from cachedeval.engine.backend import Backend
from cachedeval.testing import BackendContract
from cachedeval_disk import DiskBackend


class TestContract(BackendContract):
    def open_backend(self, place: Path) -> Backend:
        return DiskBackend(place / "cache")
