"""Judges: what one is named by, and the one protocol that all who answer over HTTP keep.

A provider is a small module behind `ChatProvider`. Limits, retries and verdicts are not its
business: it sends one request, and returns the reply or raises one typed failure.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args
from urllib.parse import urlsplit

from cachedeval.engine.errors import InputError
from cachedeval.evals.limiting.limits import Limits, cerebras_free_tier
from cachedeval.evals.providers.secrets import Redactor, check_key, secrets_of

__all__ = [
    "CEREBRAS_URL",
    "OPENAI_URL",
    "ChatProvider",
    "ChatReply",
    "ChatRequest",
    "JudgeSpec",
    "Provider",
    "default_limits",
    "is_loopback",
    "key_of",
    "open_provider",
    "parse_judge",
    "server_of",
]

Provider = Literal["cerebras", "openai", "mlx", "exact", "f1"]

CEREBRAS_URL = "https://api.cerebras.ai"
OPENAI_URL = "https://api.openai.com/v1"

_NAMES: dict[str, Provider] = {name: name for name in get_args(Provider)}
_WITHOUT_MODEL = ("exact", "f1")


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """A judge as the user names it: ``cerebras:MODEL``, ``openai:MODEL``, ``mlx:PATH``, ``f1``.

    Attributes:
        provider: Who judges.
        model: The model's name, or the folder for ``mlx``; "" for the reference metrics.
    """

    provider: Provider
    model: str = ""

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}" if self.model else self.provider

    @property
    def over_http(self) -> bool:
        """Whether `open_provider` can open it."""
        return self.provider in ("cerebras", "openai")


def parse_judge(spec: str) -> JudgeSpec:
    """Read a judge's name.

    Raises:
        InputError: It is none of the forms.
    """
    provider, colon, model = spec.strip().partition(":")
    forms = "cerebras:MODEL, openai:MODEL, mlx:PATH, exact or f1"
    known = _NAMES.get(provider)
    if known is None:
        raise InputError(f"judge {spec!r}: no such judge; give {forms}")
    if provider in _WITHOUT_MODEL:
        if colon:
            raise InputError(f"judge {spec!r}: {provider} takes no model; give just {provider}")
    elif not model.strip():
        what = "folder" if provider == "mlx" else "model"
        raise InputError(f"judge {spec!r}: which {what}? Give {forms}")
    return JudgeSpec(known, model.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One chat completion to ask for.

    Attributes:
        model: The model's name.
        messages: Each with ``role`` and ``content``.
        max_completion_tokens: The most that the reply may have, reasoning included.
        temperature: None leaves it to the service: some models take no other.
        seed: For services that sample reproducibly, or None.
        response_format: The ``response_format`` to send, or None.
        extra: Further fields of the body, such as ``reasoning_effort``.
    """

    model: str
    messages: tuple[dict[str, str], ...]
    max_completion_tokens: int = 1024
    temperature: float | None = 0.0
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The request's JSON body."""
        optional = {
            "temperature": self.temperature,
            "seed": self.seed,
            "response_format": self.response_format,
        }
        return {
            "model": self.model,
            "messages": list(self.messages),
            "max_completion_tokens": self.max_completion_tokens,
            **{name: value for name, value in optional.items() if value is not None},
            **self.extra,
        }


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a service answered.

    Attributes:
        content: The model's words; "" where it had none.
        prompt_tokens: Tokens in, as the service counted; 0 where it did not say.
        completion_tokens: Tokens out, reasoning included.
        finish_reason: ``stop``, ``length``, …
        headers: The reply's HTTP headers, names in lower case.
    """

    content: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    headers: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


class ChatProvider(Protocol):
    """Someone who completes chats. Belongs to one event loop from its first use on.

    Attributes:
        takes_schema: Whether ``response_format`` is sent; set to False by `judge` once the
            service has turned it down.
        name: What messages call it; without secrets.
        redact: Takes what it sends in secret out of a text.
    """

    takes_schema: bool
    name: str
    redact: "Redactor"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once.

        Raises:
            Failure: The typed reason why there is no reply; ``retry_after`` set as the service
                said. A ``RateLimited`` one has ``headers``.
        """
        ...

    async def aclose(self) -> None:
        """Give the connections back."""
        ...


def server_of(spec: JudgeSpec, environ: Mapping[str, str]) -> str:
    """The base URL of a judge over HTTP: from CEREBRAS_BASE_URL or OPENAI_BASE_URL if set."""
    if spec.provider == "cerebras":
        return environ.get("CEREBRAS_BASE_URL") or CEREBRAS_URL
    return environ.get("OPENAI_BASE_URL") or OPENAI_URL


def _check_server(spec: JudgeSpec, environ: Mapping[str, str]) -> None:
    variable = "CEREBRAS_BASE_URL" if spec.provider == "cerebras" else "OPENAI_BASE_URL"
    url = server_of(spec, environ)
    found = ""
    try:
        parts = urlsplit(url)
        if url != url.strip() or not url.isprintable() or " " in url:
            found = "there is a space, a line break or a control character in the URL"
        elif parts.scheme not in ("http", "https") or "://" not in url:
            found = "the URL begins with neither http:// nor https://"
        elif not parts.hostname or parts.port == 0:
            found = "there is no host in the URL, or its port is no number"
    except ValueError:
        found = "there is no host in the URL, or its port is no number"
    if found:
        example = CEREBRAS_URL if spec.provider == "cerebras" else OPENAI_URL
        raise InputError(f"{variable}: {found}; give one like {example}")


def _check_proxies(environ: Mapping[str, str]) -> None:
    """Refuse what httpx would end with a traceback of, as soon as a connection is opened."""
    for name in ("NO_PROXY", "no_proxy"):
        if any(entry.strip().startswith("[") for entry in environ.get(name, "").split(",")):
            raise InputError(f"{name}: an address stands in brackets; write ::1 in place of [::1]")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        given = environ.get(name)
        if given and not Path(given).exists():
            raise InputError(f"{name}: there is no {given}; unset it, or name one that is there")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        for each in (name, name.lower()):
            scheme = environ.get(each, "").partition("://")[0].strip().lower()
            if scheme.startswith("socks") and find_spec("socksio") is None:
                raise InputError(
                    f"{each}: a SOCKS proxy needs a further package; pip install socksio, or unset"
                    f" {each}"
                )


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_limits(spec: JudgeSpec, environ: Mapping[str, str]) -> Limits:
    """The limits where the user sets none: Cerebras's free tier for Cerebras, else none known.

    A server on this machine is given eight requests at once: it has no fleet behind it.
    """
    server = server_of(spec, environ)
    if spec.provider == "cerebras" and urlsplit(server).hostname == urlsplit(CEREBRAS_URL).hostname:
        return cerebras_free_tier()
    if spec.provider == "openai" and is_loopback(server):
        return Limits(max_concurrency=8)
    return Limits()


def open_provider(
    spec: JudgeSpec, environ: Mapping[str, str], *, max_concurrency: int = 32
) -> ChatProvider:
    """Make the client of a judge over HTTP. Nothing is sent yet, and no connection is made.

    Args:
        spec: A judge whose ``over_http`` is true.
        environ: Where key and server are looked up: ``os.environ``.
        max_concurrency: How many connections are kept.

    Raises:
        InputError: The key is missing or malformed, or the server's URL is.
        ValueError: The judge is none over HTTP.
    """
    if not spec.over_http:
        raise ValueError(f"{spec} is not reached over HTTP")
    key, base_url = key_of(spec, environ), server_of(spec, environ)
    redact = Redactor(secrets_of(key, base_url))
    # Imported here: answering from the cache needs neither httpx nor the SDK.
    if spec.provider == "cerebras":
        from cachedeval.evals.providers.cerebras import CerebrasProvider  # noqa: PLC0415

        return CerebrasProvider(
            key=key, base_url=base_url, max_concurrency=max_concurrency, redact=redact
        )
    from cachedeval.evals.providers.openai_compatible import OpenAIProvider  # noqa: PLC0415

    return OpenAIProvider(
        key=key, base_url=base_url, max_concurrency=max_concurrency, redact=redact
    )


def key_of(spec: JudgeSpec, environ: Mapping[str, str]) -> str:
    """The key of a judge over HTTP; a server on this machine need not want one.

    Raises:
        InputError: It is missing or malformed, or the server's URL is; the message names the
            environment's variable, and never its value.
    """
    variable = "CEREBRAS_API_KEY" if spec.provider == "cerebras" else "OPENAI_API_KEY"
    key = environ.get(variable, "")
    try:
        _check_server(spec, environ)
        _check_proxies(environ)
        if key.strip():
            check_key(key, variable)
        else:
            key = ""
    except InputError as error:
        raise InputError(f"judge {spec}: {error}") from None
    if not key and not (spec.provider == "openai" and is_loopback(server_of(spec, environ))):
        raise InputError(
            f"judge {spec}: no key; set {variable} in the environment, or take another judge "
            "(--judge f1 compares with the reference answers)"
        )
    return key
