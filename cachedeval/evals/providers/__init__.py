"""Judges: one small module a provider."""
