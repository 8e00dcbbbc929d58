"""What can go wrong with a judgement beyond what can go wrong with the service that judges."""

from cachedeval.services.errors import InvalidContentError

__all__ = ["InvalidVerdictError"]


class InvalidVerdictError(InvalidContentError):
    """A reply that is not the verdict that was asked for; `reply` holds it."""

    kind = "bad_verdict"
