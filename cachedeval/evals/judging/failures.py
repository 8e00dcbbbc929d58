"""What can go wrong with one judgement, each by its own type, and what is done about it.

A failure is never a score: it is not cached, not averaged, and the report counts it by its
``kind``. This module is the one place that says which failures are tried again, how often at the
most, and which end the whole run because every other call would fail in the same way.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.evals.providers.secrets import Redactor

__all__ = [
    "BadRequest",
    "BadVerdict",
    "BudgetExhausted",
    "ClientError",
    "ConnectionFailed",
    "Failure",
    "InvalidReply",
    "NoSuchModel",
    "NotFound",
    "PaymentRequired",
    "PromptTooLong",
    "RateLimited",
    "Redirected",
    "Refused",
    "ServerError",
    "TimedOut",
    "Unauthorised",
    "failure_of_error",
    "failure_of_status",
    "one_line",
    "words_of",
]


_NO_SECRETS = Redactor(())


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
        unfit: What answers is no chat service that fits: where it is all that was ever heard of
            it, the run ends after a few.
    """

    kind: ClassVar[str] = "failed"
    most_attempts: ClassVar[int] = 1
    unfit: bool = False

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

    def redact(self, redact: Callable[[str], str]) -> None:
        """Take secrets out of all that this failure carries, and let go of what it arose from."""
        self.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in self.args)
        self.reply = redact(self.reply)
        self.headers = {name: redact(value) for name, value in self.headers.items()}
        self.__cause__ = self.__context__ = self.__traceback__ = None


# The table. A class is a row: its kind, how often it is tried, and whether it ends the run.


class RateLimited(Failure):
    """429: too fast, or the service has too much to do."""

    kind = "rate_limited"
    most_attempts = 100  # told to wait is not a fault: only the policy's own bounds hold


class ServerError(Failure):
    """409, 425, 5xx: the service's fault, and perhaps a passing one."""

    kind = "server_error"
    most_attempts = 100


class ConnectionFailed(Failure):
    """No connection, or one that broke off in the middle of a reply.

    A certificate that does not hold and a server that does not speak TLS are ``final``.
    """

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


class InvalidReply(Failure):
    """A reply that is no chat completion: an error with the status 200, a web page, too long.

    It was paid for, or comes from something else than the service, and would come again.
    """

    kind = "invalid_reply"
    unfit = True


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
    unfit = True


class BudgetExhausted(Failure):
    """The day's requests are used up; nothing more is sent until they are given anew."""

    kind = "budget_exhausted"


class Unauthorised(Failure, InputError):  # noqa: N818 -- as above
    """401, 403: the key is wrong or may not do this."""

    kind = "unauthorised"
    fatal: bool = True


class PaymentRequired(Failure, InputError):  # noqa: N818 -- as above
    """402, or a 429 that says so (``insufficient_quota``): the account has no credit."""

    kind = "payment_required"
    fatal: bool = True


class NoSuchModel(Failure, InputError):  # noqa: N818 -- as above
    """404 that names the model: the service does not have it."""

    kind = "no_such_model"
    fatal: bool = True


class Redirected(Failure, InputError):  # noqa: N818 -- as above
    """3xx: the service is at another address. Questions and key are sent to no other than given."""

    kind = "redirected"
    fatal: bool = True


class ClientError(Failure):
    """The client library cannot send the request, or not read the reply."""

    kind = "client_error"


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
    501: BadRequest,
}

_BY_CODE: Mapping[str, tuple[type[Failure], frozenset[int]]] = {
    # What an error's ``code`` or ``type`` says, and the statuses with which it is believed.
    "context_length_exceeded": (PromptTooLong, frozenset({400, 413, 422})),
    "model_not_found": (NoSuchModel, frozenset({400, 404})),
    "invalid_api_key": (Unauthorised, frozenset({400, 401, 403})),
    "wrong_api_key": (Unauthorised, frozenset({400, 401, 403})),
    "insufficient_quota": (PaymentRequired, frozenset({400, 402, 403, 429})),
    "billing_not_active": (PaymentRequired, frozenset({400, 402, 403, 429})),
    "billing_hard_limit_reached": (PaymentRequired, frozenset({400, 402, 403, 429})),
    "account_deactivated": (Unauthorised, frozenset({400, 401, 403, 429})),
    "content_filter": (Refused, frozenset({400, 403})),
    "content_policy_violation": (Refused, frozenset({400, 403})),
    "rate_limit_exceeded": (RateLimited, frozenset({429})),
}

_TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum context|prompt is too long|too many tokens"
    r"|reduce the length",
    re.IGNORECASE,
)
_MODEL = re.compile(r"\bmodel\b.*\b(not exist|not found|unknown|not available)", re.IGNORECASE)
_SHOWN = 300
"""How many characters of a service's own words are shown."""


_ADVICE: Mapping[type[Failure], str] = {
    Unauthorised: " (the key is wrong or may not use this model; set the right one and run again)",
    PaymentRequired: " (add credit to the account, or take another judge)",
    NoSuchModel: " (give a model that the service has)",
    NotFound: " (is the server's base URL right?)",
    InvalidReply: " (is the server's base URL right?)",
    Redirected: " (it redirects elsewhere; set the base URL to the address that it names)",
}


def failure_of_status(
    status: int,
    body: bytes | str,
    *,
    service: str,
    retry_after: float | None = None,
    redact: Callable[[str], str] = _NO_SECRETS,
) -> Failure:
    """The failure that an HTTP status other than success stands for.

    Args:
        status: The HTTP status, 300 or more.
        body: The reply's body; its ``message`` and ``code`` are read where it has them.
        service: What the message calls the service: provider, model and server.
        retry_after: Seconds, from the header of that name.
        redact: Takes secrets out of the service's words.
    """
    words, codes = words_of(body)
    kind = _BY_STATUS.get(status, _kind_of_class(status))
    for code in codes:
        if code in _BY_CODE and status in _BY_CODE[code][1]:
            kind = _BY_CODE[code][0]
            break
    else:
        if kind is BadRequest and _TOO_LONG.search(words):
            kind = PromptTooLong
        elif kind is NotFound and _MODEL.search(words):
            kind = NoSuchModel
    shown = redact(words)[:_SHOWN]
    said = f": {shown}" if shown else ""
    return kind(
        f"{service} answered {status}{said}{_ADVICE.get(kind, '')}",
        status=status,
        retry_after=retry_after,
    )


def failure_of_error(
    error: Any, *, service: str, redact: Callable[[str], str] = _NO_SECRETS
) -> Failure:
    """The failure that the ``error`` in a reply with the status 200 stands for.

    Its ``code`` is taken for an HTTP status where it is one, as OpenRouter means it.
    """
    words, codes = _said({"error": error})
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, str) and re.fullmatch("[45][0-9]{2}", status):
        status = int(status)
    if isinstance(status, int) and 400 <= status < 600:  # noqa: PLR2004 -- HTTP
        body = msgspec.json.encode({"error": error})
        failure = failure_of_status(status, body, service=service, redact=redact)
        failure.status = 200
        return failure
    shown = redact(words)[:_SHOWN]
    known = next((_BY_CODE[code][0] for code in codes if code in _BY_CODE), InvalidReply)
    advice = "" if known is InvalidReply else _ADVICE.get(known, "")
    failure = known(f"{service} answered with an error: {shown}{advice}", status=200)
    failure.unfit = False  # it is a chat service
    return failure


def _kind_of_class(status: int) -> type[Failure]:
    if status >= 500:  # noqa: PLR2004 -- HTTP
        return ServerError
    return BadRequest if status >= 400 else Redirected  # noqa: PLR2004 -- HTTP


_LONGEST_ERROR = 1 << 16
"""Bytes of an error's body that are read."""

_LONGEST_WORDS = 4000
"""Characters of it that are redacted, of which `_SHOWN` are shown."""


def words_of(body: bytes | str) -> tuple[str, list[str]]:
    """What an error's body says, in one printable line, and its codes.

    In the forms of Cerebras, OpenAI, llama.cpp and mlx_lm.server; of a web page, its title.
    """
    data = (body.encode(errors="replace") if isinstance(body, str) else body)[:_LONGEST_ERROR]
    try:
        return _said(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        text = data.decode(errors="replace").strip()
    if text.startswith("<"):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        text = title[1] if title else re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text)
        return f"a web page, {one_line(text[:_LONGEST_WORDS])!r}", []
    return one_line(text[:_LONGEST_WORDS]), []


def _said(parsed: Any) -> tuple[str, list[str]]:
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(error, dict):
        said = "" if error in (None, []) else _text(error)
        return one_line(said[:_LONGEST_WORDS]), []
    words = error.get("message") or error.get("detail") or error
    codes = [code for name in ("code", "type") if isinstance(code := error.get(name), str)]
    return one_line(_text(words)[:_LONGEST_WORDS]), codes


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode(errors="replace")
    except (RecursionError, ValueError, TypeError, OverflowError):
        return ""


def one_line(text: str) -> str:
    """A text from elsewhere on one line, without anything that is not printable."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())
