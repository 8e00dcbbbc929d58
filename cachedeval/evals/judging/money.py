"""What judging costs, or was saved, in money: tokens by the judges' prices."""

from collections.abc import Mapping

from cachedeval.engine.backend import Entry
from cachedeval.engine.encoding import Identified
from cachedeval.engine.maintenance import identity_of, inputs_of
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store
from cachedeval.evals.judging.pricing import Prices

__all__ = ["TOKENS", "SavedMoney", "usd"]

TOKENS = _IN, _OUT = "prompt_tokens", "completion_tokens"
"""The units in which a judge's cost is kept."""


def usd(judge: str, cost: Mapping[str, float], prices: Prices) -> float | None:
    """Return what tokens cost in US dollars, at list price; None where it is not known.

    Args:
        judge: as it is named: `cerebras:MODEL`.
        cost: `prompt_tokens` and `completion_tokens`.
        prices: by judge.
    """
    price = prices.get(judge)
    if price is None or not (cost.get(_IN) or cost.get(_OUT)):
        return None
    return price.of(round(cost.get(_IN, 0.0)), round(cost.get(_OUT, 0.0)))


class SavedMoney:
    """Adds up by judge the tokens that hits have saved: an `OnRecord` of `contents_of`."""

    def __init__(self) -> None:
        self._tokens: dict[Identified, dict[str, float]] = {}

    def __call__(self, entry: Entry, name: str, record: Record) -> None:
        """Add what the hits of one record have saved."""
        del name
        judge = inputs_of(record).get("judge") if entry.hits and record.cost else None
        if isinstance(judge, Identified):
            tokens = self._tokens.setdefault(judge, {})
            for unit, amount in record.cost.items():
                tokens[unit] = tokens.get(unit, 0.0) + entry.hits * amount

    def usd(self, store: Store, prices: Prices) -> float | None:
        """Return the sum in US dollars, at list prices; None where no judge's price is known.

        Args:
            store: where the judges' names stand.
            prices: by judge.
        """
        known = []
        for judge, tokens in self._tokens.items():
            identity = identity_of(store, judge)
            if isinstance(identity, dict):
                name = f"{identity.get('provider')}:{identity.get('model')}"
                known.append(usd(name, tokens, prices))
        told = [amount for amount in known if amount is not None]
        return sum(told) if told else None
