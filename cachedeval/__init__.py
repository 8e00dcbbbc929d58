"""cachedeval: a content-addressed caching engine, and evaluations of adapters built on it."""
