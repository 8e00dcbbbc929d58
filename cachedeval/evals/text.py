"""Text of models, services and files, made safe for the place where it is shown."""

__all__ = ["cell", "clean", "html", "markdown", "xml"]

_MARKUP = frozenset("\\`*_{}[]()#+!|~@&$")
_JOINERS = "\u200c\u200d"  # not printable, harmless, and part of words and of emoji


def clean(text: str) -> str:
    r"""Return a text whose control characters are replaced, except for line breaks.

    Models, servers and files supply much of what is shown. Their escape sequences must not reach a
    terminal, which would obey them: clear the screen, set its title, write to the clipboard. Marks
    that change the direction of what follows, and halves of surrogate pairs, are replaced as well.

    Example:
        >>> clean("a\x1b[2Jb")
        'a\ufffd[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c == "\n" or c in _JOINERS or c.isprintable() else " " if c.isspace() else "\ufffd"
        for c in text
    )


def html(text: str) -> str:
    """Return a text as HTML that shows it and does nothing else, between tags and in attributes.

    Example:
        >>> html('<script>alert("x")</script>')
        '&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;'
    """
    from html import escape  # noqa: PLC0415  takes long to import, and most runs write no HTML

    return escape(clean(text))


def xml(text: str) -> str:
    r"""Return a text as XML, between tags and in attributes; line breaks stay in both.

    Example:
        >>> xml("a < b\x00")
        'a &lt; b\ufffd'
    """
    return html(text).replace("\n", "&#10;")


def cell(text: str) -> str:
    """Return a text for a cell of a spreadsheet, which must not take it for a formula.

    A text that begins as a formula does gets an apostrophe in front: OWASP, CSV injection.

    Example:
        >>> cell("=HYPERLINK(1)"), cell("5 - 3")
        ("'=HYPERLINK(1)", '5 - 3')
    """
    cleaned = clean(text)
    return f"'{cleaned}" if cleaned.lstrip(" \n").startswith(("=", "+", "-", "@")) else cleaned


def markdown(text: str) -> str:
    r"""Return a text as one line of Markdown that is neither markup nor HTML.

    Example:
        >>> markdown("*a* | <b>\nc")
        '\\*a\\* \\| &lt;b&gt; c'
    """
    line = " ".join(clean(text).split())
    escaped = "".join(f"\\{c}" if c in _MARKUP else c for c in line)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")
