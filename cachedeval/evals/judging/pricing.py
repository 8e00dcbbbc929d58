"""What tokens cost."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from cachedeval.evals.judging.builtin import PRICES

__all__ = ["Price", "Prices", "load_prices"]

Money = Annotated[float, msgspec.Meta(ge=0)]


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's price in US dollars.

    Attributes:
        input: For a million tokens of prompt.
        output: For a million tokens of reply, reasoning included.
    """

    input: Money
    output: Money

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


Prices = Mapping[str, Price]
"""By judge, as it is named: ``cerebras:gpt-oss-120b``."""


def load_prices(own: Prices | None = None) -> Prices:
    """The built-in prices, with the user's own in their place.

    A judge that is not among them has no known price: report tokens, and no money.
    """
    return {**{name: Price(**price) for name, price in PRICES.items()}, **(own or {})}
