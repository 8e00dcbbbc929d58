"""The entry point: finds the command, and turns errors into one line and an exit status.

A command is a module of this package with a function `declare(parser)`, which adds its options, and
a function `execute(options)`, which runs it and whose docstring is its help. A group is a package
with a table `COMMANDS` of its own. Only the module of the command that runs is imported.

| status | meaning |
| --- | --- |
| 0 | all questions have a score |
| 1 | a gate failed |
| 2 | bad input or usage |
| 3 | some questions failed, or a service or the cache failed in between |
| 130 | interrupted; finished results are stored |
"""

import os
import sys
from importlib import import_module

from cachedeval import __version__
from cachedeval.cli.streams import discard_output, prepare, write
from cachedeval.engine.errors import CachedevalError, InputError, MissingError

TYPE_CHECKING = False  # `typing` takes longer to import than all else that `--help` needs
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import NoReturn

__all__ = ["COMMANDS", "console", "execute", "main"]

COMMANDS = {
    "run": "Evaluate adapters of a model on questions.",
    "plan": "Show what a run would compute and what it would cost.",
    "explain": "Show why results of a run are not in the cache.",
    "compare": "Compare two adapters or two saved reports, question by question.",
    "show": "Show the answers of a saved report.",
    "history": "Show how scores changed over the saved reports of a folder.",
    "report": "Write saved reports as one page of HTML.",
    "cache": "Inspect and maintain a cache.",
    "doctor": "Check that this machine can run evaluations.",
    "demo": "Evaluate two adapters of a small real model, without a key.",
}

_ABOUT = "Evaluate fine-tuned language-model adapters; compute only what has changed."
_GROUPS = ("cache",)

_BAD_INPUT, _FAILED, _READER_LEFT, _INTERRUPTED = 2, 3, 128 + 13, 130


def main(args: "Sequence[str] | None" = None) -> "NoReturn":
    """Run the command line, and exit with its status as any Python program does.

    Args:
        args: the arguments; those of the process if None.

    Raises:
        SystemExit: always, with the exit status.

    Example:
        >>> main(["--version"])
        Traceback (most recent call last):
        SystemExit: 0
    """
    sys.exit(execute(sys.argv[1:] if args is None else args))


def console() -> "NoReturn":
    """Run the command line as the whole program: what the installed `cachedeval` does."""
    import gc

    _end_as_on_ctrl_c()
    # A command ends long before cyclic garbage matters; looking for it takes a twentieth of a start.
    gc.set_threshold(100_000, 20, 20)
    status = execute(sys.argv[1:])
    if status == _INTERRUPTED:
        # A thread that decodes would delay a normal exit, or crash it when the interpreter is
        # torn down under it. All finished results are stored by now.
        os._exit(status)
    if not _ends_normally():
        _leave(status)
    sys.exit(status)


def execute(args: "Sequence[str]") -> int:
    """Run the command that the arguments name, and return the exit status.

    Errors of this package end in one line on stderr; others are raised.
    """
    prepare()
    try:
        return _dispatch(list(args), "cachedeval", __package__, COMMANDS, _ABOUT)
    except BrokenPipeError:
        discard_output()
        return _READER_LEFT
    except KeyboardInterrupt:
        _complain("interrupted; finished results are stored, and the same command continues", "\n")
        return _INTERRUPTED
    except CachedevalError as error:
        _complain(str(error))
        return _BAD_INPUT if isinstance(error, InputError | MissingError) else _FAILED


def _dispatch(
    args: list[str], prog: str, package: str, commands: "Mapping[str, str]", about: str
) -> int:
    """Run one of the commands of a table; their modules are in the package."""
    if not args or args[0] in ("-h", "--help"):
        write(_help(prog, commands, about), error=not args)
        return 0 if args else _BAD_INPUT
    name, *rest = args
    if name == "--version" and commands is COMMANDS:
        write(f"cachedeval {__version__}")
        return 0
    if name not in commands:
        what = "option" if name.startswith("-") else "command"
        hint = _hint(name, commands)
        raise InputError(f"there is no {what} {name!r}{hint} (see {prog} --help)")
    module = import_module(f"{package}.{name.replace('-', '_')}")
    prog = f"{prog} {name}"
    if hasattr(module, "COMMANDS"):
        return _dispatch(rest, prog, module.__name__, module.COMMANDS, commands[name])
    from cachedeval.cli.format import clean_log
    from cachedeval.cli.options import Parser
    from cachedeval.engine import log

    log.configure = clean_log
    parser = Parser(prog, module.execute.__doc__)
    module.declare(parser)
    return int(module.execute(parser.parse(rest)) or 0)


def _help(prog: str, commands: "Mapping[str, str]", about: str) -> str:
    """Return the help of a table of commands, without importing them."""
    width = max(map(len, commands))
    lines = [f"Usage: {prog} COMMAND [options]", "", about, "", "Commands:"]
    lines += [f"  {name:<{width}}  {summary}" for name, summary in commands.items()]
    lines += ["", f"`{prog} COMMAND --help` shows the options of a command."]
    if commands is COMMANDS:
        lines += [
            "",
            "Options:",
            "  -h, --help  Show this help.",
            "  --version   Show the version.",
        ]
    return "\n".join(lines)


def _hint(name: str, commands: "Iterable[str]") -> str:
    """Return which command was probably meant, if one is close."""
    from difflib import get_close_matches

    known = {command: command for command in commands}
    if commands is COMMANDS:
        known["--version"] = "--version"
        for group in _GROUPS:
            members = import_module(f"{__package__}.{group}").COMMANDS
            known |= {member: f"{group} {member}" for member in members}
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _complain(message: str, before: str = "") -> None:
    from cachedeval.cli.format import clean

    write(f"{before}cachedeval: {clean(' '.join(message.split()))}", error=True)


def _end_as_on_ctrl_c() -> None:
    """Have SIGTERM end the process as SIGINT does: what is done is stored first."""
    try:  # the module `signal` takes longer to import than all else that `--help` needs
        import _signal as signal  # type: ignore[import-not-found]
    except ImportError:  # another Python than CPython
        import signal

    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _ends_normally() -> bool:
    """Return whether the process has to end as any Python program does.

    A profiler, a debugger and `python -i` wait for that end, and native code that ran a model may
    have buffers of its own to flush.
    """
    monitoring = getattr(sys, "monitoring", None)
    tools = monitoring is not None and any(map(monitoring.get_tool, range(6)))
    watched = tools or sys.gettrace() or sys.getprofile() or sys.flags.inspect
    return bool(watched) or "mlx" in sys.modules


def _leave(status: int) -> "NoReturn":
    """End the process as Python does, but leave it to the system to free the memory.

    Python would free each object on its own, which takes a quarter of a short run. What it promises
    for the end of a program is done: threads are joined, exit functions run, streams flushed.
    """
    import atexit

    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()  # noqa: SLF001  the interpreter calls it by this name
        atexit._run_exitfuncs()  # noqa: SLF001  likewise
    except KeyboardInterrupt:
        status = _INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or _FAILED
    os._exit(status)
