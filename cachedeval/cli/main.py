"""The entry point: finds the command, and turns errors into one line and an exit status.

| status | means |
| --- | --- |
| 0 | all questions scored |
| 2 | bad input or usage |
| 3 | finished, but some questions failed |
| 130 | interrupted, with what was done kept |
"""

import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

import cachedeval
from cachedeval.engine.errors import CachedevalError

__all__ = ["main"]

_COMMANDS = {
    "cache": "Look after a cache: stats, ls, prune, verify, audit, clear.",
    "compare": "Compare two adapters, or two saved reports, question by question.",
    "demo": "Evaluate two adapters of a small real model, then again from the cache.",
    "doctor": "Check what this machine has to run evaluations with.",
    "explain": "Say why each step that is missing in the cache is missing.",
    "plan": "Say what a run would compute and cost; loads and connects to nothing.",
    "run": "Evaluate adapters of a model on questions.",
}

_READER_LEFT = 128 + signal.SIGPIPE
_CACHE_COMMANDS = ("audit", "clear", "ls", "prune", "stats", "verify")


class _Lazy(click.Group):
    """Imports the module of the command that is wanted, and no other's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of that name.

        Raises:
            click.UsageError: there is none; the message says which may be meant.
        """
        if cmd_name not in _COMMANDS:
            from difflib import get_close_matches  # noqa: PLC0415  for a mistake only

            near = get_close_matches(cmd_name, _COMMANDS, n=1)
            if cmd_name in _CACHE_COMMANDS:
                near = [f"cache {cmd_name}"]
            meant = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no command {cmd_name!r}{meant}", ctx)
        command: click.Command = import_module(f"cachedeval.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of the output that went away ends it without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The last flush must have somewhere to go, or Python complains at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(_READER_LEFT) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table here, without importing their modules."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(cachedeval.__version__, prog_name="cachedeval")
def _group() -> None:
    """Evaluate fine-tuned language-model adapters, computing only what changed."""


def main(args: list[str] | None = None) -> Any:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        # A question may hold what no encoding has, a lone surrogate; showing it must not fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _group(args, prog_name="cachedeval", standalone_mode=False)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        _complain(error)
        status = error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        _interrupted()
    except CachedevalError as error:
        click.echo(f"cachedeval: {' '.join(str(error).split())}", err=True)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


def _complain(error: click.ClickException) -> None:
    """Say in one line what was wrong with the command line, and where to read more."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()  # nothing was wrong: its message is the help
        return
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    message = " ".join(error.format_message().split()).removesuffix(".")
    click.echo(f"cachedeval: {message}{hint}", err=True)


def _interrupted() -> None:
    click.echo(
        "\ncachedeval: interrupted; what was done is kept, and the same command goes on from there",
        err=True,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    # A model that decodes on its own thread would keep a normal exit waiting, or crash it when
    # the interpreter goes away under it. All results are on disk by now.
    os._exit(130)
