"""How often and how long a judgement is tried: the settings."""

import msgspec

from cachedeval.engine.errors import InputError

__all__ = ["Retry"]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a judgement is tried. Which failures are: `cachedeval.evals.judging.failures`.

    Attributes:
        attempts: The most attempts of one judgement.
        deadline: Seconds until a request without a reply is given up.
        total: Seconds that one judgement may take over all its attempts; waiting for a turn under
            the limits does not count.
        first_wait: Seconds before the first retry; doubled for each further one, plus jitter of
            up to as much.
        longest_wait: Seconds between attempts at the most.
    """

    attempts: int = 10
    deadline: float = 60.0
    total: float = 300.0
    first_wait: float = 0.5
    longest_wait: float = 20.0

    def __post_init__(self) -> None:
        """Refuse what cannot be kept to.

        Raises:
            InputError: A number is not above 0.
        """
        for name in self.__struct_fields__:
            given = getattr(self, name)
            if not given > 0:
                raise InputError(f"retry: {name} is {given}, and must be above 0")
