"""The messages that ask a judge for one verdict.

They are part of what identifies a judgement, so everything in them follows from their content: the
same rubric, question, reference and response give the same bytes. The answer under judgement is
data: it stands between marks that it cannot forge.
"""

import re
from string import Template
from typing import NamedTuple

from cachedeval.evals.judging.rubric import Criterion, Rubric

__all__ = ["Item", "item_id", "render_messages"]


class Item(NamedTuple):
    """What is judged.

    Attributes:
        question: What was asked.
        reference: The right answer, where there is one.
        response: What was answered.
    """

    question: str
    reference: str | None
    response: str


def item_id(question: str, reference: str | None, response: str) -> str:
    """Return the nonce of what is judged: eight hexadecimal digits, made of its content.

    It stands in none of the three texts, however they are spaced or escaped. So an object that
    carries it was written by the judge, not quoted from what is judged.
    """
    digest = _digest(question, reference, response)
    texts = [_letters(text) for text in (question, reference, response) if text]
    while any(digest[:8] in text for text in texts):
        digest = _sha256(digest.encode())
    return digest[:8]


def render_messages(
    rubric: Rubric, question: str, reference: str | None, response: str
) -> list[dict[str, str]]:
    """The messages that ask for one verdict.

    ``$criteria`` and ``$reply_format`` become what the rubric asks for, ``$item_id`` the item's
    name, ``$question``, ``$reference`` and ``$response`` the texts between marks. The marks carry
    a code made of the texts themselves, so no text can contain its own. Texts are put in once:
    a placeholder inside of one stays what it is.
    """
    texts = {"question": question, "reference": reference, "response": response}
    digest = _digest(question, reference, response)
    code = digest[8:24]
    while any(code in text for text in texts.values() if text):  # no chance, and no trust in it
        digest = _sha256(digest.encode())
        code = digest[8:24]
    values = {
        "criteria": "\n".join(map(_told, rubric.criteria)),
        "reply_format": _reply_format(rubric),
        "item_id": item_id(question, reference, response),
        **{name: _marked(name, text, code) for name, text in texts.items()},
    }
    messages = []
    for role, template in (("system", rubric.system), ("user", rubric.template)):
        if template:
            messages.append({"role": role, "content": Template(template).substitute(values)})
    return messages


def _letters(text: str) -> str:
    """Return a text's letters and digits in lower case, with JSON's escapes resolved."""
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda escape: chr(int(escape[1], 16)), text)
    return re.sub(r"[\W_]+", "", plain).lower()


def _digest(question: str, reference: str | None, response: str) -> str:
    parts = []
    for text in (question, reference, response):
        data = b"" if text is None else text.encode("utf-8", "surrogatepass")
        parts.append(f"{-1 if text is None else len(data)}:".encode() + data)
    return _sha256(b"".join(parts))


def _sha256(data: bytes) -> str:
    import hashlib  # noqa: PLC0415  loads OpenSSL, and a hit renders no prompt

    return hashlib.sha256(data).hexdigest()


def _marked(name: str, text: str | None, code: str) -> str:
    if text is None:
        return f"(No {name} is given.)"
    sent = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be sent
    return f"<{name} {code}>\n{sent}\n</{name} {code}>"


def _told(criterion: Criterion) -> str:
    low, high = criterion.range
    lines = [f"- {criterion.name} ({low:g} to {high:g}): {criterion.description.strip()}"]
    lines += [f"  {low + step:g}: {level}" for step, level in enumerate(criterion.levels)]
    return "\n".join(lines)


def _reply_format(rubric: Rubric) -> str:
    scores = ", ".join(
        f'"{criterion.name}": <{criterion.range[0]:g} to {criterion.range[1]:g}>'
        for criterion in rubric.criteria
    )
    return (
        "Reply with one JSON object and nothing else, in this form:\n"
        '{"item_id": "<the item id that you are given>", "rationale": "<why, in one or two'
        f' sentences>", "scores": {{{scores}}}}}'
    )
