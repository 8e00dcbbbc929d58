"""The memory backend: values in a dictionary, gone with the process."""

from cachedeval_memory.backend import MemoryBackend, open_url

__all__ = ["MemoryBackend", "open_url"]
