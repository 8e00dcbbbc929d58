"""What the judge server answers: a verdict that follows from the request alone.

The server knows no rubric. It reads the criteria that it is asked for from the JSON schema of
``response_format``, or else from the prompt's lines of the form ``- name (low to high): …``, and
gives each a score that is a digest of the messages and the criterion's name. The same request has
the same verdict, in any order and in any process.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

DEFAULT_CRITERIA = ("accuracy", "relevance", "completeness", "clarity")
"""Score, each from 0 to 10, where the request names no criterion."""

_PROMPT_CRITERION = re.compile(
    r"^- (?P<name>[^\n(]+?) \((?P<low>-?[\d.]+) to (?P<high>-?[\d.]+)\)", re.MULTILINE
)
_ITEM_ID = re.compile(r"[Ii]tem id: (?P<id>[0-9a-f]+)")

_REMARK = re.compile(r"\n\n\(Try \d+\) .*\Z", re.DOTALL)
"""What a request says of an earlier reply, which is no part of what is judged."""

Ranges = dict[str, tuple[float, float]]


def prompt_text(body: dict[str, Any]) -> str:
    """All the messages of a request as one text."""
    return "\n".join(str(message.get("content", "")) for message in body.get("messages", []))


def judged_text(body: dict[str, Any]) -> str:
    """The text of a request, the same for each try."""
    return _REMARK.sub("", prompt_text(body))


def asked_criteria(body: dict[str, Any]) -> Ranges:
    """The criteria that a request asks for, each with its range."""
    in_prompt = {
        found["name"]: (float(found["low"]), float(found["high"]))
        for found in _PROMPT_CRITERION.finditer(prompt_text(body))
    }
    in_schema = {
        name: (
            float(schema.get("minimum", in_prompt.get(name, (0, 10))[0])),
            float(schema.get("maximum", in_prompt.get(name, (0, 10))[1])),
        )
        for name, schema in _schema_scores(body)
    }
    return in_schema or in_prompt or dict.fromkeys(DEFAULT_CRITERIA, (0.0, 10.0))


def item_id(body: dict[str, Any]) -> str:
    """The id of the item under judgement as the prompt names it, or "" where it names none."""
    found = _ITEM_ID.search(prompt_text(body))
    return found["id"] if found else ""


def verdict(body: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a request: the item's id, a rationale, and a whole score a criterion."""
    text = judged_text(body)
    scores = {}
    for name, (low, high) in asked_criteria(body).items():
        digest = hashlib.sha256(f"{len(name)}:{name}{text}".encode()).digest()
        steps = max(int(high - low), 1)
        scores[name] = low + int.from_bytes(digest[:8], "big") % (steps + 1)
    about = item_id(body)
    answer: dict[str, Any] = {"item_id": about} if about else {}
    return answer | {"rationale": f"Judged by digest ({about}).", "scores": scores}


def verdict_text(body: dict[str, Any]) -> str:
    """The verdict as the model would write it."""
    return json.dumps(verdict(body))


def _schema_scores(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    declared = (body.get("response_format") or {}).get("json_schema") or {}
    scores = declared.get("schema", {}).get("properties", {}).get("scores", {})
    yield from scores.get("properties", {}).items()
