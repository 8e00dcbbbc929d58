"""A judge's settings as a user writes them, in one TOML file.

::

    [judge]                         # what is sent with each request
    temperature = "default"         # a number, or "default": the service's own
    max_completion_tokens = 4096
    reasoning_effort = "low"
    extra = {top_k = 1}             # further fields of the request
    judge_id = "our llama"          # stands for the server's URL

    [limits]                        # of your account; what you leave out is not limited
    requests_per_minute = 1000
    tokens_per_minute = 1_000_000
    max_concurrency = 64

    [retry]
    timeout = 120                   # seconds for one request
    attempts = 5                    # of one call
    total_timeout = 200             # seconds for them together

    [prices."cerebras:my-model"]    # US dollars per million tokens
    input = 0.35
    output = 0.75
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.pricing import Price
from cachedeval.evals.judging.spec import JudgeSpec
from cachedeval.evals.judging.tables import convert_table, read_table
from cachedeval.services.limits import Limits
from cachedeval.services.retry import RetryPolicy
from cachedeval.services.spec import default_limits

__all__ = ["JudgeSettings", "load_settings"]


class JudgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a judge is called. Of it `judge` is part of keys; the rest changes no verdict.

    Attributes:
        judge: What is sent with each request.
        limits: What the service permits; None takes `default_limits`.
        retry: How often and how long a call is retried.
        prices: The user's own prices, beside and before the built-in ones.
    """

    judge: JudgeOptions = JudgeOptions()
    limits: Limits | None = None
    retry: RetryPolicy = RetryPolicy()
    prices: dict[str, Price] = {}

    def limits_for(self, spec: JudgeSpec, environ: Mapping[str, str]) -> Limits:
        """The limits that hold for a judge."""
        return self.limits if self.limits is not None else default_limits(spec.service, environ)


def load_settings(path: str | Path) -> JudgeSettings:
    """Read a settings file.

    Raises:
        InputError: It is missing, no TOML, or has a field that there is not; the message says
            which, and what was meant.
    """
    return convert_table(read_table(Path(path)), JudgeSettings, str(path))
