"""Separates a model's thought from its answer. Pure: text in, two texts out.

| a model writes | the answer is |
| --- | --- |
| `<think>…</think>` and others like it | what follows the last thought at its beginning |
| `<|channel|>analysis<|message|>…` (gpt-oss) | the channel `final` |

A chat template may open the thought in the prompt, so that the text begins within it.
"""

import re
from typing import NamedTuple

__all__ = ["CHANNELS", "KNOWN", "Markers", "Parts", "markers_in", "separate"]


class Markers(NamedTuple):
    """The texts around a thought. Two empty ones mean that nothing is separated."""

    start: str
    end: str


class Parts(NamedTuple):
    """A text in its parts."""

    reasoning: str | None
    """The thought; None if there is none."""
    answer: str | None
    """What follows the thought; None if the thought does not end."""


CHANNELS = Markers("<|channel|>", "<|message|>")
"""Those of gpt-oss: a channel's name is between them, and its text behind."""

KNOWN = (
    Markers("<think>", "</think>"),
    Markers("[THINK]", "[/THINK]"),
    Markers("<thinking>", "</thinking>"),
    Markers("<seed:think>", "</seed:think>"),
    Markers("<longcat_think>", "</longcat_think>"),
    Markers("<|think:start|>", "<|think:end|>"),
    Markers("<reasoning>", "</reasoning>"),
)
"""Markers that chat templates use."""

_CHANNEL = re.compile(
    r"<\|channel\|>(.*?)<\|message\|>(.*?)(?=<\|(?:end|start|return|call|channel)\|>|\Z)", re.DOTALL
)


def markers_in(template: str) -> Markers | None:
    """Return the markers that a chat template writes or looks for, or None.

    Example:
        >>> markers_in("{{ content.split('</think>')[-1] }}")
        Markers(start='<think>', end='</think>')
    """
    if CHANNELS.start in template:
        return CHANNELS
    return next((known for known in KNOWN if known.end in template), None)


def separate(text: str, markers: Markers | None, *, opened: bool = False) -> Parts:
    r"""Separate the thought from the answer.

    Args:
        text: what a model wrote.
        markers: the texts around a thought; None if there are none.
        opened: whether the prompt has opened the thought.

    Example:
        >>> separate("<think>2 + 2</think>\n\n4", KNOWN[0])
        Parts(reasoning='2 + 2', answer='4')
        >>> separate("2 + 2", KNOWN[0], opened=True)
        Parts(reasoning='2 + 2', answer=None)
    """
    if markers is None or not markers.end:
        return Parts(None, text)
    if markers == CHANNELS:
        return _final_channel(text)
    thoughts = []
    rest = text
    while opened or rest.lstrip().startswith(markers.start):
        body = rest.lstrip().removeprefix(markers.start)
        thought, ended, rest = body.partition(markers.end)
        thoughts.append(thought.strip())
        if not ended:
            return Parts(_joined(thoughts), None)
        opened = False
    return Parts(_joined(thoughts), rest.lstrip()) if thoughts else Parts(None, text)


def _final_channel(text: str) -> Parts:
    if CHANNELS.start not in text:
        return Parts(None, text)
    found = [(name.strip(), body) for name, body in _CHANNEL.findall(text)]
    # A thought that is cut off within the name of its channel has no body.
    thoughts = [body.strip() for name, body in found if name != "final"]
    finals = [body for name, body in found if name == "final"]
    return Parts(_joined(thoughts), finals[-1] if finals else None)


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(thought for thought in thoughts if thought)
