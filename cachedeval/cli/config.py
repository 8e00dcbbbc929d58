"""A run as a file: options of a command in TOML, by their names.

    model = "mlx-community/Qwen3-4B-4bit"
    adapter = ["base", "4b-nested"]
    data = "qa.jsonl"
    num-questions = 40
    judge = "cerebras:gpt-oss-120b"
    fail-under = 70

The file is that of `--config`, or `cachedeval.toml` in the working folder. Options on the command line
win over it. An option that can be given several times takes a list.
"""

import json
import re
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cachedeval.engine.errors import InputError

__all__ = ["DEFAULT_FILE", "options_of", "read_config", "to_toml"]

DEFAULT_FILE = "cachedeval.toml"

_NOT_IN_A_FILE = ("help", "config", "print-config")


def options_of(parser: ArgumentParser) -> dict[str, Action]:
    """Return the options of a command that a file may hold, by name: `num-questions`."""
    return {
        word.removeprefix("--"): action
        for action in parser._actions  # noqa: SLF001  argparse has no other list of them
        for word in action.option_strings
        if word.startswith("--") and word.removeprefix("--") not in _NOT_IN_A_FILE
    }


def read_config(
    path: str | Path,
    options: Mapping[str, Action],
    args: list[str],
    others: Callable[[], Mapping[str, Action]],
) -> list[str]:
    """Return the arguments that a file stands for, without those that the command line has.

    Args:
        path: the file.
        options: the options of the command.
        args: the command line, whose options win.
        others: returns the options of `cachedeval run`: those that this command lacks are ignored,
            so that one file serves all commands.

    Raises:
        InputError: the file cannot be read, or an entry is wrong; names its line.

    Example:
        >>> from cachedeval.cli.options import Parser, whole
        >>> parser = Parser("cachedeval run", None)
        >>> _ = parser.add_argument("--seed", type=whole)
        >>> _ = Path("eval.toml").write_text("seed = 7")
        >>> read_config("eval.toml", options_of(parser), [], dict)
        ['--seed=7']
        >>> read_config("eval.toml", options_of(parser), ["--seed", "8"], dict)
        []
    """
    import tomllib  # only where there is a file

    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"--config {path}: is not TOML: {error}") from None
    given = {word.partition("=")[0].removeprefix("--") for word in args if word.startswith("--")}
    taken = {options[name].dest for name in given if name in options}
    found: list[str] = []
    for key, value in table.items():
        name = key.replace("_", "-")
        where = f"--config {path}, line {_line(text, key)}: {key}"
        if name not in options:
            known = others()
            if name not in known:
                raise InputError(f"{where}: there is no such option{_hint(name, known)}")
            continue
        if options[name].dest not in taken:
            found += _arguments(where, f"--{name}", options[name], value)
    return found


def to_toml(parser: ArgumentParser, values: Namespace) -> str:
    """Return the file that stands for some values of a command's options: those not by default."""
    lines = []
    for name, action in options_of(parser).items():
        value = getattr(values, action.dest)
        if action.nargs == 0 and not isinstance(action.const, bool):
            if value == action.const:  # one of several flags that set the same value
                lines.append(f"{name} = true")
        elif value != action.default:
            lines.append(f"{name} = {_toml(value)}")
    return "".join(f"{line}\n" for line in lines)


def _arguments(where: str, word: str, action: Action, value: object) -> Iterator[str]:
    repeats = isinstance(action.default, list)
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InputError(f"{where}: takes true or false, not {_toml(value)}")
        if value:
            yield word
        return
    if isinstance(value, list) and not repeats:
        raise InputError(f"{where}: takes one value, not a list")
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise InputError(f"{where}: takes a text or a number, not {_toml(each)}")
        text = str(each)
        try:
            if callable(action.type):
                action.type(text)
        except ArgumentTypeError as error:
            raise InputError(f"{where}: {error}") from None
        if action.choices is not None and text not in action.choices:
            raise InputError(f"{where}: {text!r} is none of {', '.join(action.choices)}")
        yield f"{word}={text}"


def _line(text: str, key: str) -> int:
    """Return the line of a key at the top of a file, where its name is found at first."""
    pattern = rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]"""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(pattern, line):
            return number
    return 1


def _hint(name: str, known: Mapping[str, Action]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "a table" if isinstance(value, dict) else json.dumps(str(value))
