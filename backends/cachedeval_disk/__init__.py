"""The disk backend."""
