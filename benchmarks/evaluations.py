"""Measures the scenarios of a profile beside the original and the ideal, in turns."""

import json
import statistics
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from benchmarks.judge_server import JudgeProcess
from benchmarks.measure import Rounds, command, summary
from benchmarks.scenarios import SCENARIOS, Scenario, Scenarios
from benchmarks.split import Parts, ideal_of, original_of, questions_of, split_of
from benchmarks.workplace import Profile, Workplace

__all__ = ["measure_profile"]


def measure_profile(
    workplace: Workplace, only: Collection[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a profile's scenarios.

    Args:
        workplace: what to measure with.
        only: names of scenarios; all if empty.
        say: told what begins.

    Returns:
        What results hold of a profile: `about`, `original`, `ideal`, and `scenarios` by name.
    """
    profile = workplace.profile
    chosen = [s for s in SCENARIOS if not only or s.name in only]
    with JudgeProcess(profile.latency) as judge:
        scenarios = Scenarios(workplace, judge)
        say("a first evaluation, and one that is killed")
        scenarios.prepare()
        things: dict[str, Callable[[], Any]] = {
            "start": lambda: command([sys.executable, "-c", "pass"]).seconds,
            "original": lambda: _original(workplace, judge),
            "ideal": lambda: _ideal(workplace),
        }
        for scenario in chosen:
            things[scenario.name] = partial(scenarios.sample, scenario)
        taken = Rounds(profile.wanted, profile.budget_s, say).take(things)
    parts = _parts(profile, taken)
    return {
        "about": profile.about,
        "questions": profile.questions,
        "more": profile.more,
        "adapters": profile.adapters,
        "max_tokens": profile.max_tokens,
        "latency": profile.latency,
        "part": profile.part,
        "original": {
            "generating": summary([s for run in taken["original"] for s in run["generating"]]),
            "judging": summary([s for run in taken["original"] for s in run["judging"]]),
            "rest": summary([run["rest"] for run in taken["original"]]),
        },
        "start": summary(taken["start"]),
        "ideal": {
            name: summary([run[name] for run in taken["ideal"]]) for name in taken["ideal"][0]
        },
        "scenarios": {s.name: _result(s, profile, parts, taken[s.name]) for s in chosen},
    }


def _original(workplace: Workplace, judge: JudgeProcess) -> dict[str, Any]:
    profile = workplace.profile
    sizes = (str(profile.questions), str(profile.part), str(profile.max_tokens))
    ran = command(
        [
            *(sys.executable, "-m", "benchmarks.original"),
            *(workplace.model, workplace.adapter, workplace.all),
            *sizes,
        ],
        env=judge.env,
    )
    told: dict[str, Any] = json.loads(ran.out)
    return told


def _ideal(workplace: Workplace) -> dict[str, float]:
    sets = workplace.root / "sets.json"
    sets.write_text(
        json.dumps(
            {
                name: [[dict(message) for message in question.messages] for question in questions]
                for name, questions in workplace.sets.items()
            }
        ),
        encoding="utf-8",
    )
    ran = command(
        [
            *(sys.executable, "-m", "benchmarks.ideal", workplace.model, workplace.adapter),
            *(str(workplace.profile.max_tokens), sets),
        ]
    )
    told: dict[str, float] = json.loads(ran.out.splitlines()[-1])
    return told


def _parts(profile: Profile, taken: dict[str, list[Any]]) -> Parts:
    def of(run: str, name: str) -> float:
        return float(statistics.median(sample[name] for sample in taken[run]))

    originals = taken["original"]
    return Parts(
        generating=statistics.median(s for run in originals for s in run["generating"]),
        judging=statistics.median(s for run in originals for s in run["judging"]),
        rest=of("original", "rest"),
        start=statistics.median(taken["start"]),
        imports=of("ideal", "import"),
        sdk=of("ideal", "sdk"),
        load=of("ideal", "load"),
        latency=profile.latency,
        decode={
            name.removeprefix("decode "): of("ideal", name)
            for name in taken["ideal"][0]
            if name.startswith("decode ")
        },
    )


def _result(
    scenario: Scenario, profile: Profile, parts: Parts, samples: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = summary([sample["seconds"] for sample in samples])
    original = original_of(scenario, profile, parts)
    generated = samples[-1]["generated"]
    ideal = ideal_of(scenario, profile, parts, generated=generated)
    last = {name: value for name, value in samples[-1].items() if name != "seconds"}
    return {
        "title": scenario.title,
        "questions": questions_of(scenario, profile),
        "seconds": seconds,
        "original": original,
        "ideal": ideal,
        "speedup": original / seconds["median"],
        "of_ideal": seconds["median"] / ideal if ideal else None,
        "split": split_of(scenario, profile, parts, seconds["median"]),
        **last,
    }
