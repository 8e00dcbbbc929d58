"""Reads questions from JSON Lines files in mlx-lm's formats and their common relatives.

| a line has | the prompt is | the reference is |
| --- | --- | --- |
| `messages`, and `tools` if the model may call any | the messages up to the last one of the assistant | that last message, or its `tool_calls` as JSON |
| `prompt`, `completion` | the prompt, from the user | the completion |
| `question`, `answer` | the question, from the user | the answer |
| `instruction`, `input`, `output` | instruction and input, from the user | the output |

The reference may be left out where the judge needs none.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import xxhash

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import EncodingError, InputError
from cachedeval.engine.hashing import shown

__all__ = ["Data", "OnBadLine", "Question", "first_of_each", "read_data", "read_questions"]

OnBadLine = Literal["error", "skip"]
"""What a line does that cannot be used."""

_NAMED = 8
"""How many fields of a line a message names."""

_ROLES = ("system", "user", "assistant", "tool", "developer")
_RUBRIC_FIELDS = (
    "rubric",
    "score_rubric",
    "criteria",
    *(f"score{n}_description" for n in range(1, 6)),
)


class Question(NamedTuple):
    """One question of a data set."""

    id: str
    """16 hex digits of its content's digest; a repeated question gets a number behind them."""
    question: str
    """The last message of the user, as reports show it."""
    messages: tuple[Mapping[str, Any], ...]
    """The chat to answer: `role` and `content` each, and what else a chat template reads."""
    reference: str | None
    """The right answer, where the data has one."""
    rubric: Mapping[str, Any]
    """Fields of the line that say how to judge this question; mostly none."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The tools that the model may call, as a chat template reads them."""


class Data(NamedTuple):
    """The questions of a file, and what was left out."""

    questions: list[Question]
    bad: list[str]
    """Where each line is that cannot be used, and why."""


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """Return the questions of a file, in its order; see `read_data`.

    Raises:
        InputError: the file cannot be read, has no questions, or a line holds none; the message
            names file and line.

    Example:
        >>> _ = Path("qa.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}')
        >>> [question] = read_questions("qa.jsonl")
        >>> question.question, question.reference
        ('2 + 2?', '4')
    """
    return read_data(path).questions


def read_data(path: str | os.PathLike[str], *, on_bad_line: OnBadLine = "error") -> Data:
    """Return the questions of a file, in its order.

    Args:
        path: a JSON Lines file, UTF-8; blank lines are skipped.
        on_bad_line: what a line does that cannot be used: `error`, or `skip` to leave it out.

    Raises:
        InputError: the file cannot be read or has no questions, or a line cannot be used; the
            message names file and line.
    """
    if on_bad_line not in ("error", "skip"):
        raise InputError(f"on_bad_line {on_bad_line!r}: there are `error` and `skip`")
    file = Path(path)
    if file.is_dir():
        inside = ", ".join(sorted(shown(found.name) for found in file.glob("*.jsonl"))) or "none"
        raise InputError(
            f"data {shown(file)}: a folder; name a file in it (*.jsonl there: {inside})"
        )
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"data {shown(file)}: there is no such file") from None
    except OSError as error:
        raise InputError(f"data {shown(file)}: cannot be read: {error.strerror}") from None
    bad: list[str] = []
    questions = []
    for question in _questions(raw.removeprefix(b"\xef\xbb\xbf")):
        if isinstance(question, Question):
            questions.append(question)
        elif on_bad_line == "error":
            raise InputError(f"data {shown(file)}:{question}")
        else:
            bad.append(question)
    if not questions and bad:
        raise InputError(f"data {shown(file)}: none of its {len(bad)} lines can be used: {bad[0]}")
    if not questions:
        raise InputError(f"data {shown(file)}: has no questions; each line must be a JSON object")
    return Data(list(_numbered(questions)), bad)


def _questions(raw: bytes) -> Iterator[Question | str]:
    """Yield the question of each line, or its number and why it cannot be used."""
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            # Decoded here: of bytes, `json.loads` would guess the encoding line by line.
            row = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        except UnicodeDecodeError:
            yield f"{number}: not UTF-8; save the file as UTF-8"
            continue
        except (ValueError, RecursionError) as error:
            yield f"{number}: not JSON: {error}"
            continue
        try:
            yield _question(row)
        except (ValueError, EncodingError) as error:
            yield f"{number}: {error}"


def _no_constant(constant: str) -> float:
    # Python and pandas write it for a missing value, and it is no answer.
    raise ValueError(f"{constant} is no JSON; write null for a missing value")


def _question(row: Any) -> Question:
    """Return the question in a line.

    Raises:
        ValueError: there is none; the message says why.
    """
    if not isinstance(row, dict):
        raise ValueError(f"it must be a JSON object, not {_json_type(row)}")  # noqa: TRY004  of the line
    messages, reference = _chat(row)
    tools = _tools(row)
    asked = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    if not asked.strip():
        raise ValueError("the question is empty")
    rubric = {name: row[name] for name in _RUBRIC_FIELDS if name in row}
    content = [[dict(message) for message in messages], reference, rubric]
    if tools:  # others have the ids that they always had
        content.append(tools)
    identity = xxhash.xxh3_64_hexdigest(encode(content))
    return Question(identity, asked, tuple(messages), reference, rubric, tuple(tools))


def _tools(row: dict[str, Any]) -> list[dict[str, Any]]:
    tools = row.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError("`tools` must be a list of objects, each with `type` and `function`")
    return tools


def _chat(row: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    if "messages" in row:
        return _split(row["messages"])
    for asks, answers in (("prompt", "completion"), ("question", "answer")):
        if asks in row:
            return [_user(_text(row, asks))], _optional(row, answers)
    if "instruction" in row:
        parts = [_text(row, "instruction"), _optional(row, "input") or ""]
        return [_user("\n\n".join(part for part in parts if part))], _optional(row, "output")
    if "text" in row:
        raise ValueError(
            "a line of plain `text` asks nothing; evaluation needs `messages`, `prompt` and "
            "`completion`, or `question` and `answer`"
        )
    raise ValueError(
        "no question in it: it needs `messages`, `prompt`, `question` or `instruction` "
        f"(it has: {_names(row)})"
    )


def _names(row: dict[str, Any]) -> str:
    names = list(map(shown, row))
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "nothing"


def _split(messages: Any) -> tuple[list[dict[str, Any]], str | None]:
    """Split a chat into the question and the last message of the assistant."""
    if not isinstance(messages, list) or not messages:
        raise ValueError("`messages` must be a list of messages with `role` and `content`")
    chat = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"`messages`[{index}] must have a `role`, one of {', '.join(_ROLES)}")
        chat.append(_message(message))
    if chat[-1]["role"] == "assistant":
        return chat[:-1], _reference(chat[-1])
    return chat, None


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a chat template reads of a message."""
    calls = message.get("tool_calls")
    found: dict[str, Any] = {"role": message["role"]}
    if calls and message.get("content") is None:
        found["content"] = ""  # a call needs no text
    else:
        found["content"] = _text(message, "content")
    if calls:
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise ValueError("`tool_calls` must be a list of objects, each with a `function`")
        found["tool_calls"] = calls
    if found["role"] == "tool":
        found |= {name: message[name] for name in ("name", "tool_call_id") if name in message}
    return found


def _reference(message: dict[str, Any]) -> str:
    """Return an assistant's message as a reference answer: its text, or its tool calls as JSON.

    One call is an object with `name` and `arguments`, several are a list of them.
    """
    calls = message.get("tool_calls")
    if not calls:
        return str(message["content"])
    found = []
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError("each of `tool_calls` must have a `function` with a `name`")  # noqa: TRY004
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                raise ValueError("the `arguments` of a tool call are not JSON") from None
        found.append({"name": function["name"], "arguments": arguments})
    return json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False)


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a string, not {_json_type(value)}")  # noqa: TRY004
    return value


def _optional(row: Mapping[str, Any], name: str) -> str | None:
    return None if row.get(name) is None else _text(row, name)


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def first_of_each(questions: Iterable[Question]) -> list[Question]:
    """Return the questions without those that repeat another one."""
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.id.partition("-")[0], question)
    return list(first.values())


def _numbered(questions: Iterable[Question]) -> Iterator[Question]:
    """Number the ids of a question that occurs more than once."""
    seen: dict[str, int] = {}
    for question in questions:
        count = seen[question.id] = seen.get(question.id, 0) + 1
        yield question if count == 1 else question._replace(id=f"{question.id}-{count}")
