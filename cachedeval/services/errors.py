"""What can go wrong with one call of a service, each by its own type, and what is done about it.

An error is never a result: it is not cached, and reports count it by its `kind`. This module is the
one table that says which errors are retried, how often at most, and which end the whole run because
every other call would fail in the same way.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.services.secrets import Redactor

__all__ = [
    "APIConnectionError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ClientError",
    "ContextLengthError",
    "InternalServerError",
    "InvalidContentError",
    "InvalidResponseError",
    "ModelNotFoundError",
    "NotFoundError",
    "PaymentRequiredError",
    "QuotaExhaustedError",
    "RateLimitError",
    "RedirectError",
    "RefusalError",
    "ServiceError",
    "UnsupportedParameterError",
    "error_of_body",
    "error_of_status",
    "one_line",
    "words_of",
]


_NO_SECRETS = Redactor(())


class ServiceError(CachedevalError):
    """A call of a service that gave no usable reply.

    Attributes:
        kind: The name under which a report counts it.
        max_attempts: How often such a call is tried in all; 1 means no retry. The policy's own
            bound applies as well.
        fatal: Every other call would fail in the same way, so the run ends at once.
        wrong_endpoint: What answers is probably not the service. If nothing else ever answered,
            the run ends after a few of these.
        status: The HTTP status, or None if there was no reply.
        retry_after: Seconds that the service asks to wait, or None.
        reply: What the service answered, as far as it did, without secrets.
        attempts: How often the call was tried when this was raised in the end.
        headers: The reply's HTTP headers, names in lower case, without secrets.
        parameter: The parameter of the request that the service refuses, as it names it, or None.
        tokens: Of prompt and completion, which a reply without use cost all the same.
        final: This one is not retried, whatever its kind.
    """

    kind: ClassVar[str] = "failed"
    max_attempts: ClassVar[int] = 1
    wrong_endpoint: bool = False

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
        self.parameter: str | None = None
        self.tokens = (0, 0)
        self.final = False

    def redact(self, redact: Callable[[str], str]) -> None:
        """Remove secrets from everything this error carries, and drop the error that caused it."""
        self.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in self.args)
        self.reply = redact(self.reply)
        self.headers = {name: redact(value) for name, value in self.headers.items()}
        self.__cause__ = self.__context__ = self.__traceback__ = None


# The table. A class is a row: its kind, how often it is tried, and whether it ends the run.
# What has no `max_attempts` fails its item at once.


class RateLimitError(ServiceError):
    """429: too many requests, or the service is overloaded."""

    kind = "rate_limited"
    max_attempts = 100  # being told to wait is no fault: only the policy's bounds apply


class InternalServerError(ServiceError):
    """409, 425, 5xx: the service's fault, and perhaps a passing one."""

    kind = "server_error"
    max_attempts = 100


class APIConnectionError(ServiceError):
    """No connection, or one that broke in the middle of a reply.

    An invalid certificate and a server that does not speak TLS are `final`.
    """

    kind = "connection_failed"
    max_attempts = 6


class APITimeoutError(ServiceError):
    """408, or no reply within the time-out."""

    kind = "timed_out"
    max_attempts = 3  # each costs a whole time-out


class InvalidContentError(ServiceError):
    """A completion whose content the caller does not accept; `reply` holds it.

    Attributes:
        correction: What the next request says of this reply; empty sends the same request again.
    """

    kind = "invalid_content"
    max_attempts = 4  # each is paid for
    correction: str = ""


class InvalidResponseError(ServiceError):
    """A reply that is no chat completion: an error with status 200, a web page, too long.

    It was paid for, or comes from something other than the service, and would come again.
    """

    kind = "invalid_reply"
    wrong_endpoint = True


class RefusalError(ServiceError):
    """The model, or a filter before it, declined: it would decline the same request again."""

    kind = "refused"


class ContextLengthError(ServiceError):
    """413, or a 400 with that meaning: the prompt exceeds the model's context."""

    kind = "prompt_too_long"


class BadRequestError(ServiceError):
    """400, 422, 501 and other 4xx: the service does not accept this request."""

    kind = "bad_request"


class UnsupportedParameterError(ServiceError, InputError):
    """400, 422: the service refuses a parameter that the user set, by its name."""

    kind = "unsupported_parameter"
    fatal: bool = True


class NotFoundError(ServiceError):
    """404 that does not name the model: no such address."""

    kind = "not_found"
    wrong_endpoint = True


class QuotaExhaustedError(ServiceError):
    """The day's requests are used up; nothing is sent until the quota is renewed."""

    kind = "budget_exhausted"


class AuthenticationError(ServiceError, InputError):
    """401, 403: the key is wrong or may not do this."""

    kind = "unauthorised"
    fatal: bool = True


class PaymentRequiredError(ServiceError, InputError):
    """402, or a 429 with the code `insufficient_quota`: the account has no credit."""

    kind = "payment_required"
    fatal: bool = True


class ModelNotFoundError(ServiceError, InputError):
    """404 that names the model: the service does not have it."""

    kind = "no_such_model"
    fatal: bool = True


class RedirectError(ServiceError, InputError):
    """3xx: the service is elsewhere. Key and prompts go to the configured address alone."""

    kind = "redirected"
    fatal: bool = True


class ClientError(ServiceError):
    """The client library cannot send the request, or not read the reply."""

    kind = "client_error"


_BY_STATUS: Mapping[int, type[ServiceError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: AuthenticationError,
    404: NotFoundError,
    408: APITimeoutError,
    409: InternalServerError,
    413: ContextLengthError,
    422: BadRequestError,
    425: InternalServerError,
    429: RateLimitError,
    501: BadRequestError,
}

_BY_CODE: Mapping[str, tuple[type[ServiceError], frozenset[int]]] = {
    # An error's `code` or `type`, and the statuses with which it counts.
    "context_length_exceeded": (ContextLengthError, frozenset({400, 413, 422})),
    "model_not_found": (ModelNotFoundError, frozenset({400, 404})),
    "invalid_api_key": (AuthenticationError, frozenset({400, 401, 403})),
    "wrong_api_key": (AuthenticationError, frozenset({400, 401, 403})),
    "insufficient_quota": (PaymentRequiredError, frozenset({400, 402, 403, 429})),
    "billing_not_active": (PaymentRequiredError, frozenset({400, 402, 403, 429})),
    "billing_hard_limit_reached": (PaymentRequiredError, frozenset({400, 402, 403, 429})),
    "account_deactivated": (AuthenticationError, frozenset({400, 401, 403, 429})),
    "content_filter": (RefusalError, frozenset({400, 403})),
    "content_policy_violation": (RefusalError, frozenset({400, 403})),
    "rate_limit_exceeded": (RateLimitError, frozenset({429})),
}

_TOO_LONG = (
    r"(?i)context.{0,20}(length|size|window)|maximum context|prompt is too long|too many tokens"
    r"|reduce the length"
)
_MODEL = r"(?i)\bmodel\b.*\b(not exist|not found|unknown|not available)"
_SHOWN = 300
"""Characters of a service's own words that are shown."""


_ADVICE: Mapping[type[ServiceError], str] = {
    AuthenticationError: " (the key is wrong or may not use this model; set the right one and run again)",
    PaymentRequiredError: " (add credit to the account, or use another service)",
    ModelNotFoundError: " (give a model that the service has)",
    NotFoundError: " (is the server's base URL right?)",
    InvalidResponseError: " (is the server's base URL right?)",
    RedirectError: " (it redirects elsewhere; set the base URL to the address that it names)",
}


def error_of_status(
    status: int,
    body: bytes | str,
    *,
    service: str,
    retry_after: float | None = None,
    redact: Callable[[str], str] = _NO_SECRETS,
) -> ServiceError:
    """Return the error for an HTTP status other than success.

    Args:
        status: The HTTP status, 300 or more.
        body: The reply's body; its `message` and `code` are read if it has them.
        service: The name of the service in the message.
        retry_after: Seconds, from the header of that name.
        redact: Removes secrets from the service's words.
    """
    words, codes = words_of(body)
    kind = _BY_STATUS.get(status, _kind_of_class(status))
    for code in codes:
        if code in _BY_CODE and status in _BY_CODE[code][1]:
            kind = _BY_CODE[code][0]
            break
    else:
        if kind is BadRequestError and re.search(_TOO_LONG, words):
            kind = ContextLengthError
        elif kind is NotFoundError and re.search(_MODEL, words):
            kind = ModelNotFoundError
    shown = redact(words)[:_SHOWN]
    quoted = f": {shown}" if shown else ""
    found = kind(
        f"{service} answered {status}{quoted}{_ADVICE.get(kind, '')}",
        status=status,
        retry_after=retry_after,
    )
    found.parameter = _parameter_of(body) if kind is BadRequestError else None
    return found


def error_of_body(
    error: Any, *, service: str, redact: Callable[[str], str] = _NO_SECRETS
) -> ServiceError:
    """Return the error for an `error` in a reply with status 200.

    A `code` that is an HTTP status counts as that status, as OpenRouter means it.
    """
    words, codes = _words_and_codes({"error": error})
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, str) and re.fullmatch("[45][0-9]{2}", status):
        status = int(status)
    if isinstance(status, int) and 400 <= status < 600:  # noqa: PLR2004 -- HTTP
        body = msgspec.json.encode({"error": error})
        found = error_of_status(status, body, service=service, redact=redact)
        found.status = 200
        return found
    shown = redact(words)[:_SHOWN]
    known = next((_BY_CODE[code][0] for code in codes if code in _BY_CODE), InvalidResponseError)
    advice = "" if known is InvalidResponseError else _ADVICE.get(known, "")
    found = known(f"{service} answered with an error: {shown}{advice}", status=200)
    found.wrong_endpoint = False  # it is a chat service
    return found


def _kind_of_class(status: int) -> type[ServiceError]:
    if status >= 500:  # noqa: PLR2004 -- HTTP
        return InternalServerError
    return BadRequestError if status >= 400 else RedirectError  # noqa: PLR2004 -- HTTP


_LONGEST_ERROR = 1 << 16
"""Bytes of an error's body that are read."""

_LONGEST_WORDS = 4000
"""Characters of it that are redacted, of which `_SHOWN` are shown."""


def words_of(body: bytes | str) -> tuple[str, list[str]]:
    """Return the message in an error's body, in one printable line, and its codes.

    It reads the forms of Cerebras, OpenAI, llama.cpp and mlx_lm.server, and of a web page the title.
    """
    data = (body.encode(errors="replace") if isinstance(body, str) else body)[:_LONGEST_ERROR]
    try:
        return _words_and_codes(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        text = data.decode(errors="replace").strip()
    if text.startswith("<"):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        text = title[1] if title else re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text)
        return f"a web page, {one_line(text[:_LONGEST_WORDS])!r}", []
    return one_line(text[:_LONGEST_WORDS]), []


def _parameter_of(body: bytes | str) -> str | None:
    """Return the parameter that an error names as refused, in the form of OpenAI or FastAPI."""
    data = (body.encode(errors="replace") if isinstance(body, str) else body)[:_LONGEST_ERROR]
    try:
        parsed = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return None
    name = error.get("param")
    match error.get("detail"):
        case [{"loc": ["body", str(field), *_]}, *_]:
            name = name or field
    return name if isinstance(name, str) and name else None


def _words_and_codes(parsed: Any) -> tuple[str, list[str]]:
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(error, dict):
        text = "" if error in (None, []) else _text(error)
        return one_line(text[:_LONGEST_WORDS]), []
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
    """Return a text from elsewhere on one line, without unprintable characters."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())
