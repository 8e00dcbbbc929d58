"""Secrets: how an API key is checked before it is sent, and how it stays out of all output.

A reply is never altered before it is parsed. What is shown, logged or stored is redacted.
"""

import binascii
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

from cachedeval.engine.errors import InputError

__all__ = ["Redactor", "base64_of", "check_key", "credentials_of"]

SHORTEST = 8
"""Shorter keys are placeholders for local servers (`x`, `none`), and occur in any text."""

_MARK = "[redacted]"
_QUOTES = "\"'`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"

# Patterns are compiled at their first use: a run of hits needs none.
_KEY_LIKE = (
    r"\b(?:sk|csk|gsk|xai|nvapi)-[\w*.…-]{3,}"  # keys, whole or masked
    r"|\b(?:org-|proj_)\w{8,}"  # OpenAI's organisations and projects
    r"|(?i:\bbearer\s+)[\w.~+/=*-]{6,}"
    r"|(?<![\w-])[\w-]*\*{3,}[\w-]*"  # from where a word begins: else quadratic
)
"""What looks like a key or an account, ours or not."""

_MASKED = r"(?<![\w-])([\w-]{2,40}?)(?:\.{2,}|…|\*+|•+|#+|[xX]{3,})([\w-]{2,})"
"""A key of which a service shows the two ends only."""


def check_key(key: str, variable: str) -> None:
    """Refuse a key that no service can have issued, before it is sent anywhere.

    Args:
        key: The value of an environment variable; "" is no key, and passes.
        variable: The variable's name. Messages contain it, and never the value.

    Raises:
        InputError: The key cannot be sent, or was not pasted as it is.

    Example:
        >>> check_key("sk-one sk-two", "OPENAI_API_KEY")
        Traceback (most recent call last):
        cachedeval.engine.errors.InputError: OPENAI_API_KEY: there is a space in the key; set it again to the key alone
    """
    found = ""
    if key != key.strip():
        found = "there is a space or a line break before or after the key"
    elif key and (key[0] in _QUOTES or key[-1] in _QUOTES):
        found = "there are quotes around the key"
    elif any(char in "\r\n\v\f\x85\u2028\u2029" for char in key):
        found = "there is a line break in the key (two lines pasted, or a wrapped one)"
    elif any(char.isspace() for char in key):
        found = "there is a space in the key"
    elif any(not char.isprintable() for char in key):
        found = "there is a control character in the key"
    elif not key.isascii():
        found = "there is a character in the key that is not ASCII, such as a curly quote or a dash"
    if found:
        raise InputError(f"{variable}: {found}; set it again to the key alone")


def credentials_of(url: str) -> tuple[str, str] | None:
    """Return the user name and the password in a URL, or None."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


class Redactor:
    """Removes secrets from texts, in whatever form they come back.

    Found are a whole secret, each of its characters possibly escaped (JSON, URL, HTML) and with
    spaces, quotes or line breaks in between; its base64 and hexadecimal forms; and any
    `SHORTEST` or more of its characters in a row.

    Args:
        secrets: The values; those shorter than `SHORTEST` are left out.

    Thread safety: may be shared between threads.

    Example:
        >>> Redactor(["csk-0123456789"])("the key csk-0123456789 is wrong")
        'the key [redacted] is wrong'
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({each for each in secrets if len(each) >= SHORTEST}, key=len, reverse=True)
        forms = [form for secret in known for form in _forms(secret)]
        self._known = tuple(known)
        self._whole = re.compile("|".join(forms)) if forms else None
        self._grams = frozenset(
            secret[at : at + SHORTEST]
            for secret in known
            for at in range(len(secret) - SHORTEST + 1)
        )

    def __repr__(self) -> str:
        return "Redactor(…)"

    def __call__(self, text: str) -> str:
        """Return a text for display, without any secret or part of one."""
        text = re.sub(_MASKED, self._ends, self.whole(text))
        return re.sub(_KEY_LIKE, _MARK, self._without_parts(text))

    def whole(self, text: str) -> str:
        """Return a text without any whole secret, otherwise unaltered."""
        return text if self._whole is None else self._whole.sub(_MARK, text)

    def _ends(self, found: re.Match[str]) -> str:
        ours = any(key.startswith(found[1]) and key.endswith(found[2]) for key in self._known)
        return _MARK if ours else found[0]

    def _without_parts(self, text: str) -> str:
        if not any(gram in text for gram in self._grams):
            return text
        kept: list[str] = []
        since, at = 0, 0
        while at <= len(text) - SHORTEST:
            if text[at : at + SHORTEST] not in self._grams:
                at += 1
                continue
            end = at + SHORTEST
            while text[end - SHORTEST + 1 : end + 1] in self._grams:
                end += 1
            kept += [text[since:at], _MARK]
            since = at = end
        return "".join([*kept, text[since:]])


def _forms(secret: str) -> Iterator[str]:
    """Patterns for all forms in which a secret may come back."""
    between = r"(?:[\s\"'+]|\\{1,8}[nrt\n]){0,4}"
    yield between.join(map(_escaped, secret))
    data = secret.encode()
    yield f"(?i:{data.hex()})"
    yield re.escape(secret[::-1])
    for offset, begin in enumerate((0, 2, 3)):  # wherever in what was encoded it stands
        encoded = base64_of(bytes(offset) + data).rstrip("=")
        end = None if (offset + len(data)) % 3 == 0 else -1
        piece = encoded[begin:end]
        yield re.escape(piece)
        yield re.escape(piece.replace("+", "-").replace("/", "_"))


def base64_of(data: bytes) -> str:
    """Return the base64 form; the module of that name takes longer to import than all of this."""
    return binascii.b2a_base64(data, newline=False).decode()


def _escaped(char: str) -> str:
    code = f"{ord(char):02x}"
    return (
        rf"(?:{re.escape(char)}|\\{{1,8}}{re.escape(char)}|(?i:\\{{1,8}}(?:u00|x){code}|%{code}"
        rf"|&\#x0{{,4}}{code};)|&\#0{{,4}}{ord(char)};)"
    )
