"""Scorers: pure functions from an answer and its reference to a score from 0 to 1."""
