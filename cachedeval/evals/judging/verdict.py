"""Verdicts: the form in which a judge is asked for one, and the strict reading of its reply.

A reply either is the verdict that was asked for, or it is none: no score is guessed, clamped or
left out.

The author of the judged answer must not be able to write the verdict on it. A judge often quotes
the answer, and what it quotes may look like a verdict. So there are two ways to be one:

- The reply *is* the object, apart from reasoning before it and a code fence around it. It needs no
  id, since a reply answers its own request; but it must not stand in the judged texts.
- An object within prose counts only with the item's nonce in it, which stands in none of the
  judged texts (`cachedeval.evals.judging.prompt.item_id`).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.prompt import Item, item_id
from cachedeval.evals.judging.rubric import Criterion, Rubric

__all__ = ["Verdict", "parse_verdict", "response_format"]

_OPENS = r"<think(?:ing)?>|<reasoning>|\[THINK\]|<\|channel\|>analysis"
_CLOSES = r"</think(?:ing)?>|</reasoning>|\[/THINK\]|<\|channel\|>final[^{]{0,40}<\|message\|>"
_ENDS = ("<|return|>", "<|end|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>")
_WRAPPERS = ("verdict", "result", "evaluation", "assessment", "judgement", "judgment", "output")
_INSTEAD_OF_A_SCORE = ("score", "value", "rating")
_NUMBER = r"\s*([+-]?\d+(?:\.\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?)\s*)?"
_TRAILING_COMMA = r'"(?:[^"\\]|\\.)*+(?:"|\Z)|,(?=\s*[}\]])'

_AGAIN = "Reply with one JSON object alone, in the form that was asked for."

_MOST_CLOSES = 16
"""Ends of reasoning that are tried, from the last one back."""
_MOST_BROKEN = 1000
"""Beginnings of objects in prose that may fail: each costs time in proportion to the reply."""
_LONGEST_INTEGER = 300
"""Digits; a longer one is no score, and Python reads none of more than 4,300."""


class Verdict(msgspec.Struct, frozen=True):
    """What a judge found.

    Attributes:
        scores: One a criterion, within the criterion's range.
        rationale: Why; "" where the judge did not say.
    """

    scores: dict[str, float]
    rationale: str = ""


def response_format(rubric: Rubric) -> dict[str, Any]:
    """The ``response_format`` by which a service holds the model to a verdict's form.

    Written for the narrowest of them: Cerebras wants a name, every property required, and
    ``additionalProperties`` false in each object, and turns down keywords such as ``minItems``;
    so the ranges stand in the prompt and are checked by `parse_verdict`.
    """
    scores = {criterion.name: {"type": "number"} for criterion in rubric.criteria}
    schema = _closed(
        {
            "item_id": {"type": "string"},
            "rationale": {"type": "string"},
            "scores": _closed(scores),
        }
    )
    declared = {"name": "verdict", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": declared}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def parse_verdict(
    content: str,
    criteria: Sequence[Criterion],
    item: Item,
) -> Verdict:
    """Return the verdict in a judge's reply.

    Accepted without doubt, where the reply is the object: a trailing comma, scores beside the
    other fields or in a wrapper such as ``{"verdict": …}``, another case in a name, a score as
    ``"8"``, ``"8/10"`` (of a criterion up to 10) or ``{"score": 8, …}``, and any rationale.

    Args:
        content: The reply.
        criteria: What was asked for.
        item: What was judged.

    Raises:
        InvalidVerdictError: It is not the verdict that was asked for; the reply is in it.

    Example:
        >>> truth = Criterion(name="truth", description="Is it true?")
        >>> parse_verdict('{"scores": {"truth": 8}}', [truth], Item("Why?", None, "So."))
        Verdict(scores={'truth': 8.0}, rationale='')
    """
    nonce = item_id(*item)
    try:
        return _read(content, criteria, item, nonce)
    except (ValueError, RecursionError) as error:
        why = "the reply is nested too deeply" if isinstance(error, RecursionError) else str(error)
    found = InvalidVerdictError(f"no verdict on item {nonce}: {why}", reply=content)
    found.correction = f"An earlier reply was no verdict: {why}. {_AGAIN}"
    raise found


class _Object(NamedTuple):
    """A JSON object, and how it was written."""

    written: str
    value: dict[str, Any]


class _Given(NamedTuple):
    """What an object gives for a verdict, not checked yet."""

    scores: Mapping[str, Any]
    rationale: object
    holder: Mapping[str, Any]
    """The object that has them: the one that was found, or one in it."""


def _read(content: str, criteria: Sequence[Criterion], item: Item, nonce: str) -> Verdict:
    said = content.lstrip("\ufeff").strip()
    if said.endswith(_ENDS):
        said = said[: said.rindex("<|")].rstrip()
    ends = {found.end(): found[0] for found in re.finditer(_CLOSES, said)}
    if not said or said[max(ends, default=0) :].strip() == "":
        raise ValueError("the reply is empty")
    # The longest first: an end of reasoning within the object is one that the rationale quotes.
    for start in (0, *[*ends][-_MOST_CLOSES:]):
        if (whole := _as_object(said[start:])) is not None:
            closes = ends.get(start)
            if (
                closes
                and nonce not in whole.written
                and any(closes in text for text in item if text)
            ):
                raise ValueError("the end of reasoning and what follows it may be quoted")
            given = _given(whole.value, criteria)
            if given is None:
                raise ValueError("the reply has no JSON object with scores")
            if nonce not in whole.written and _stands_in(item, whole.written, given):
                raise ValueError("the reply only repeats what stands in the judged texts")
            return _checked(given, criteria)
    if not ends and re.match(_OPENS, said):
        raise ValueError("the reply is unfinished reasoning")
    return _checked(_within_prose(said, criteria, nonce), criteria)


def _as_object(text: str) -> _Object | None:
    """Return the object that a text is, apart from a code fence around it; None if it is none."""
    text = text.strip()
    fence = re.match(r"`+|~~~", text)
    if fence and len(text) > 2 * fence.end() and text.endswith(fence[0]):
        text = re.sub(r"^\w*\s*(?=\{)", "", text[fence.end() : -fence.end()]).strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    for written in (text, re.sub(_TRAILING_COMMA, _without_comma, text, flags=re.DOTALL)):
        try:
            return _Object(written, _DECODER.decode(written))
        except json.JSONDecodeError:
            continue
    return None


def _within_prose(text: str, criteria: Sequence[Criterion], nonce: str) -> _Given:
    """Return what the one object with scores gives that carries the nonce, after all reasoning."""
    found: list[_Given] = []
    quoted = False
    for each in _objects_after_reasoning(text):
        if nonce not in each.written:
            quoted = True
            continue
        given = _given(each.value, criteria)
        if given is not None and given not in found:
            found.append(given)
    if not found and quoted:
        raise ValueError("the reply has JSON only within prose and without the item's id")
    if not found:
        raise ValueError("the reply has no JSON object with scores")
    if len(found) > 1:
        raise ValueError(f"the reply has {len(found)} different verdicts")
    return found[0]


def _objects_after_reasoning(text: str) -> list[_Object]:
    """Return the JSON objects of a text that stand in no other, whole or broken."""
    marks = re.compile(rf'\{{\s*"|{_CLOSES}')
    found: list[_Object] = []
    at = broken = 0
    while (mark := marks.search(text, at)) is not None:
        if not mark[0].startswith("{"):
            found.clear()
            at = mark.end()
            continue
        try:
            value, at = _DECODER.raw_decode(text, mark.start())
        except json.JSONDecodeError as error:
            broken += 1
            if broken > _MOST_BROKEN:
                raise ValueError("the reply has too many braces that begin no object") from None
            at = max(error.pos, mark.end())  # what stands in a broken object is passed over
        else:
            found.append(_Object(text[mark.start() : at], value))
    return found


def _stands_in(item: Item, written: str, given: _Given) -> bool:
    """Tell whether a judged text has an object, or the one in it that has the scores."""
    holder = json.dumps(given.holder, ensure_ascii=False)
    texts = [_squeezed(text) for text in item if text]
    return any(_squeezed(one) in text for one in (written, holder) for text in texts)


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _given(value: dict[str, Any], criteria: Sequence[Criterion]) -> _Given | None:
    """Return what an object gives for a verdict; None where it gives no scores."""
    rationale = value.get(_named(value, "rationale") or "rationale")
    scores = _named(value, "scores")
    if scores is not None:
        if not isinstance(value[scores], dict):
            raise ValueError("the scores are no JSON object")
        return _Given(value[scores], rationale, value)
    if all(_named(value, criterion.name) is not None for criterion in criteria):
        return _Given(value, rationale, value)
    inner = [value[key] for key in value if key != "item_id"]
    if len(inner) == 1 and isinstance(inner[0], dict) and any(_named(value, w) for w in _WRAPPERS):
        return _given(inner[0], criteria)
    return None


def _checked(given: _Given, criteria: Sequence[Criterion]) -> Verdict:
    scores = {each.name: _score(given.scores, each) for each in criteria}
    return Verdict(scores, _text(given.rationale))


def _named(scores: Mapping[str, Any], name: str) -> str | None:
    """Return the key under which a criterion is scored; another case will do if it is the one."""
    if name in scores:
        return name
    alike = [key for key in scores if key.strip().lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def _score(scores: Mapping[str, Any], criterion: Criterion) -> float:
    key = _named(scores, criterion.name)
    if key is None:
        raise ValueError(f"no score for {criterion.name}")
    low, high = criterion.range
    given = scores[key]
    if isinstance(given, dict):
        inner = [given[name] for name in _INSTEAD_OF_A_SCORE if name in given]
        given = inner[0] if len(inner) == 1 else given
    number = re.fullmatch(_NUMBER, given, re.ASCII) if isinstance(given, str) else None
    on_scale = number is not None and (number[2] is None or float(number[2]) == high)
    score = float(number[1]) if number and on_scale else given
    if isinstance(score, bool) or not isinstance(score, int | float):
        shown = json.dumps(given)[:40]
        raise ValueError(f"{criterion.name} is scored {shown}, no number of {low:g} to {high:g}")  # noqa: TRY004 -- of the reply
    if not (math.isfinite(score) and low <= score <= high):
        raise ValueError(f"{criterion.name} is scored {score!r:.40}, not {low:g} to {high:g}")
    return float(score)


def _text(rationale: object) -> str:
    """Return any rationale as text: a score is not lost for it."""
    if rationale is None:
        return ""
    if isinstance(rationale, list) and all(isinstance(part, str) for part in rationale):
        rationale = "\n".join(rationale)
    if not isinstance(rationale, str):
        rationale = json.dumps(rationale, ensure_ascii=False)
    return rationale.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored


def _without_comma(found: re.Match[str]) -> str:
    return "" if found[0] == "," else found[0]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise ValueError("a key stands twice in the reply")
    return whole


def _no_constant(constant: str) -> float:
    raise ValueError(f"the reply has {constant} in it")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else math.inf


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer
)
