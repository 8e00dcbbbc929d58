"""Metrics against the reference answers."""
