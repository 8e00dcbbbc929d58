"""A memo of file digests that is kept in a store, so that an unchanged file is read once."""

from collections.abc import Mapping, Sequence

from cachedeval.engine.recipe import RecipeHead, key_of
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = ["StoreMemo"]

_HEAD = RecipeHead("(file)", "1", ("stat",))


class StoreMemo:
    """Keeps digests as records of their own. Safe to use from several threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, bytes]:
        """Return what is held of the keys."""
        recipes = {key: _HEAD.recipe({"stat": key}) for key in keys}
        asked = {key_of(recipe): recipe for recipe in recipes.values()}
        records = self._store.get_many(asked)
        return {
            key: record.payload
            for key, recipe in recipes.items()
            if (record := records.get(key_of(recipe))) is not None and record.recipe == recipe
        }

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Keep the items."""
        records = {}
        for key, value in items.items():
            recipe = _HEAD.recipe({"stat": key})
            records[key_of(recipe)] = Record(recipe, value, "", 0.0, 0.0)
        self._store.put_many(records)
