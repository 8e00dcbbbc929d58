"""`cachedeval cache stats`: what is stored, and what its hits have saved."""

from cachedeval.cli.cache import add_filters, open_store
from cachedeval.cli.format import (
    plural,
    show,
    show_bytes,
    show_cost,
    show_json,
    show_seconds,
    table,
)
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json
from cachedeval.engine.backend import shown_url

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    add_cache(parser)
    add_filters(parser)
    add_json(parser, "the counts")


def execute(options: Namespace) -> None:
    """Show what is stored, by step, and the time and money that hits have saved."""
    from cachedeval.engine.maintenance import FILES, IDENTITIES, contents_of
    from cachedeval.evals.judging.money import SavedMoney
    from cachedeval.evals.judging.pricing import load_prices

    cache = shown_url(options.cache)
    money = SavedMoney()
    with open_store(options.cache) as store:
        found = contents_of(
            store,
            money,
            node=options.node,
            tag=options.tag,
            unused_since=options.unused_since,
        )
        dollars = money.usd(store, load_prices())
    saved = found.saved if dollars is None else {**found.saved, "usd": dollars}
    nodes = sorted(found.nodes.items(), key=lambda item: (item[0] in (FILES, IDENTITIES), item[0]))
    if options.json:
        show_json(
            {
                "cache": cache,
                "records": found.records,
                "bytes": found.bytes,
                "hits": found.hits,
                "corrupt": found.corrupt,
                "saved": saved,
                "nodes": {name: node.as_dict() for name, node in nodes},
            }
        )
        return
    show(f"{cache}: {plural(found.records, 'record')}, {show_bytes(found.bytes)}")
    if nodes:
        rows = [
            [
                name,
                f"{node.records:,}",
                show_bytes(node.bytes),
                f"{node.hits:,}",
                show_seconds(node.saved["seconds"]) if "seconds" in node.saved else "—",
                show_cost(node.saved),
            ]
            for name, node in nodes
        ]
        show(table(["step", "records", "size", "hits", "time saved", "cost saved"], rows))
    if dollars is not None:
        show(f"saved at list prices: {show_cost({'usd': dollars})}")
    if found.corrupt:
        show(
            f"corrupt: {plural(found.corrupt, 'record')}, {show_bytes(found.corrupt_bytes)}, never "
            "used; `cachedeval cache verify` lists them"
        )
