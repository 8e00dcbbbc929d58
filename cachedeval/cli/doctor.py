"""`cachedeval doctor`: checks that this machine can run evaluations."""

import os
import sys

from cachedeval.cli.format import show, show_json
from cachedeval.cli.options import Namespace, Parser, add_cache, add_json

__all__ = ["declare", "execute"]

_BAD = 2
_COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


def declare(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument(
        "--model", metavar="M", help="Also check this model: a folder or a name on the hub."
    )
    parser.add_argument("--judge", metavar="J", help="Check that this judge has its key or model.")
    add_cache(parser)
    add_json(parser, "the checks")


def execute(options: Namespace) -> int:
    """Check device, libraries, model, judge key, cache and disk, and say what to do.

    Loads no model and opens no connection. The exit status is 2 if a check fails.
    """
    from cachedeval.evals.doctor import examine

    checks = []
    for check in examine(model=options.model, judge=options.judge, cache=options.cache):
        checks.append(check)
        if not options.json:  # each at once: some checks take seconds
            show(f"  {check.name:<8}  {check.found}", before=_state(check.state))
            if check.advice:
                show(f"{'':16}{check.advice}")
    if options.json:
        show_json([check._asdict() for check in checks])
    return _BAD if any(check.state == "fail" for check in checks) else 0


def _state(state: str) -> str:
    padded = f"{state:<4}"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return padded
    return f"{_COLOURS[state]}{padded}\x1b[0m"
