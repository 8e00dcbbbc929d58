"""`cachedeval cache show`: one record."""

import json
import time
from typing import TYPE_CHECKING, Any

from cachedeval.cli.cache import open_store
from cachedeval.cli.format import show, show_age, show_bytes, show_cost, show_json, show_seconds
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json
from cachedeval.engine.backend import shown_url
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from cachedeval.engine.maintenance import Shown

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("key", metavar="KEY", help="The record's key, or how it begins.")
    add_cache(parser)
    add_json(parser, "the record")


def execute(options: Namespace) -> None:
    """Show one record: its recipe, value, provenance, cost and uses."""
    from cachedeval.engine.maintenance import find_record

    with open_store(options.cache) as store:
        found = find_record(store, options.key)
    if found is None:
        raise InputError(
            f"cache {shown_url(options.cache)}: no record with the key {options.key!r}; "
            "`cachedeval cache ls` lists the keys"
        )
    if options.json:
        show_json(_as_json(found))
        return
    now = time.time()
    entry, record = found.entry, found.record
    used = f"{entry.hits:,}, the last {show_age(entry.used, now)} ago" if entry.hits else "never"
    cost = show_cost(record.cost)
    lines = [
        f"key         {entry.key.hex()}",
        f"step        {found.node}",
        f"version     {found.version}",
        f"tags        {', '.join(record.tags) or '—'}",
        f"stored      {show_age(record.created, now)} ago, {show_bytes(entry.size)}",
        f"took        {show_seconds(record.seconds)}{f', {cost}' if cost else ''}",
        f"hits        {used}",
        f"output      {record.digest}",
        "inputs",
        *(f"  {name} = {_shown(value)}" for name, value in found.inputs.items()),
        "value",
        f"  {_shown(found.value)}",
    ]
    if record.provenance:
        lines += ["provenance", *(f"  {k} = {_shown(v)}" for k, v in record.provenance.items())]
    show("\n".join(lines))


def _as_json(found: "Shown") -> dict[str, Any]:
    entry, record = found.entry, found.record
    return {
        "key": entry.key.hex(),
        "node": found.node,
        "version": found.version,
        "inputs": {name: _plain(value) for name, value in found.inputs.items()},
        "value": _plain(found.value),
        "digest": record.digest,
        "created": _plain(record.created),
        "seconds": _plain(record.seconds),
        "cost": _plain(record.cost),
        "tags": list(record.tags),
        "provenance": _plain(record.provenance),
        "size": entry.size,
        "hits": entry.hits,
        "used": entry.used if entry.hits else None,
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; as text what JSON does not have."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return _shown(value)


def _shown(value: Any) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except RecursionError:
        return "(nested too deeply to show)"
