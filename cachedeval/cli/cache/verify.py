"""`cachedeval cache verify`: reads and checks every record."""

from typing import TYPE_CHECKING

from cachedeval.cli.cache import open_store
from cachedeval.cli.format import show, show_bytes, show_json
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json
from cachedeval.engine.backend import shown_url

if TYPE_CHECKING:
    from cachedeval.engine.maintenance import Verification

__all__ = ["declare", "execute"]

_CORRUPT = 3
_SHOWN = 20


def declare(parser: Parser) -> None:
    """Add the options."""
    add_cache(parser)
    parser.add_argument("--delete", action="store_true", help="Delete the corrupt records.")
    add_json(parser, "the result")


def execute(options: Namespace) -> int:
    """Read every record and check it. The exit status is 3 if corrupt records remain."""
    from cachedeval.engine.maintenance import verify

    with open_store(options.cache) as store:
        found = verify(store, delete=options.delete)
    if options.json:
        show_json(
            {
                "cache": shown_url(options.cache),
                "good": found.good,
                "corrupt": len(found.corrupt),
                "foreign": len(found.foreign),
                "deleted": len(found.corrupt) if found.deleted else 0,
                "faults": [
                    {"key": fault.key.hex(), "size": fault.size, "why": fault.why}
                    for fault in (*found.corrupt, *found.foreign)
                ],
            }
        )
    else:
        show(_show_verified(shown_url(options.cache), found, deleted=options.delete))
    return 0 if found.sound else _CORRUPT


def _show_verified(cache: str, found: "Verification", *, deleted: bool) -> str:
    counts = f"{len(found.corrupt):,} corrupt, {len(found.foreign):,} foreign"
    lines = [f"{cache}: {found.good:,} good ({show_bytes(found.good_bytes)}), {counts}"]
    lines += [
        f"  corrupt {fault.key.hex()}  {show_bytes(fault.size)}  {fault.why}"
        for fault in found.corrupt[:_SHOWN]
    ]
    if len(found.corrupt) > _SHOWN:
        lines.append(f"  … and {len(found.corrupt) - _SHOWN:,} more; --json shows all of them")
    if found.foreign:
        lines.append("foreign records were written by another version, which may still use them")
    if found.corrupt and deleted:
        lines.append("the corrupt records are deleted; their results are computed when needed")
    elif found.corrupt:
        lines.append("corrupt records are never used, but computed again; --delete removes them")
    return "\n".join(lines)
