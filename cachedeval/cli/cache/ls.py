"""`cachedeval cache ls`: the records of a cache."""

import time

from cachedeval.cli.cache import open_store
from cachedeval.cli.format import short, show, show_age, show_bytes, show_json, table
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json, at_least
from cachedeval.engine.errors import InputError

__all__ = ["declare", "execute"]

_SHOWN = 20


def declare(parser: Parser) -> None:
    """Add the options."""
    add_cache(parser)
    parser.add_argument(
        "--node", metavar="STEP", help="Only records of this step: generation, judge, files, …"
    )
    parser.add_argument(
        "--limit",
        type=at_least(0),
        metavar="N",
        help=f"Records shown of each step, 0 for all (default: {_SHOWN}; all with --json).",
    )
    add_json(parser, "the records")


def execute(options: Namespace) -> None:
    """List the records, by step, the newest first."""
    from cachedeval.engine.maintenance import contents_of, lines_of
    from cachedeval.evals.steps import summarise

    cache, node, limit = options.cache, options.node, options.limit
    with open_store(cache) as store:
        lines = lines_of(store, node, summarise)
        if node is not None and not lines:
            steps = ", ".join(sorted(contents_of(store).nodes)) or "no records at all"
            raise InputError(f"cache {cache}: no records of a step {node!r}; there are {steps}")
    most = (0 if options.json else _SHOWN) if limit is None else limit
    counts: dict[str, int] = {}
    shown = []
    for line in lines:
        counts[line.node] = counts.get(line.node, 0) + 1
        if not most or counts[line.node] <= most:
            shown.append(line)
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
    for name, count in counts.items():
        if most and count > most:
            show(f"… and {count - most:,} more of {name}; --limit 0 shows all")
