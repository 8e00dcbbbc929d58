"""`cachedeval cache prune`: deletes old records, and cheap ones."""

from typing import TYPE_CHECKING

from cachedeval.cli.cache import add_filters, open_store
from cachedeval.cli.format import plural, show, show_bytes, show_json
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json, duration, size
from cachedeval.engine.backend import shown_url
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from cachedeval.engine.maintenance import PruneReport

__all__ = ["declare", "execute", "show_pruned"]


def declare(parser: Parser) -> None:
    """Add the options."""
    add_cache(parser)
    parser.add_argument(
        "--older-than",
        type=duration,
        metavar="TIME",
        help="Delete what has not been used for this time, such as 30d or 12h.",
    )
    parser.add_argument(
        "--max-size",
        type=size,
        metavar="SIZE",
        help="Then delete what is cheapest to compute, and of that what was used least recently, "
        "down to this size, such as 2GB.",
    )
    add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="Only show what would be deleted.")
    add_json(parser, "the counts")


def execute(options: Namespace) -> None:
    """Delete old records, or cheap ones down to a size; runs may continue.

    What took little time to compute is deleted before what took much, and both before what cost
    tokens or money. `--node`, `--tag` or
    `--unused-since` alone deletes all those records.
    """
    from cachedeval.engine.maintenance import prune

    limits = (options.older_than, options.max_size, options.unused_since, options.node, options.tag)
    if all(limit is None for limit in limits):
        raise InputError(
            "cache prune: give --older-than, --max-size, or both (or --unused-since, --node, --tag)"
        )
    with open_store(options.cache) as store:
        report = prune(
            store,
            older_than=options.older_than,
            max_bytes=options.max_size,
            node=options.node,
            tag=options.tag,
            unused_since=options.unused_since,
            dry_run=options.dry_run,
        )
    show_pruned(options, report)


def show_pruned(options: Namespace, report: "PruneReport") -> None:
    """Show what was deleted, and what is left."""
    cache = shown_url(options.cache)
    if options.json:
        show_json({"cache": cache, **report._asdict()})
        return
    would = "would delete" if report.dry_run else "deleted"
    show(
        f"{cache}: {would} {plural(report.deleted, 'record')} ({show_bytes(report.freed)}); "
        f"{plural(report.kept, 'record')} ({show_bytes(report.kept_bytes)}) "
        f"{'would stay' if report.dry_run else 'stay' if report.kept != 1 else 'stays'}"
    )
