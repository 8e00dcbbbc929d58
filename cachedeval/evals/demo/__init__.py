"""The demo: a small real model made from a package of the index, adapters, questions."""

from cachedeval.evals.demo.model import ensure_demo_model

__all__ = ["ensure_demo_model"]
