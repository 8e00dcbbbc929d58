"""Where a speed-up comes from, and what the work that cannot be avoided would take.

The original's seconds are taken apart and put together anew, one saving after the other:

    original   n processes, each importing, loading and generating alone; n judge calls in turn
    - loads        one import and one load instead of n
    - batching     the n answers decoded together
    - concurrency  one judge latency instead of n
    - cache        what is really left, against what those three would leave

Each step's factor is the seconds before it over the seconds after it, so the factors multiply to
the speed-up. The last one contains our own overhead too, and is below 1 where nothing is cached.
"""

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.scenarios import Scenario
from benchmarks.workplace import Profile

__all__ = ["Parts", "ideal_of", "original_of", "questions_of", "split_of"]


class Parts(NamedTuple):
    """Medians of what was measured, in seconds."""

    generating: float
    """The original: one question's process."""
    judging: float
    """The original: one call to the judge."""
    rest: float
    """The original: all else, once."""
    start: float
    """`python -c pass`."""
    imports: float
    sdk: float
    load: float
    latency: float
    decode: Mapping[str, float]
    """Decoding of each set of questions, together."""


def questions_of(scenario: Scenario, profile: Profile) -> int:
    """Return how many questions the original evaluates to the same end."""
    return {
        "questions": profile.questions,
        "added": profile.questions + 1,
        "more": profile.more,
        "sweep": profile.questions * profile.adapters,
    }[scenario.sizes]


def original_of(scenario: Scenario, profile: Profile, parts: Parts) -> float:
    """Return the original's seconds, scaled from the questions that it ran."""
    evaluations = profile.adapters if scenario.sizes == "sweep" else 1
    each = parts.generating + parts.judging
    return questions_of(scenario, profile) * each + evaluations * (parts.rest + parts.start)


def _decoding(scenario: Scenario, profile: Profile, parts: Parts) -> float:
    if scenario.sizes == "sweep":
        return profile.adapters * parts.decode["cold"]
    return sum(times * parts.decode[name] for name, times in scenario.decodes.items())


def ideal_of(scenario: Scenario, profile: Profile, parts: Parts, *, generated: int) -> float | None:
    """Return the seconds of the work that the scenario cannot avoid; None for none at all.

    Args:
        scenario: what was run.
        profile: of what size.
        parts: what was measured.
        generated: how many answers it decoded. It counts only after a kill, which may come when
            all answers of a small model are there.
    """
    if scenario.name == "same-process":
        return None
    seconds = parts.start
    if scenario.decodes and (generated or scenario.start != "killed"):
        seconds += parts.imports + parts.load + _decoding(scenario, profile, parts)
    if scenario.judged:
        seconds += parts.sdk + parts.latency
    return seconds


def split_of(
    scenario: Scenario, profile: Profile, parts: Parts, seconds: float
) -> dict[str, float]:
    """Return the factor of each saving; their product is the speed-up.

    Args:
        scenario: what was run.
        profile: of what size.
        parts: what was measured.
        seconds: what the scenario took.
    """
    n = questions_of(scenario, profile)
    decode = {
        "questions": parts.decode["cold"],
        "added": parts.decode["cold"] + parts.decode["one"],
        "more": parts.decode["cold"] + parts.decode["more"],
        "sweep": parts.decode["cold"] * profile.adapters,
    }[scenario.sizes]
    alone = max(parts.generating - parts.start - parts.imports - parts.load, 0.0)
    stages = [original_of(scenario, profile, parts)]
    stages.append(stages[-1] - (n - 1) * (parts.generating - alone))
    stages.append(stages[-1] - (n * alone - decode))
    stages.append(stages[-1] - (n * parts.judging - parts.latency))
    stages.append(seconds)
    names = ("loads", "batching", "concurrency", "cache")
    return {
        name: before / after
        for name, before, after in zip(names, stages[:-1], stages[1:], strict=True)
    }
