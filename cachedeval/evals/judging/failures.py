"""What can go wrong with one judgement, each by its own type, and what is done about it.

A failure is never a score: it is not cached, not averaged, and the report counts it by its
``kind``. This module is the one place that says which failures are tried again, how often at the
most, and which end the whole run because every other call would fail in the same way.
"""

import json
import re
from collections.abc import Mapping
from typing import ClassVar

from cachedeval.engine.errors import CachedevalError, InputError

__all__ = [
    "BadRequest",
    "BadVerdict",
    "BudgetExhausted",
    "ConnectionFailed",
    "Failure",
    "NoSuchModel",
    "NotFound",
    "PaymentRequired",
    "PromptTooLong",
    "RateLimited",
    "Refused",
    "ServerError",
    "TimedOut",
    "Unauthorised",
    "failure_of_status",
]


class Failure(CachedevalError):  # noqa: N818 -- what a report counts is a failure
    """One judgement that did not come about.

    Attributes:
        kind: The name under which a report counts it.
        most_attempts: How often such a call is tried in all; 1 is once, without a retry. The
            policy's own bound holds beside it.
        fatal: Every other call would fail in the same way, so the run ends at once.
        status: The HTTP status, or None where there was no reply.
        retry_after: Seconds that the service asks to be left alone, or None.
        reply: What the judge answered, as far as it did: kept for the report.
        attempts: How often the call was tried when this was raised in the end.
        headers: The reply's HTTP headers, names in lower case.
        final: This one is not tried again, whatever its kind.
    """

    kind: ClassVar[str] = "failed"
    most_attempts: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        reply: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.reply = reply
        self.attempts = 1
        self.headers: Mapping[str, str] = {}
        self.final = False


# The table. A class is a row: its kind, how often it is tried, and whether it ends the run.


class RateLimited(Failure):
    """429: too fast, or the service has too much to do."""

    kind = "rate_limited"
    most_attempts = 100  # told to wait is not a fault: only the policy's own bounds hold


class ServerError(Failure):
    """409, 425, 5xx, or a reply that is no chat completion: the service's fault."""

    kind = "server_error"
    most_attempts = 100


class ConnectionFailed(Failure):
    """No connection, or one that broke off in the middle of a reply."""

    kind = "connection_failed"
    most_attempts = 6


class TimedOut(Failure):
    """408, or no reply by the deadline."""

    kind = "timed_out"
    most_attempts = 3  # each costs a whole deadline


class BadVerdict(Failure):
    """A reply that is not the verdict that was asked for; ``reply`` has it."""

    kind = "bad_verdict"
    most_attempts = 4  # each is paid for


class Refused(Failure):
    """The judge declined to judge: the same words would be declined again."""

    kind = "refused"


class PromptTooLong(Failure):
    """413, or a 400 that says so: question, reference and answer exceed the judge's context."""

    kind = "prompt_too_long"


class BadRequest(Failure):
    """400, 422 and other 4xx: the service does not take this request."""

    kind = "bad_request"


class NotFound(Failure):
    """404 that does not name the model: no such address."""

    kind = "not_found"


class BudgetExhausted(Failure):
    """The day's requests are used up; nothing more is sent until they are given anew."""

    kind = "budget_exhausted"


class Unauthorised(Failure, InputError):  # noqa: N818 -- as above
    """401, 403: the key is wrong or may not do this."""

    kind = "unauthorised"
    fatal: bool = True


class PaymentRequired(Failure, InputError):  # noqa: N818 -- as above
    """402: the account has no credit."""

    kind = "payment_required"
    fatal: bool = True


class NoSuchModel(Failure, InputError):  # noqa: N818 -- as above
    """404 that names the model: the service does not have it."""

    kind = "no_such_model"
    fatal: bool = True


_BY_STATUS: Mapping[int, type[Failure]] = {
    400: BadRequest,
    401: Unauthorised,
    402: PaymentRequired,
    403: Unauthorised,
    404: NotFound,
    408: TimedOut,
    409: ServerError,
    413: PromptTooLong,
    422: BadRequest,
    425: ServerError,
    429: RateLimited,
}

_TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum context|prompt is too long|too many tokens"
    r"|reduce the length",
    re.IGNORECASE,
)
_MODEL = re.compile(r"\bmodel\b.*\b(not exist|not found|unknown|not available)", re.IGNORECASE)
_SHOWN = 300
"""How many characters of a service's own words are shown."""


def failure_of_status(
    status: int, body: bytes | str, *, service: str, retry_after: float | None = None
) -> Failure:
    """The failure that an HTTP error stands for.

    Args:
        status: The HTTP status, 400 or more.
        body: The reply's body; its ``message`` and ``code`` are read where it has them.
        service: What the message calls the service: provider, model and server.
        retry_after: Seconds, from the header of that name.
    """
    said, code = _message_and_code(body)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else BadRequest)  # noqa: PLR2004 -- HTTP
    if kind is BadRequest and (code == "context_length_exceeded" or _TOO_LONG.search(said)):
        kind = PromptTooLong
    elif kind is NotFound and (code == "model_not_found" or _MODEL.search(said)):
        kind = NoSuchModel
    advice = _ADVICE.get(kind, "")
    words = f": {said[:_SHOWN]}" if said and kind is not Unauthorised else ""
    return kind(
        f"{service} answered {status}{words}{advice}", status=status, retry_after=retry_after
    )


_ADVICE: Mapping[type[Failure], str] = {
    # Without the service's own words: some repeat the key in them.
    Unauthorised: ": the key is wrong or may not use this model; set the right one and run again",
    PaymentRequired: " (add credit to the account, or take another judge)",
    NoSuchModel: " (give a model that the service has)",
    NotFound: " (is the server's base URL right?)",
}


def _message_and_code(body: bytes | str) -> tuple[str, str]:
    """What an error's body says, in the forms of Cerebras, OpenAI, llama.cpp and mlx_lm.server."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        parsed = json.loads(text)
    except ValueError:
        return " ".join(text.split()), ""
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(error, dict):
        return str(error), ""
    said = error.get("message") or error.get("detail") or json.dumps(error)
    return " ".join(str(said).split()), str(error.get("code") or "")
