"""`cachedeval cache clear`: deletes all records, or all of a step or tag."""

import sys
from functools import partial

from cachedeval.cli.cache import add_filters, open_store
from cachedeval.cli.cache.prune import show_pruned
from cachedeval.cli.format import clean, plural, show, show_bytes
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json
from cachedeval.cli.streams import write
from cachedeval.engine.backend import shown_url
from cachedeval.engine.errors import InputError

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    add_cache(parser)
    add_filters(parser)
    parser.add_argument("--yes", action="store_true", help="Do not ask for confirmation.")
    add_json(parser, "the counts")


def execute(options: Namespace) -> None:
    """Delete all records, after asking for confirmation."""
    from cachedeval.engine.maintenance import prune

    if not options.yes and not sys.stdin.isatty():
        raise InputError("cache clear: there is no terminal to ask for confirmation on; give --yes")
    with open_store(options.cache) as store:
        delete = partial(
            prune,
            store,
            max_bytes=0,
            unused_since=options.unused_since,
            node=options.node,
            tag=options.tag,
        )
        if not options.yes:
            found = delete(dry_run=True)
            what = f"{plural(found.deleted, 'record')} ({show_bytes(found.freed)})"
            if not _confirmed(f"Delete {what} of {shown_url(options.cache)}?"):
                show("nothing is deleted", error=True)
                return
        report = delete(dry_run=False)
    show_pruned(options, report)


def _confirmed(question: str) -> bool:
    """Ask on stderr; anything but `y` or `yes` is a no."""
    write(f"{clean(question)} [y/N]: ", error=True, end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
