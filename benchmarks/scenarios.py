"""The scenarios: what a user does after a first evaluation, each timed as a whole command.

Beside each stand the old script, scaled from the questions that it ran, and the lower bound. The
old script's seconds are taken apart and put together anew, one saving after the other:

    original     n processes, each importing, loading and generating alone; n judge calls in turn
    - loads        one import and one load instead of n
    - batching     the n answers decoded together
    - concurrency  one judge latency instead of n
    - cache        what is really left, against what those three would leave

Each step's factor is the seconds before it over the seconds after it, so the factors multiply to
the speed-up. The last one contains our own overhead too, and is below 1 where nothing is cached.

`python -m benchmarks.scenarios ARGUMENTS_OF_RUN` evaluates twice in one process.
"""

import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from benchmarks.judge import JudgeProcess
from benchmarks.measure import REPOSITORY, Ran, Rounds, command, environment, summary
from benchmarks.workplace import Profile, Workplace

__all__ = [
    "SCENARIOS",
    "Parts",
    "Scenario",
    "Scenarios",
    "bound_of",
    "factors_of",
    "measure_profile",
    "original_of",
    "questions_of",
]

_SCRIPT = ("cold", "warm", "criterion")
"""The scenarios that the peer script goes through, too."""

_NEW_PARSER = (
    "import sys; from cachedeval.evals.judging.nodes import judge_parse; "
    "judge_parse.version = 'benchmark'; from cachedeval.cli.main import main; main(sys.argv[1:])"
)


@dataclass(frozen=True)
class Scenario:
    """One thing that a user does.

    Attributes:
        name: as results and targets call it.
        title: as tables call it.
        decodes: the sets of questions that must be answered, by name and how often.
        judged: whether the judge must be asked.
        start: the cache it starts from: `empty`, `cold` (after a first evaluation) or `killed`.
        options: arguments of `Workplace.run`.
        sizes: what the original would run: `questions`, `more`, `sweep`, `added`.
        change: what is changed on disk for as long as it runs.
    """

    name: str
    title: str
    decodes: dict[str, int] = field(default_factory=dict)
    judged: bool = True
    start: str = "cold"
    options: Callable[[Workplace], dict[str, Any]] = lambda _: {}
    sizes: str = "questions"
    change: Callable[[Workplace], AbstractContextManager[Any]] = lambda _: nullcontext()


SCENARIOS = (
    Scenario("cold", "cold", {"cold": 1}, start="empty"),
    Scenario("warm", "warm, new process", judged=False),
    Scenario("same-process", "warm, same process", judged=False),
    Scenario(
        "criterion", "a criterion changed", options=lambda w: {"further": ["--criteria", w.rubric]}
    ),
    Scenario("parser", "the parser changed", judged=False),
    Scenario(
        "added",
        "one question added",
        {"one": 1},
        options=lambda w: {"data": w.added, "count": w.profile.questions + 1},
        sizes="added",
    ),
    Scenario("edited", "one question edited", {"one": 1}, options=lambda w: {"data": w.edited}),
    Scenario(
        "more",
        "a larger sample",
        {"more": 1},
        options=lambda w: {"count": w.profile.more},
        sizes="more",
    ),
    Scenario("seed", "another seed", {"seed": 1}, options=lambda _: {"further": ["--seed", "7"]}),
    Scenario(
        "retrained",
        "retrained, other answers",
        {"cold": 1},
        change=lambda w: w.retrained("adapter-1"),
    ),
    Scenario(
        "same-answers",
        "retrained, same answers",
        {"cold": 1},
        judged=False,
        change=lambda w: w.retrained("same-answers"),
    ),
    Scenario(
        "sweep",
        "sweep of adapters",
        {"cold": 0},
        start="empty",
        options=lambda w: {"adapters": w.profile.adapters},
        sizes="sweep",
    ),
    Scenario("resumed", "resumed after a kill at half", {"half": 1}, start="killed"),
    Scenario("swapped", "the backend swapped", {"cold": 1}),
)


class Scenarios:
    """Runs scenarios in a workplace.

    Args:
        workplace: models, adapters and questions.
        judge: a running judge.
    """

    def __init__(self, workplace: Workplace, judge: JudgeProcess) -> None:
        self.workplace = workplace
        self.judge = judge
        self._states = workplace.root / "states"

    def prepare(self) -> None:
        """Make the caches that scenarios start from."""
        run, half = self.workplace.run, self.workplace.profile.questions // 2
        # A user's files are older than the grain of the clock.
        time.sleep(2)
        command(run(f"disk:{self._states / 'cold'}"), env=self.judge.env)
        command(run(f"disk:{self._states / 'cold'}"), env=self.judge.env)
        command(self.workplace.script(self._states / "script"), env=self.judge.env)
        # Half of the answers are decoded and judged first; it is killed amid the other half.
        limits = self.workplace.root / "limits.toml"
        limits.write_text(f"[limits]\nmax_concurrency = {half}\n", encoding="utf-8")
        slowly = ("--batch-size", str(half), "--limits", limits)
        answered = self.judge.answered()
        killed = subprocess.Popen(
            [str(word) for word in run(f"disk:{self._states / 'killed'}", *slowly)],
            env=environment(self.judge.env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
        while killed.poll() is None and self.judge.answered() - answered < half:
            time.sleep(0.02)
        time.sleep(0.1)
        killed.send_signal(signal.SIGKILL)
        killed.wait()

    def script(self, state: str) -> float:
        """Run the peer script once, and return its seconds.

        Args:
            state: `cold`, `warm`, or `criterion`: warm with another criterion.
        """
        work, held = self.workplace, self._states / "script"
        folder = work.root / "caches" / "script"
        shutil.rmtree(folder, ignore_errors=True)
        if state != "cold":
            shutil.copytree(held, folder)
        further = ["accuracy, brevity"] if state == "criterion" else []
        ran = command(work.script(folder, *further), env=self.judge.env)
        printed = json.loads(ran.out)
        expected = work.profile.questions if state == "cold" else 0
        if printed["generated"] != expected:
            raise RuntimeError(f"the peer script generated {printed} in the state {state}")
        return ran.seconds

    def sample(self, scenario: Scenario) -> dict[str, Any]:
        """Run a scenario once, and return what it took and did."""
        work = self.workplace
        folder = work.root / "caches" / scenario.name
        shutil.rmtree(folder, ignore_errors=True)
        if scenario.start != "empty":
            shutil.copytree(self._states / scenario.start, folder)
        options = {"further": [], **scenario.options(work)}
        further = options.pop("further")
        url = "memory:" if scenario.name == "swapped" else f"disk:{folder}"
        words = work.run(url, *further, **options)
        if scenario.name == "parser":
            words = [sys.executable, "-c", _NEW_PARSER, *words[1:]]
        if scenario.name == "same-process":
            words = [sys.executable, "-m", "benchmarks.scenarios", *words[2:]]
        asked = self.judge.calls()
        with scenario.change(work):
            ran = command(words, env=self.judge.env)
        shutil.rmtree(folder, ignore_errors=True)
        return _figures(ran, self.judge.calls() - asked)


def _figures(ran: Ran, asked: int) -> dict[str, Any]:
    printed = json.loads(ran.out)
    reports = printed.get("reports") or [printed["report"]]
    nodes = printed["run"]["nodes"]
    return {
        "seconds": printed.get("seconds", ran.seconds),
        "peak_mb": ran.peak_mb,
        "loads": printed["run"]["loads"],
        "generated": nodes["generation"]["computed"],
        "judged": nodes["judge"]["computed"],
        "asked": asked,
        "failed": sum(report["failed"] for report in reports),
        "score": reports[0]["score"],
    }


class Parts(NamedTuple):
    """Medians of what was measured, in seconds."""

    generating: float
    """The original: one question's process."""
    judging: float
    """The original: one call to the judge."""
    rest: float
    """The original: everything else, once."""
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


def bound_of(scenario: Scenario, profile: Profile, parts: Parts, *, generated: int) -> float | None:
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


def factors_of(
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


def measure_profile(
    workplace: Workplace, only: Collection[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a profile's scenarios.

    Args:
        workplace: what to measure with.
        only: names of scenarios; all if empty.
        say: called with what begins.

    Returns:
        What results hold of a profile: `about`, `original`, `lower_bound`, `script`, and
        `scenarios` by name.
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
            "lower bound": lambda: _lower_bound(workplace),
        }
        for scenario in chosen:
            things[scenario.name] = partial(scenarios.sample, scenario)
            if scenario.name in _SCRIPT:
                things[f"script, {scenario.name}"] = partial(scenarios.script, scenario.name)
        # All speed-ups rest on the original: so it gets more of the time.
        ample = {"original": 3 * profile.budget_s}
        taken = Rounds(profile.wanted, profile.budget_s, say, ample).take(things)
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
        "lower_bound": {
            name: summary([run[name] for run in taken["lower bound"]])
            for name in taken["lower bound"][0]
        },
        "script": {
            s.name: _beside(taken[s.name], taken[f"script, {s.name}"])
            for s in chosen
            if s.name in _SCRIPT
        },
        "scenarios": {s.name: _result(s, profile, parts, taken[s.name]) for s in chosen},
    }


def _beside(ours: list[dict[str, Any]], script: list[float]) -> dict[str, Any]:
    """Return the script's seconds, and ours as a multiple of them."""
    ratios = [one["seconds"] / other for one, other in zip(ours, script, strict=False)]
    return {"seconds": summary(script), "ours": summary(ratios)}


def _original(workplace: Workplace, judge: JudgeProcess) -> dict[str, Any]:
    profile = workplace.profile
    sizes = (str(profile.questions), str(profile.part), str(profile.max_tokens))
    ran = command(
        [
            *(sys.executable, "-m", "benchmarks.peers.original"),
            *(workplace.model, workplace.adapter, workplace.all),
            *sizes,
        ],
        env=judge.env,
    )
    printed: dict[str, Any] = json.loads(ran.out)
    return printed


def _lower_bound(workplace: Workplace) -> dict[str, float]:
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
            *(
                sys.executable,
                "-m",
                "benchmarks.peers.lower_bound",
                "evaluation",
                workplace.model,
                workplace.adapter,
            ),
            *(str(workplace.profile.max_tokens), sets),
        ]
    )
    printed: dict[str, float] = json.loads(ran.out.splitlines()[-1])
    return printed


def _parts(profile: Profile, taken: dict[str, list[Any]]) -> Parts:
    def of(run: str, name: str) -> float:
        return float(statistics.median(sample[name] for sample in taken[run]))

    originals = taken["original"]
    return Parts(
        generating=statistics.median(s for run in originals for s in run["generating"]),
        judging=statistics.median(s for run in originals for s in run["judging"]),
        rest=of("original", "rest"),
        start=statistics.median(taken["start"]),
        imports=of("lower bound", "import"),
        sdk=of("lower bound", "sdk"),
        load=of("lower bound", "load"),
        latency=profile.latency,
        decode={
            name.removeprefix("decode "): of("lower bound", name)
            for name in taken["lower bound"][0]
            if name.startswith("decode ")
        },
    )


def _result(
    scenario: Scenario, profile: Profile, parts: Parts, samples: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = summary([sample["seconds"] for sample in samples])
    original = original_of(scenario, profile, parts)
    generated = samples[-1]["generated"]
    bound = bound_of(scenario, profile, parts, generated=generated)
    last = {name: value for name, value in samples[-1].items() if name != "seconds"}
    return {
        "title": scenario.title,
        "questions": questions_of(scenario, profile),
        "seconds": seconds,
        "original": original,
        "original_with_answers": parts.start
        + parts.rest
        + questions_of(scenario, profile) * parts.judging,
        "lower_bound": bound,
        "speedup": original / seconds["median"],
        "of_bound": seconds["median"] / bound if bound else None,
        "factors": factors_of(scenario, profile, parts, seconds["median"]),
        **last,
    }


def _evaluate_twice() -> None:
    """Evaluate twice in this process with the options of `run`; print the second time as JSON."""
    from cachedeval import AdapterEvaluator  # noqa: PLC0415  not where the scenarios are imported

    given = sys.argv[1:]
    value = dict(itertools.pairwise(given))
    with AdapterEvaluator(
        model=value["--model"],
        judge=value["--judge"],
        cache=value["--cache"],
        max_tokens=int(value["--max-tokens"]),
    ) as evaluator:

        def evaluate() -> Any:
            return evaluator.evaluate_adapter(
                value["--adapter"], value["--data"], int(value["--num-questions"])
            )

        evaluate()
        begun = time.perf_counter()
        report = evaluate()
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "report": report.to_dict(), "run": report.run}))


if __name__ == "__main__":
    _evaluate_twice()
