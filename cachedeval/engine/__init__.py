"""The engine: memoizes steps by content; it knows nothing of language models."""
