"""The disk backend: a folder that several processes share; diskcache, hardened."""

from cachedeval_disk.backend import DiskBackend, open_url

__all__ = ["DiskBackend", "open_url"]
