"""JSON in an answer: does it parse, equal the reference, fit a schema, or call the right tools."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cachedeval.evals.scorers.patterns import searched

__all__ = ["check_schema", "equals_json", "fits_schema", "parse_json", "tool_call", "tool_calls"]

_FENCE = r"\s*(`{3,}|~{3,})\w*[ \t]*\n(.*?)\n?[ \t]*\1\s*"
_TAGS = (("<tool_call>", "</tool_call>"), ("<function_call>", "</function_call>"))
_BEFORE = r"\s*(?:\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call\|>|functools)?\s*"
_AFTER = r"\s*(?:<\|eom_id\|>|<\|eot_id\|>|<\|im_end\|>|</s>|<\|/tool_call\|>)?\s*"


def parse_json(text: str) -> Any:
    r"""Return the value of a text that is JSON, or JSON in a code fence.

    Raises:
        ValueError: It is not JSON. Nor is a number that is not finite, or a name that occurs twice.

    Example:
        >>> parse_json('```json\n{"a": [1]}\n```')
        {'a': [1]}
    """
    fenced = re.fullmatch(_FENCE, text, re.DOTALL)
    try:
        return json.loads(
            fenced[2] if fenced else text,
            parse_constant=_refused,
            parse_float=_finite,
            object_pairs_hook=_once_each,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def equals_json(response: str, reference: str | None) -> float:
    """Return 1 where a response is JSON and equals the reference, else 0.

    The order of an object's names does not matter, that of an array does. ``1`` equals ``1.0``, and
    neither ``true`` nor ``"1"``.

    Args:
        response: The answer.
        reference: The right one, as JSON; None where any JSON will do.

    Raises:
        ValueError: The reference is not JSON.

    Example:
        >>> equals_json('{"b": 2.0, "a": 1}', '{"a": 1, "b": 2}'), equals_json("[1", None)
        (1.0, 0.0)
    """
    meant = None if reference is None else parse_json(reference)
    try:
        said = parse_json(response)
    except ValueError:
        return 0.0
    return float(reference is None or _equal(said, meant))


def check_schema(schema: Any) -> None:
    """Check a JSON schema.

    Raises:
        ValueError: It is none.
        ImportError: The package `jsonschema` is missing.
    """
    _validator(schema)


def fits_schema(response: str, schema: Any) -> float:
    """Return 1 where a response is JSON and fits a JSON schema, else 0.

    Args:
        response: The answer.
        schema: The schema, as plain data.

    Raises:
        ValueError: It is no schema, or it refers to another one.
        TimeoutError: One of its patterns takes too long.
    """
    validator = _validator(schema)
    try:
        said = parse_json(response)
    except ValueError:
        return 0.0
    from referencing.exceptions import Unresolvable  # noqa: PLC0415  an extra

    try:
        return float(validator.is_valid(said))
    except RecursionError:
        return 0.0
    except Unresolvable as error:
        raise ValueError(f"the schema refers to what is not in it: {error}") from None


def tool_call(response: str, reference: str) -> dict[str, float]:
    """Return whether a response calls the same tools as the reference, with the same arguments.

    Where there are several calls, their order does not matter.

    Args:
        response: The answer.
        reference: The right one; the forms of both are those of `tool_calls`.

    Returns:
        ``tool_call`` is 1 where all is equal, ``name`` where the names are.

    Raises:
        ValueError: The reference holds no call.

    Example:
        >>> tool_call('{"name": "add", "arguments": {"x": 1}}',
        ...           '{"name": "add", "arguments": {"x": 2}}')
        {'tool_call': 0.0, 'name': 1.0}
    """
    meant = tool_calls(reference)
    try:
        said = tool_calls(response)
    except ValueError:
        said = []
    names = sorted(name for name, _ in said) == sorted(name for name, _ in meant)
    left = list(meant)
    for name, arguments in said if names else []:
        for call in left:
            if call[0] == name and _equal(call[1], arguments):
                left.remove(call)
                break
        else:
            break
    return {"tool_call": float(names and not left), "name": float(names)}


def tool_calls(text: str) -> list[tuple[str, Mapping[str, Any]]]:
    r"""Return the names and arguments of the tools that a text calls.

    Read are the forms of Hermes and Qwen (``<tool_call>{…}</tool_call>``, among other text), of
    Mistral (``[TOOL_CALLS][{…}]``), of Llama 3 (an object with ``parameters``), and of OpenAI's
    messages (``{"tool_calls": [{"function": {"name": …, "arguments": "…"}}]}``), alone or in a fence.

    Raises:
        ValueError: It holds no call.

    Example:
        >>> tool_calls('I look.\n<tool_call>{"name": "find", "arguments": {}}</tool_call>')
        [('find', {})]
    """
    tagged = [
        part.partition(closing)[0]
        for opening, closing in _TAGS
        for part in text.split(opening)[1:]
        if closing in part
    ]
    if not tagged:
        before, after = re.match(_BEFORE, text), re.search(rf"{_AFTER}\Z", text[-64:])
        end = len(text) - len(after[0]) if after else len(text)
        tagged = [text[before.end() if before else 0 : end]]
    calls = [call for one in tagged for call in _calls(parse_json(one))]
    if not calls:
        raise ValueError("there is no tool call in it")
    return calls


def _calls(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    match value:
        case list():
            for member in value:
                yield from _calls(member)
        case {"tool_calls": list(calls)} | {"function": dict(calls)}:
            yield from _calls(calls)
        case {"name": str(name)}:
            given = value.get("arguments", value.get("parameters", {}))
            arguments = parse_json(given) if isinstance(given, str) else given
            if not isinstance(arguments, dict):
                raise ValueError(f"the arguments of {name} are no object")  # noqa: TRY004  of a text
            yield name, arguments
        case _:
            raise ValueError("it is no tool call: an object with `name` and `arguments`")


def _equal(one: Any, other: Any) -> bool:
    """Return whether two values of JSON are equal; they may be nested to any depth."""
    pairs = [(one, other)]
    while pairs:
        a, b = pairs.pop()
        if isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            pairs += ((a[name], b[name]) for name in a)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pairs += zip(a, b, strict=True)
        elif isinstance(a, bool) or isinstance(b, bool) or type(a) is not type(b):
            numbers = all(type(value) in {int, float} for value in (a, b))
            if a is not b and not (numbers and a == b):
                return False
        elif a != b:
            return False
    return True


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def _validator(schema: Any) -> Any:
    import jsonschema  # noqa: PLC0415  an extra
    from jsonschema import validators  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    def pattern(_: Any, wanted: str, instance: Any, __: Any) -> Iterator[Any]:
        """Search within bounds: the schema's own search could take for ever."""
        if isinstance(instance, str) and not searched(wanted, instance):
            yield jsonschema.ValidationError(f"{instance!r} does not match {wanted!r}")

    try:
        base = validators.validator_for(schema, jsonschema.Draft202012Validator)
        base.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"it is no JSON schema: {error.message}") from None
    # An empty registry: nothing is fetched from elsewhere.
    return validators.extend(base, {"pattern": pattern})(schema, registry=Registry())
