"""Which service, which model, at which address, with which key: from names and the environment.

Nothing here connects or imports a client.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.services.limits import Limits, cerebras_free_tier
from cachedeval.services.secrets import check_key

__all__ = [
    "CEREBRAS_URL",
    "OPENAI_URL",
    "Provider",
    "ServiceSpec",
    "api_key_of",
    "base_url_of",
    "default_limits",
    "identifying_url",
    "is_loopback",
    "normalised_url",
]

Provider = Literal["cerebras", "openai"]

CEREBRAS_URL = "https://api.cerebras.ai"
OPENAI_URL = "https://api.openai.com/v1"

_PORTS = {"http": 80, "https": 443}


class ServiceSpec(msgspec.Struct, frozen=True):
    """A model of a service.

    Attributes:
        provider: `cerebras`, or `openai` for any server that speaks OpenAI's chat completions.
        model: The model's name.

    Example:
        >>> str(ServiceSpec("openai", "llama3.2"))
        'openai:llama3.2'
    """

    provider: Provider
    model: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the API key."""
        return f"{self.provider.upper()}_API_KEY"

    @property
    def url_variable(self) -> str:
        """The environment variable that holds the base URL."""
        return f"{self.provider.upper()}_BASE_URL"


def base_url_of(spec: ServiceSpec, environ: Mapping[str, str]) -> str:
    """Return the base URL: that of the environment, or the provider's own."""
    default = CEREBRAS_URL if spec.provider == "cerebras" else OPENAI_URL
    return environ.get(spec.url_variable) or default


def identifying_url(spec: ServiceSpec, environ: Mapping[str, str]) -> str:
    """Return the base URL in its normal form, as it identifies a service.

    Raises:
        InputError: It is no base URL. The message names the variable.
    """
    try:
        _check_base_url(spec, environ)
    except InputError as error:
        raise InputError(f"{spec}: {error}") from None
    return normalised_url(base_url_of(spec, environ))


def normalised_url(url: str) -> str:
    """Return the one form of all ways to write a base URL, without credentials.

    Scheme and host are in lower case; the scheme's own port and slashes at the end are left out.

    Raises:
        ValueError: It is no URL.

    Example:
        >>> normalised_url("HTTPS://me:secret@Example.com:443/v1/")
        'https://example.com/v1'
    """
    parts = urlsplit(url.strip())
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
    place = host if port is None else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}{query}"


def api_key_of(spec: ServiceSpec, environ: Mapping[str, str]) -> str:
    """Return the API key, or "" for a server on this machine that has none.

    Raises:
        InputError: The key is missing or malformed, or the base URL, a proxy or a certificate file
            of the environment cannot be used. The message names the variable, and never a key.
    """
    key = environ.get(spec.key_variable, "")
    try:
        _check_base_url(spec, environ)
        _check_network(environ)
        if key.strip():
            check_key(key, spec.key_variable)
            return key
    except InputError as error:
        raise InputError(f"{spec}: {error}") from None
    if spec.provider == "openai" and is_loopback(base_url_of(spec, environ)):
        return ""
    raise InputError(f"{spec}: no key; set {spec.key_variable} in the environment")


def default_limits(spec: ServiceSpec, environ: Mapping[str, str]) -> Limits:
    """Return the limits where the user sets none: for Cerebras those of its free tier, else none.

    A server on this machine gets eight requests at once: there is no fleet behind it.
    """
    url = base_url_of(spec, environ)
    if spec.provider == "cerebras" and _host(url) == _host(CEREBRAS_URL):
        return cerebras_free_tier()
    if spec.provider == "openai" and is_loopback(url):
        return Limits(max_concurrency=8)
    return Limits()


def is_loopback(url: str) -> bool:
    """Say whether a URL's host is this machine."""
    host = _host(url)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _check_base_url(spec: ServiceSpec, environ: Mapping[str, str]) -> None:
    url = base_url_of(spec, environ)
    found = ""
    try:
        parts = urlsplit(url)
        if not url.isprintable() or " " in url:
            found = "there is a space, a line break or a control character in the URL"
        elif parts.scheme not in ("http", "https") or "://" not in url:
            found = "the URL begins with neither http:// nor https://"
        elif not parts.hostname or parts.port == 0:
            found = "there is no host in the URL, or its port is no number"
    except ValueError:
        found = "there is no host in the URL, or its port is no number"
    if found:
        example = CEREBRAS_URL if spec.provider == "cerebras" else OPENAI_URL
        raise InputError(f"{spec.url_variable}: {found}; set one like {example}")


def _check_network(environ: Mapping[str, str]) -> None:
    """Refuse what makes httpx fail with a traceback when a client is opened."""
    for name in ("NO_PROXY", "no_proxy"):
        if any(entry.strip().startswith("[") for entry in environ.get(name, "").split(",")):
            raise InputError(f"{name}: an address is in brackets; write ::1 instead of [::1]")
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        given = environ.get(name)
        if given and not Path(given).exists():
            raise InputError(f"{name}: {given} does not exist; unset it, or set an existing one")
    from importlib.util import find_spec  # noqa: PLC0415 -- for a proxy only

    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        for each in (name, name.lower()):
            scheme = environ.get(each, "").partition("://")[0].strip().lower()
            if scheme.startswith("socks") and find_spec("socksio") is None:
                raise InputError(
                    f"{each}: a SOCKS proxy needs another package; pip install socksio, or unset"
                    f" {each}"
                )
