"""A judge's options: the parameters of its requests, and what makes two servers the same judge."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from cachedeval.engine.errors import InputError

__all__ = ["SCHEMA", "JudgeOptions", "without"]

_MAX_COMPLETION_TOKENS = 2048
"""Room for a reasoning judge to think; the service reserves it against the tokens a minute."""

SCHEMA = "verdict"
"""The value of `response_format` that stands for the schema of the rubric's verdicts."""

_OF_THEIR_OWN = {
    "temperature": "temperature",
    "max_completion_tokens": "max_completion_tokens",
    "max_tokens": "max_completion_tokens",
    "reasoning_effort": "reasoning_effort",
}
"""Fields of the body for which there is an option."""

_FIXED = ("model", "messages", "seed", "n", "stream", "stream_options")
"""Fields of the body that have no other value."""


class JudgeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a judge over HTTP is asked: the `[judge]` table of a settings file.

    All but `judge_id` are parameters of the request, and part of the key of each verdict.

    Attributes:
        temperature: A number, or `"default"`, which sends none. Without it 0 is sent, unless the
            service refuses it.
        max_completion_tokens: The most tokens of a reply, reasoning included; 2,048 if None.
        reasoning_effort: As the service takes it, such as `"low"`; not sent if None.
        extra: Further fields of the request's body.
        judge_id: Stands for the server's URL in keys: servers with the same one are the same judge.

    Raises:
        InputError: A value cannot be sent; the message says which and why.

    Example:
        >>> JudgeOptions(temperature="default").parameters(seed=0)
        {'max_completion_tokens': 2048, 'response_format': 'verdict', 'seed': 0}
    """

    temperature: float | Literal["default"] | None = None
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    extra: dict[str, Any] = {}
    judge_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no service takes."""
        given, bound = self.temperature, self.max_completion_tokens
        if isinstance(given, str):
            if given != "default":
                raise InputError(f"judge: temperature is {given!r}; give a number or 'default'")
        elif given is not None and not 0 <= given < math.inf:
            raise InputError(f"judge: temperature is {given}; it must be 0 or more, or 'default'")
        if bound is not None and bound < 1:
            raise InputError(f"judge: max_completion_tokens is {bound}; it must be 1 or more")
        for name in ("reasoning_effort", "judge_id"):
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise InputError(f"judge: {name} is empty; leave it out")
        _check_extra(self.extra)

    def over(self, other: "JudgeOptions") -> "JudgeOptions":
        """Return these options, with those of another where these have none."""
        given = {
            name: value
            for name, value in msgspec.structs.asdict(self).items()
            if value is not None and name != "extra"
        }
        return msgspec.structs.replace(other, **given, extra={**other.extra, **self.extra})

    @property
    def optional(self) -> frozenset[str]:
        """The parameters that nobody asked for, which are left out where a service refuses them."""
        return frozenset(
            name
            for name, unset in (
                ("seed", True),
                ("response_format", "response_format" not in self.extra),
                ("temperature", self.temperature is None),
                ("max_completion_tokens", self.max_completion_tokens is None),
            )
            if unset
        )

    def parameters(self, *, seed: int, refused: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the fields of the body beside model and messages, in the order of their names.

        Args:
            seed: For services that sample reproducibly.
            refused: Parameters that the service does not take.
        """
        bound = self.max_completion_tokens
        fields: dict[str, Any] = {
            "max_completion_tokens": _MAX_COMPLETION_TOKENS if bound is None else bound,
            "response_format": SCHEMA,
            "seed": seed,
        }
        if self.temperature != "default":
            fields["temperature"] = float(self.temperature or 0.0)
        if self.reasoning_effort is not None:
            fields["reasoning_effort"] = self.reasoning_effort
        fields.update(self.extra)
        left_out = self.optional & refused
        return without(fields, left_out)

    def check_repeats(self, repeats: int) -> None:
        """Refuse repeats that would all be the same draw.

        Raises:
            InputError: They would, as the temperature is 0.
        """
        if repeats > 1 and not self.temperature:
            raise InputError(
                f"repeats {repeats}: at temperature 0 all verdicts on an answer are one and the"
                " same draw, and their spread says nothing; set the judge's temperature above 0"
                " (--judge-temperature 0.7, or default for the service's own)"
            )


def _check_extra(extra: Mapping[str, Any]) -> None:
    for name in extra:
        if name in _OF_THEIR_OWN:
            raise InputError(f"judge: extra has {name}; set {_OF_THEIR_OWN[name]} instead")
        if name in _FIXED:
            raise InputError(f"judge: extra has {name}, which cannot be set; leave it out")
    try:
        msgspec.json.encode(extra)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"judge: extra cannot be sent as JSON: {error}") from None


def without(parameters: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return parameters without some of them, in the order of the names at every level."""
    left = {name: value for name, value in parameters.items() if name not in names}
    ordered: dict[str, Any] = msgspec.to_builtins(left, order="sorted")
    return ordered
