"""`cachedeval cache ls`: the records of a cache."""

import time

from cachedeval.cli.cache import add_filters, open_store
from cachedeval.cli.format import short, show, show_age, show_bytes, show_json, table
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json, at_least
from cachedeval.engine.backend import shown_url
from cachedeval.engine.errors import InputError

__all__ = ["declare", "execute"]

_SHOWN = 20


def declare(parser: Parser) -> None:
    """Add the options."""
    add_cache(parser)
    add_filters(parser)
    parser.add_argument(
        "--limit",
        type=at_least(0),
        metavar="N",
        help=f"Records shown of each step, 0 for all (default: {_SHOWN}; all with --json).",
    )
    add_json(parser, "the records")


def execute(options: Namespace) -> None:
    """List the records, by step, the newest first."""
    from cachedeval.engine.maintenance import contents_of, page_of
    from cachedeval.evals.steps import summarise

    cache, node = shown_url(options.cache), options.node
    most = (0 if options.json else _SHOWN) if options.limit is None else options.limit
    with open_store(options.cache) as store:
        shown, totals = page_of(
            store,
            node=node,
            tag=options.tag,
            unused_since=options.unused_since,
            limit=most or None,
            summarise=summarise,
        )
        narrowed = options.tag is not None or options.unused_since is not None
        if node is not None and not totals and not narrowed:
            steps = ", ".join(sorted(contents_of(store).nodes)) or "no records at all"
            raise InputError(f"cache {cache}: no records of a step {node!r}; there are {steps}")
    if options.json:
        show_json([{**line._asdict(), "key": line.key.hex()} for line in shown])
        return
    if not shown:
        show(f"{cache}: no records")
        return
    now = time.time()
    rows = [
        [
            line.node,
            line.key.hex(),
            show_bytes(line.size),
            show_age(line.created, now),
            "never" if line.used is None else f"{show_age(line.used, now)} ago",
            line.hits,
            short(line.summary),
        ]
        for line in shown
    ]
    show(table(["step", "key", "size", "age", "used", "hits", "content"], rows))
    for name, count in totals.items():
        if most and count > most:
            show(f"… and {count - most:,} more of {name}; --limit 0 shows all")
