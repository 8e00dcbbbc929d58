"""`cachedeval doctor`: checks what this machine has to run evaluations with."""

import json

import click

from cachedeval.cli.options import cache_option

__all__ = ["command"]

_FAILED = 2
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor")
@click.option("--model", metavar="M", help="Also look at this model: a folder, or its name.")
@click.option("--judge", metavar="J", help="Check that this judge can be asked.")
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def command(model: str | None, judge: str | None, cache: str, *, as_json: bool) -> int:
    """Check device, libraries, model, judge's key, cache and disk, and say what to do.

    Loads no model and connects to nothing. The exit status is 2 if something fails.
    """
    from cachedeval.evals.doctor import examine  # noqa: PLC0415  not for --help

    checks = []
    for check in examine(model=model, judge=judge, cache=cache):
        checks.append(check)
        if not as_json:  # each as soon as it is there: some take seconds
            state = click.style(f"{check.state:<4}", fg=_COLOURS[check.state])
            click.echo(f"{state}  {check.name:<8}  {check.found}")
            if check.advice:
                click.echo(f"{'':16}{check.advice}")
    if as_json:
        click.echo(json.dumps([check._asdict() for check in checks], indent=2))
    return _FAILED if any(check.state == "fail" for check in checks) else 0
