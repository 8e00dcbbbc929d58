"""The engine: it memoizes steps, and knows no language model."""
