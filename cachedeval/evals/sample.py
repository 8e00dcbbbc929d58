"""Draws a sample of questions that is the same each time, and grows without changing."""

from collections.abc import Sequence
from typing import Literal

import xxhash

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import InputError
from cachedeval.evals.data import Question

__all__ = ["Sampling", "draw"]

Sampling = Literal["nested", "shuffle"]


def draw(
    questions: Sequence[Question],
    count: int | None,
    seed: int,
    sampling: Sampling = "nested",
) -> list[Question]:
    """Return a sample of the questions.

    Each question is ranked by a digest of seed and content, and the first ones are taken in that
    order. So the sample of 20 is contained in the sample of 50, the order of the file does not
    matter, and one more line changes at most one question of the sample.

    Args:
        questions: what to draw from.
        count: how many to draw; all if there are fewer, or if it is None.
        seed: another seed, another sample.
        sampling: `shuffle` draws as `random.Random(seed).sample` does, to repeat old scores.

    Raises:
        InputError: the count is not positive, or there is no such sampling.

    Example:
        >>> questions = [
        ...     Question(f"{n:016x}", f"{n}?", ({"role": "user", "content": f"{n}?"},), None, {})
        ...     for n in range(100)
        ... ]
        >>> small, large = draw(questions, 20, seed=42), draw(questions, 50, seed=42)
        >>> small == large[:20]
        True
    """
    if count is not None and count < 1:
        raise InputError(f"the number of questions is {count}; it must be 1 or more")
    if sampling == "shuffle":
        taken = len(questions) if count is None else min(count, len(questions))
        import random  # slow to import, and the nested draw does without

        return random.Random(seed).sample(list(questions), taken)  # noqa: S311  no secret
    if sampling != "nested":
        raise InputError(f"sampling {sampling!r}: there are `nested` and `shuffle`")

    def rank(question: Question) -> tuple[bytes, str]:
        return xxhash.xxh3_128_digest(encode((seed, question.id))), question.id

    return sorted(questions, key=rank)[:count]
