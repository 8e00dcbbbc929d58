"""Verdicts: the form in which a judge is asked for one, and the strict reading of its reply.

A reply either is the verdict that was asked for, or it is none: no score is guessed, clamped or
left out.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cachedeval.evals.judging.errors import InvalidVerdictError as BadVerdict
from cachedeval.evals.judging.rubric import Criterion, Rubric

__all__ = ["Verdict", "parse_verdict", "response_format"]


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
    item: str,
    *,
    finish_reason: str = "stop",
) -> Verdict:
    """Read a judge's reply: plain JSON, fenced, after prose, or after ``<think>`` … ``</think>``.

    Args:
        content: The reply.
        criteria: What was asked for.
        item: The id of the item that was asked about, as `item_id` gives it.
        finish_reason: Why the reply ended, as the service says.

    Raises:
        BadVerdict: It is not the verdict that was asked for; the reply is in it.
    """
    try:
        return _read(content, criteria, item)
    except ValueError as error:
        cut = " (the reply was cut off: raise max_completion_tokens)"
        why = f"{error}{cut if finish_reason == 'length' else ''}"
        raise BadVerdict(f"no verdict on item {item}: {why}", reply=content) from None


def _read(content: str, criteria: Sequence[Criterion], item: str) -> Verdict:
    end = _end_of_reasoning(content)
    said = content[end:].strip()
    if not said:
        raise ValueError("the reply is empty")
    if not end and said.startswith("<think>"):
        raise ValueError("the reply is unfinished reasoning")
    found: list[dict[str, Any]] = []
    for candidate in _objects(said):
        verdict = candidate if "scores" in candidate else _wrapped(candidate, criteria)
        if verdict is not None and verdict not in found:
            found.append(verdict)
    if not found:
        raise ValueError("the reply has no JSON object with scores")
    if len(found) > 1:
        raise ValueError(f"the reply has {len(found)} different verdicts")
    verdict = found[0]
    # A model without a schema may leave the id out; one that names another item is mistaken.
    if verdict.get("item_id", item) != item:
        raise ValueError(f"the reply is about item {verdict.get('item_id')!r}")
    scores, rationale = verdict["scores"], verdict.get("rationale", "")
    if not isinstance(scores, dict):
        raise ValueError("the scores are no JSON object")  # noqa: TRY004 -- of the reply
    if not isinstance(rationale, str):
        raise ValueError("the rationale is no text")  # noqa: TRY004 -- of the reply
    return Verdict({each.name: _score(scores, each) for each in criteria}, rationale)


def _wrapped(candidate: dict[str, Any], criteria: Sequence[Criterion]) -> dict[str, Any] | None:
    """A verdict whose scores stand beside its other fields, or None where that is none."""
    names = {criterion.name for criterion in criteria}
    if not names <= candidate.keys():
        return None
    rest = {key: value for key, value in candidate.items() if key not in names}
    return {**rest, "scores": {name: candidate[name] for name in names}}


def _score(scores: dict[str, Any], criterion: Criterion) -> float:
    if criterion.name not in scores:
        raise ValueError(f"no score for {criterion.name}")
    score = scores[criterion.name]
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(f"{criterion.name} is scored {json.dumps(score)[:40]}, which is no number")  # noqa: TRY004 -- of the reply
    low, high = criterion.range
    if not (math.isfinite(score) and low <= score <= high):
        raise ValueError(f"{criterion.name} is scored {score!r:.40}, not {low:g} to {high:g}")
    return float(score)


def _end_of_reasoning(content: str) -> int:
    """Where the last ``</think>`` ends; 0 without one. What a verdict quotes is none."""
    decoder = json.JSONDecoder()
    at = end = 0
    if "</think>" not in content:
        return 0
    while (found := re.compile(r"\{|</think>").search(content, at)) is not None:
        at = found.end()
        if found[0] == "{":
            with contextlib.suppress(ValueError, RecursionError):
                _, at = decoder.raw_decode(content, found.start())
        else:
            end = at
    return end


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text that stand in no other."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
    at = 0
    while (brace := re.compile(r"\{").search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, brace.start())
        except json.JSONDecodeError:
            at = brace.end()
        except RecursionError:
            raise ValueError("the reply is nested too deeply") from None
        else:
            yield value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        raise ValueError("a key stands twice in the reply")
    return whole


def _no_constant(constant: str) -> float:
    raise ValueError(f"the reply has {constant} in it")
