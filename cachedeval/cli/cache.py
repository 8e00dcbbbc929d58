"""`cachedeval cache`: looks after a cache. Looking at one that is not there creates nothing."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from cachedeval.cli.audit import command as audit
from cachedeval.cli.figures import plural, show_age, show_cost, show_seconds
from cachedeval.cli.options import cache_option
from cachedeval.cli.output import bytes_of, duration_of, short, show_bytes, table
from cachedeval.engine.contents import FILES, IDENTITIES, contents_of, disk_folder, lines_of
from cachedeval.engine.errors import InputError
from cachedeval.engine.open import open_backend
from cachedeval.engine.prune import PruneReport, prune
from cachedeval.engine.store import Store

__all__ = ["command"]

_FAULTY = 3
_SHOWN = 20
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look after a cache."""


command.add_command(audit)


@contextmanager
def _store_of(url: str) -> Iterator[Store]:
    """Give the store of a cache that is there."""
    folder = disk_folder(url)
    if folder is not None and not folder.exists():
        raise InputError(f"cache {url}: there is no such folder; the first run makes it")
    store = Store(open_backend(url))
    try:
        yield store
    finally:
        store.close()


def _show_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def _parsed(parse: Callable[[str], Any]) -> Callable[[Any, Any, str | None], Any]:
    return lambda _context, _parameter, given: None if given is None else parse(given)


@command.command("stats")
@cache_option
@_json_option
def stats(cache: str, *, as_json: bool) -> None:
    """Show what is kept, by step, and the time and money that hits have saved."""
    from cachedeval.evals.judging.money import SavedMoney  # noqa: PLC0415  not for --help
    from cachedeval.evals.judging.pricing import load_prices  # noqa: PLC0415

    money = SavedMoney()
    with _store_of(cache) as store:
        found = contents_of(store, money)
        dollars = money.usd(store, load_prices())
    saved = found.saved if dollars is None else {**found.saved, "usd": dollars}
    nodes = sorted(found.nodes.items(), key=lambda item: (item[0] in (FILES, IDENTITIES), item[0]))
    if as_json:
        _show_json(
            {
                "cache": cache,
                "records": found.records,
                "bytes": found.bytes,
                "hits": found.hits,
                "damaged": found.damaged,
                "saved": saved,
                "nodes": {name: node.as_dict() for name, node in nodes},
            }
        )
        return
    click.echo(f"{cache}: {plural(found.records, 'record')}, {show_bytes(found.bytes)}")
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
        click.echo(table(["step", "records", "size", "hits", "time saved", "cost saved"], rows))
    if dollars is not None:
        click.echo(f"saved at list prices: {show_cost({'usd': dollars})}")
    if found.damaged:
        click.echo(
            f"damaged: {plural(found.damaged, 'record')}, {show_bytes(found.damaged_bytes)}, never "
            "served; `cachedeval cache verify` tells which"
        )


@command.command("ls")
@cache_option
@click.option("--node", metavar="STEP", help="Of this step alone: generation, judge, files, …")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Records shown of each step, 0 for all.  [default: {_SHOWN}; with --json all]",
)
@_json_option
def ls(cache: str, node: str | None, limit: int | None, *, as_json: bool) -> None:
    """List the records, by step, the newest first."""
    from cachedeval.evals.listing import summarise  # noqa: PLC0415  not for --help

    with _store_of(cache) as store:
        lines = lines_of(store, node, summarise)
        if node is not None and not lines:
            steps = ", ".join(sorted(contents_of(store).nodes)) or "no records at all"
            raise InputError(f"cache {cache}: no records of a step {node!r}; there are {steps}")
    most = (0 if as_json else _SHOWN) if limit is None else limit
    counts: dict[str, int] = {}
    shown = []
    for line in lines:
        counts[line.node] = counts.get(line.node, 0) + 1
        if not most or counts[line.node] <= most:
            shown.append(line)
    if as_json:
        _show_json([{**line._asdict(), "key": line.key.hex()} for line in shown])
        return
    if not shown:
        click.echo(f"{cache}: no records")
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
    click.echo(table(["step", "key", "size", "age", "used", "hits", "what"], rows))
    for name, count in counts.items():
        if most and count > most:
            click.echo(f"… and {count - most:,} more of {name}; --limit 0 shows all")


@command.command("prune")
@cache_option
@click.option(
    "--older-than",
    callback=_parsed(duration_of),
    metavar="TIME",
    help="Delete what was not used for so long, as in 30d or 12h.",
)
@click.option(
    "--max-size",
    callback=_parsed(bytes_of),
    metavar="SIZE",
    help="Then delete what was used least recently, down to this size, as in 2GB.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@_json_option
def prune_(
    cache: str, older_than: timedelta | None, max_size: int | None, *, dry_run: bool, as_json: bool
) -> None:
    """Delete what is too old, and what is too much. Runs may go on meanwhile."""
    if older_than is None and max_size is None:
        raise click.UsageError("give --older-than, --max-size, or both")
    with _store_of(cache) as store:
        report = prune(store.backend, older_than=older_than, max_bytes=max_size, dry_run=dry_run)
    _show_pruned(cache, report, as_json=as_json)


@command.command("verify")
@cache_option
@click.option("--delete", is_flag=True, help="Delete what is damaged.")
@_json_option
def verify_(cache: str, *, delete: bool, as_json: bool) -> int:
    """Read every record and check it. The exit status is 3 if something damaged is left."""
    from cachedeval.engine.verify import verify  # noqa: PLC0415  not for --help

    with _store_of(cache) as store:
        found = verify(store, delete=delete)
    if as_json:
        _show_json(
            {
                "cache": cache,
                "good": found.good,
                "damaged": len(found.damaged),
                "foreign": len(found.foreign),
                "deleted": len(found.damaged) if found.deleted else 0,
                "faults": [
                    {"key": fault.key.hex(), "size": fault.size, "why": fault.why}
                    for fault in (*found.damaged, *found.foreign)
                ],
            }
        )
    else:
        _show_verified(cache, found, deleted=delete)
    return 0 if found.sound else _FAULTY


def _show_verified(cache: str, found: Any, *, deleted: bool) -> None:
    click.echo(
        f"{cache}: {found.good:,} good ({show_bytes(found.good_bytes)}), "
        f"{len(found.damaged):,} damaged, {len(found.foreign):,} foreign"
    )
    for fault in found.damaged[:_SHOWN]:
        click.echo(f"  damaged {fault.key.hex()}  {show_bytes(fault.size)}  {fault.why}")
    if len(found.damaged) > _SHOWN:
        click.echo(f"  … and {len(found.damaged) - _SHOWN:,} more; --json tells them all")
    if found.foreign:
        click.echo("foreign ones were written by another version, which may be using them")
    if found.damaged and deleted:
        click.echo("the damaged ones are deleted; what they held is computed again when needed")
    elif found.damaged:
        click.echo("damaged ones are never served, but computed again; --delete removes them")


@command.command("clear")
@cache_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
def clear(cache: str, *, yes: bool, as_json: bool) -> None:
    """Delete all records; asks first."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked whether to delete all; give --yes")
    with _store_of(cache) as store:
        if not yes:
            found = prune(store.backend, older_than=None, max_bytes=0, dry_run=True)
            what = f"{plural(found.deleted, 'record')} ({show_bytes(found.freed)})"
            if not click.confirm(f"Delete {what} of {cache}?", err=True):
                click.echo("nothing is deleted", err=True)
                return
        report = prune(store.backend, older_than=None, max_bytes=0, dry_run=False)
    _show_pruned(cache, report, as_json=as_json)


def _show_pruned(cache: str, report: PruneReport, *, as_json: bool) -> None:
    if as_json:
        _show_json({"cache": cache, **report._asdict()})
        return
    would = "would delete" if report.dry_run else "deleted"
    click.echo(
        f"{cache}: {would} {plural(report.deleted, 'record')} ({show_bytes(report.freed)}); "
        f"{plural(report.kept, 'record')} ({show_bytes(report.kept_bytes)}) "
        f"{'would stay' if report.dry_run else 'stay' if report.kept != 1 else 'stays'}"
    )
