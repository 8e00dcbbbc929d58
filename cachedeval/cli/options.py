"""Declaring and reading options: the parser, types of values, and groups that commands share."""

import os
import re
import sys
from argparse import (
    Action,
    ArgumentParser,
    ArgumentTypeError,
    HelpFormatter,
    Namespace,
)
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from argparse import _ArgumentGroup
    from datetime import timedelta

    from cachedeval.evals.evaluator import AdapterEvaluator

__all__ = [
    "DEFAULT_CACHE",
    "Namespace",
    "Parser",
    "add_cache",
    "add_config",
    "add_evaluation",
    "add_json",
    "add_mode",
    "at_least",
    "duration",
    "evaluator_of",
    "json_object",
    "moment",
    "number",
    "size",
    "whole",
]

DEFAULT_CACHE = "disk:./eval_cache"

_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class _Formatter(HelpFormatter):
    """Argparse's help, with `Usage:` in front, and a description of several paragraphs.

    Argparse makes one for each option to check it, and would ask for the terminal's width each
    time, with modules that are slow to import; only the help needs it.
    """

    width = 80

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=self.width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(part, width, indent) for part in text.split("\n\n"))

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


class Parser(ArgumentParser):
    """A command's parser, whose errors are one line.

    Args:
        prog: the words that call the command: `cachedeval run`.
        about: what the command does; a docstring.
    """

    def __init__(self, prog: str, about: str | None) -> None:
        super().__init__(
            prog,
            description=about,
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self._positionals.title, self._optionals.title = "Arguments", "Options"
        self.reads_config = False
        self.add_argument("-h", "--help", action="help", help="Show this help.")

    def parse(self, args: list[str]) -> Namespace:
        """Return the values of the options.

        Raises:
            InputError: they cannot be used; the message says which and why.
        """
        # An option that does not exist is the likelier mistake than one that is missing, so
        # argparse's own check for missing ones, which comes first, is left out.
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        if self.reads_config:
            args = self._with_config(args)
        positional = any(not action.option_strings for action in self._actions)
        parse = self.parse_known_intermixed_args if positional else self.parse_known_args
        options, rest = parse(args)
        if rest:
            self._refuse(rest)
        for action in required:
            if getattr(options, action.dest) in (None, []):
                what = action.option_strings[0] if action.option_strings else action.metavar
                self.error(f"{what} is missing")
        if self.reads_config and options.print_config:
            from cachedeval.cli.config import to_toml
            from cachedeval.cli.streams import write

            write(to_toml(self, options).rstrip("\n"))
            raise SystemExit(0)
        return options

    def _with_config(self, args: list[str]) -> list[str]:
        """Return the arguments, preceded by those of the file of `--config` or the default one."""
        named = None
        for at, word in enumerate(args):
            if word.startswith("--config="):
                named = word.partition("=")[2]
            elif word == "--config":
                named = args[at + 1] if at + 1 < len(args) else named
        path = named or "cachedeval.toml"
        if named is None and not os.path.isfile(path):  # noqa: PTH113  pathlib is slow to import
            return args
        from cachedeval.cli.config import options_of, read_config

        def of_run() -> dict[str, Action]:
            from cachedeval.cli import run

            parser = Parser("cachedeval run", None)
            run.declare(parser)
            return options_of(parser)

        return [*read_config(path, options_of(self), args, of_run), *args]

    def format_help(self) -> str:
        """Return the help, with a usage line that leaves the options to the list below it."""
        from shutil import get_terminal_size

        _Formatter.width = get_terminal_size().columns - 2
        words = [action.metavar for action in self._actions if not action.option_strings]
        self.usage = " ".join([self.prog, *map(str, words), "[options]"])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            InputError: always.
        """
        message = re.sub(r"^argument (-\S+?)(/-\S+)*: ", r"\1: ", message)
        message = message.replace(
            "expected one argument",
            "a value is missing; write one that starts with - as OPTION=VALUE",
        )
        raise InputError(f"{message} (see {self.prog} --help)")

    def _refuse(self, rest: list[str]) -> NoReturn:
        from difflib import get_close_matches

        for word in rest:
            if word.startswith("-"):
                name = word.partition("=")[0]
                near = get_close_matches(name, self._option_string_actions, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.error(f"there is no option {name}{hint}")
        self.error(f"unexpected argument {rest[0]!r}")


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def _temperature(text: str) -> "float | Literal['default']":
    """Read a number, or `default`."""
    if text == "default":
        return "default"
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is neither a number nor `default`") from None


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object."""
    import json

    try:
        value = json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f'{text!r} is not a JSON object, as {{"enable_thinking": false}}')
    return value


def at_least(low: int) -> Callable[[str], int]:
    """Return what reads a whole number of `low` or more."""

    def read(text: str) -> int:
        if (value := whole(text)) < low:
            raise ArgumentTypeError(f"{text} is too small; give {low} or more")
        return value

    return read


def size(text: str) -> int:
    """Read a size, such as `2GB`, `512MB`, `100B` (powers of 1024); 0 needs no unit."""
    if re.fullmatch(r"0*[1-9]\d{0,20}(\.\d+)?", text.strip()):
        raise ArgumentTypeError(f"{text!r} has no unit; give {text}GB, {text}MB or {text}B")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    try:
        if found is not None:
            return int(float(found[1]) * _SIZES[found[2]])
    except OverflowError:
        pass
    raise ArgumentTypeError(f"{text!r} is not a size; give one like 2GB or 500MB")


def duration(text: str) -> "timedelta":
    """Read a duration, such as `30d`, `12h`, `90s`."""
    from datetime import timedelta

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    try:
        if found is not None:
            return timedelta(seconds=float(found[1]) * _TIMES[found[2]])
    except OverflowError:
        pass
    raise ArgumentTypeError(f"{text!r} is not a duration; give one like 30d, 12h or 90s")


def add_config(parser: Parser) -> None:
    """Add `--config` and `--print-config`: options from a file."""
    parser.reads_config = True
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="Options as TOML, by name; those on the command line win (default: cachedeval.toml, "
        "if it exists).",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="Print the options as such a file, and end."
    )


def moment(text: str) -> float:
    """Read a moment, such as `2026-11-30`, `2026-11-30T12:00` or `30d` ago; in seconds."""
    import time
    from datetime import datetime

    try:
        return time.time() - duration(text).total_seconds()
    except ArgumentTypeError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ArgumentTypeError(
            f"{text!r} is not a moment; give a date like 2026-11-30, or a time ago like 30d"
        ) from None


def add_json(parser: Parser, what: str) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=f"Print {what} as JSON.")


def add_cache(parser: "Parser | _ArgumentGroup") -> None:
    """Add `--cache`."""
    parser.add_argument(
        "--cache",
        default=os.environ.get("CACHEDEVAL_CACHE") or DEFAULT_CACHE,
        metavar="URL",
        help="Where results are stored: disk:PATH, memory:, or the URL of another installed "
        f"backend (default: {DEFAULT_CACHE}, or $CACHEDEVAL_CACHE).",
    )


def add_mode(parser: Parser) -> None:
    """Add `--cache`, and the options that say how a run uses the cache."""
    cache = parser.add_argument_group("Cache")
    add_cache(cache)
    modes = cache.add_mutually_exclusive_group()
    for name, mode, about in (
        ("--no-cache", "off", "Neither read nor write the cache."),
        ("--refresh", "refresh", "Compute everything again, and write it to the cache."),
        ("--offline", "offline", "Only read the cache; a missing result is an error."),
    ):
        modes.add_argument(
            name, dest="mode", action="store_const", const=mode, default="use", help=about
        )


def add_evaluation(parser: Parser, *, adapters: bool = True, data: bool = True) -> None:
    """Add the options that describe an evaluation; see `evaluator_of`.

    Args:
        parser: the command's.
        adapters: with `--adapter`.
        data: `--data` is required.
    """
    what = parser.add_argument_group("What is evaluated")
    what.add_argument(
        "--model",
        metavar="M",
        help="The base model: a folder or a name on the Hugging Face hub (default: "
        "$CACHEDEVAL_MODEL, or the model that the adapter was trained on).",
    )
    what.add_argument("--fetch", action="store_true", help="Download the model if it is missing.")
    if adapters:
        what.add_argument(
            "--adapter",
            dest="adapters",
            action="append",
            default=[],
            metavar="A",
            help="An adapter: a folder, a name in ./adapters/, or `base` for the base model "
            "without an adapter. Repeat it for more adapters (default: base).",
        )
    what.add_argument("--data", required=data, metavar="FILE", help="The questions, as JSON Lines.")
    what.add_argument(
        "--on-bad-line",
        choices=["error", "skip"],
        default="error",
        help="What a line of the data does that cannot be used: error ends the run, skip leaves it "
        "out and says so (default: %(default)s).",
    )
    what.add_argument(
        "--dedupe", action="store_true", help="Count a question that is repeated in the data once."
    )
    what.add_argument(
        "--num-questions",
        type=whole,
        default=20,
        metavar="N",
        help="How many questions are drawn (default: %(default)s).",
    )
    what.add_argument(
        "--seed",
        type=whole,
        default=42,
        metavar="N",
        help="Seed of the draw, and of answers above temperature 0 (default: %(default)s).",
    )
    what.add_argument(
        "--sampling",
        choices=["nested", "shuffle"],
        default="nested",
        help="How questions are drawn. nested: a larger draw contains the smaller one; shuffle: "
        "as the original script did (default: %(default)s).",
    )
    answers = parser.add_argument_group("Answers")
    answers.add_argument(
        "--max-tokens",
        type=whole,
        default=256,
        metavar="N",
        help="Most tokens of an answer (default: %(default)s).",
    )
    answers.add_argument(
        "--temperature",
        type=number,
        default=0.0,
        metavar="T",
        help="Sampling temperature; 0 is greedy (default: %(default)s).",
    )
    answers.add_argument(
        "--top-p",
        type=number,
        default=1.0,
        metavar="P",
        help="Nucleus sampling, above temperature 0 (default: %(default)s).",
    )
    answers.add_argument(
        "--top-k",
        type=whole,
        default=0,
        metavar="K",
        help="Sample from so many of the most probable tokens, above temperature 0; 0 for all "
        "(default: %(default)s).",
    )
    answers.add_argument(
        "--min-p",
        type=number,
        default=0.0,
        metavar="P",
        help="Sample from tokens that are at least so probable relative to the most probable one, "
        "above temperature 0; 0 for all (default: %(default)s).",
    )
    answers.add_argument(
        "--repetition-penalty",
        type=number,
        default=1.0,
        metavar="X",
        help="Make the last 20 tokens less probable; 1 is none (default: %(default)s).",
    )
    answers.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="A text that ends an answer and is no part of it. Repeat it for more.",
    )
    answers.add_argument(
        "--system-prompt",
        metavar="TEXT",
        help="The system message of every chat, in place of its own.",
    )
    answers.add_argument(
        "--chat-template-args",
        type=json_object,
        metavar="JSON",
        help="Arguments of the chat template, as '{\"enable_thinking\": false}'.",
    )
    answers.add_argument(
        "--reasoning-markers",
        nargs=2,
        metavar=("START", "END"),
        help="The texts before and after a model's thought (default: those of its chat template); "
        "two empty ones separate nothing.",
    )
    answers.add_argument(
        "--batch-size",
        type=whole,
        metavar="N",
        help="Answers decoded together (default: as many as the memory allows).",
    )
    answers.add_argument(
        "--memory-budget",
        type=size,
        metavar="SIZE",
        help="Memory for models and batches, such as 8GB (default: no limit).",
    )
    judging = parser.add_argument_group("Judging")
    judging.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="J",
        help="cerebras:MODEL, openai:MODEL, mlx:PATH, a scorer (choice, contains, exact, f1, "
        "json[:SCHEMA], numeric[:TOLERANCE], regex:PATTERN, rouge_l, tool_call), or your own, "
        "FILE.py:FUNCTION. Repeat it for more judges (default: $CACHEDEVAL_JUDGE, or "
        "cerebras:gpt-oss-120b).",
    )
    judging.add_argument(
        "--primary",
        metavar="J",
        help="Which of several judges gives the report its score (default: the first).",
    )
    judging.add_argument(
        "--criteria",
        default="default",
        metavar="C",
        help="What the judge scores: the name of a built-in rubric, or a TOML file "
        "(default: the rubric `default`).",
    )
    judging.add_argument(
        "--per-criterion", action="store_true", help="Ask the judge about each criterion apart."
    )
    judging.add_argument(
        "--repeats",
        type=whole,
        default=1,
        metavar="K",
        help="Verdicts for each question; the score is their mean (default: %(default)s).",
    )
    judging.add_argument(
        "--judge-temperature",
        type=_temperature,
        metavar="T",
        help="Temperature of a judge over HTTP; `default` sends none (default: 0, or none where the "
        "service refuses it).",
    )
    judging.add_argument(
        "--judge-max-tokens",
        type=whole,
        metavar="N",
        help="Most tokens of a judge's reply, reasoning included (default: 2048).",
    )
    judging.add_argument(
        "--on-failure",
        choices=["exclude", "zero", "raise"],
        default="exclude",
        help="What a failed question does: exclude leaves it out of the mean, zero counts it as "
        "0, raise ends the run (default: %(default)s).",
    )
    judging.add_argument(
        "--limits",
        metavar="FILE",
        help="Options, rate limits, retries and prices of the judge, as TOML.",
    )


@contextmanager
def evaluator_of(options: Namespace) -> "Iterator[AdapterEvaluator]":
    """Give the evaluator that the options describe; it is closed at the end, also on Ctrl-C."""
    _import_msgspec()
    if getattr(options, "mode", None) == "offline":
        _check_cache(options.cache)
    from cachedeval.evals.evaluator import AdapterEvaluator

    evaluator = AdapterEvaluator(
        model=options.model,
        judge=options.judge or None,
        primary=options.primary,
        cache=options.cache,
        evaluation_seed=options.seed,
        criteria=options.criteria,
        per_criterion=options.per_criterion,
        repeats=options.repeats,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        stop=options.stop,
        system_prompt=options.system_prompt,
        chat_template_args=options.chat_template_args,
        reasoning_markers=options.reasoning_markers,
        on_bad_line=options.on_bad_line,
        dedupe=options.dedupe,
        sampling=options.sampling,
        batch_size=options.batch_size,
        memory_budget=options.memory_budget,
        on_failure=options.on_failure,
        limits=options.limits,
        judge_temperature=options.judge_temperature,
        judge_max_tokens=options.judge_max_tokens,
        fetch=options.fetch,
        mode=getattr(options, "mode", "use"),
    )
    with evaluator:
        yield evaluator


def _check_cache(url: str) -> None:
    from cachedeval.engine.backend import shown_url
    from cachedeval.engine.maintenance import disk_folder

    folder = disk_folder(url)
    if folder is not None and not folder.exists():
        raise InputError(
            f"offline: cache {shown_url(url)}: there is no such folder; run once without --offline, "
            "or give another: --cache disk:PATH"
        )


def _import_msgspec() -> None:
    """Import msgspec without `typing_extensions`, which takes a tenth of a run of hits.

    msgspec takes two names from it that `typing` has too, and falls back on those. Only in a
    program of one thread: another one could ask for `typing_extensions` meanwhile.
    """
    name = "typing_extensions"
    threading = sys.modules.get("threading")
    if name in sys.modules or (threading is not None and threading.active_count() > 1):
        return
    sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import msgspec  # noqa: F401
    except ImportError:
        pass  # a version that needs it: imported in the ordinary way
    finally:
        del sys.modules[name]
