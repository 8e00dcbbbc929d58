"""The evaluator: from a model, adapters and questions to reports, through the engine."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from cachedeval.engine.backend import Backend
from cachedeval.engine.digest_cache import DigestCache, ProcessDigestCache, StoreDigestCache
from cachedeval.engine.engine import Engine
from cachedeval.engine.errors import InputError, MissingError
from cachedeval.engine.node import Call
from cachedeval.engine.result import Outcome
from cachedeval.evals.adapters import adapter_resource, model_of
from cachedeval.evals.answering import AnswerSettings
from cachedeval.evals.data import OnBadLine, Question, first_of_each, read_data
from cachedeval.evals.judging.judges import NamedJudge, open_judges
from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.rubric_judges import RemoteJudge
from cachedeval.evals.models import ModelResource, model_resource
from cachedeval.evals.report import Comparison, Report, build_report, compare
from cachedeval.evals.run_stats import OnProgress, Progress, RunStats
from cachedeval.evals.sample import Sampling, draw
from cachedeval.evals.steps import step_of
from cachedeval.evals.targets import EvalTarget, item_result, notes_of

if TYPE_CHECKING:
    from cachedeval.engine.explain import Explanation
    from cachedeval.engine.plan import Plan
    from cachedeval.engine.result import CacheMode
    from cachedeval.evals.judging.judge import Judge

__all__ = ["BASE", "DEFAULT_JUDGE", "AdapterEvaluator", "OptimizedAdapterEvaluator"]

BASE = "base"
"""The base model without an adapter, wherever an adapter can be named."""

DEFAULT_JUDGE = "cerebras:gpt-oss-120b"
"""The judge where none is given, neither as an argument nor in CACHEDEVAL_JUDGE."""

_NAMED = 5
"""How many bad lines of the data a note names."""

OnFailure = Literal["exclude", "zero", "raise"]

T = TypeVar("T")


class AdapterEvaluator:
    """Scores a model and its adapters on questions, and computes only what is not in the cache.

    Args:
        model: folder of the base model, or its name on the hub. Without it the environment's
            CACHEDEVAL_MODEL, else the model that the adapter says it was trained on.
        judge: `cerebras:MODEL`, `openai:MODEL`, `mlx:PATH`, a scorer such as `f1` or `numeric`,
            `FILE.py:FUNCTION`, or a function that scores; a list of these for several judges. Without
            it the environment's CACHEDEVAL_JUDGE, else `DEFAULT_JUDGE`.
        cache: URL of the cache, or an open backend.
        evaluation_seed: of the sample, and of the sampling above temperature 0.
        primary: which of several judges gives the report its score; the first if not given.
        criteria: name of a built-in rubric, or path of a TOML file.
        per_criterion: ask the judge for each criterion separately, so that after editing one criterion
            only that one is judged again.
        repeats: number of verdicts for each question; the score is their mean.
        max_tokens: the most tokens of an answer.
        temperature: of the answers; 0 is greedy.
        top_p: of the answers, above temperature 0.
        top_k: likewise; 0 is no limit.
        min_p: likewise, relative to the most probable token; 0 is no limit.
        repetition_penalty: of the answers; 1 is none.
        stop: texts that end an answer, and are no part of it.
        system_prompt: the system message of every chat, in place of its own.
        chat_template_args: arguments of the chat template, as `{"enable_thinking": False}`.
        reasoning_markers: the texts before and after a thought; None for the chat template's own, two
            empty ones to separate nothing.
        on_bad_line: a line of the data that cannot be used is an `error`, or is left out (`skip`).
        dedupe: whether a question that is repeated in the data counts once.
        sampling: `nested`, or `shuffle` to repeat old scores.
        batch_size: how many answers are decoded together; by memory if not given.
        memory_budget: bytes for models and batches; None is no limit.
        on_failure: a failed question is left out of the mean (`exclude`), counts 0 (`zero`), or
            ends the evaluation with its error (`raise`).
        limits: TOML file with the judge's options, limits and prices.
        judge_temperature: of the judge's replies: a number, or `default`, which sends none. Without
            it 0 is sent, unless the service refuses it.
        judge_max_tokens: the most tokens of a judge's reply, reasoning included; 2,048 if not given.
        judge_reasoning_effort: sent to the judge's service, such as `low`.
        judge_extra: further fields of the judge's requests.
        judge_id: stands for the URL of the judge's server, so that two servers are one judge.
        fetch: download the model if it is not on this machine.
        mode: how the cache is used: `use`, `refresh`, `off`, `offline`.

    Raises:
        InputError: an argument cannot be used; the message says which and why.

    Example:
        >>> with AdapterEvaluator("path/to/model", "f1") as evaluator:  # doctest: +SKIP
        ...     report = evaluator.evaluate_adapter("my-adapter", "qa.jsonl")
        ...     report.score, report.failed, report.items[0].response
        ...     evaluator.compare("base", "my-adapter", training_data_path="qa.jsonl").verdict
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        judge: NamedJudge | Sequence[NamedJudge] | None = None,
        cache: str | Backend = "disk:./eval_cache",
        evaluation_seed: int = 42,
        *,
        primary: str | None = None,
        criteria: str = "default",
        per_criterion: bool = False,
        repeats: int = 1,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        system_prompt: str | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        reasoning_markers: Sequence[str] | None = None,
        on_bad_line: OnBadLine = "error",
        dedupe: bool = False,
        sampling: Sampling = "nested",
        batch_size: int | None = None,
        memory_budget: int | None = None,
        on_failure: OnFailure = "exclude",
        limits: str | None = None,
        judge_temperature: float | Literal["default"] | None = None,
        judge_max_tokens: int | None = None,
        judge_reasoning_effort: str | None = None,
        judge_extra: Mapping[str, Any] | None = None,
        judge_id: str | None = None,
        fetch: bool = False,
        mode: "CacheMode" = "use",
    ) -> None:
        self._settings = AnswerSettings(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=stop,
            system_prompt=system_prompt,
            chat_template_args=chat_template_args,
            reasoning_markers=reasoning_markers,
            seed=evaluation_seed,
        )
        self._on_bad_line: OnBadLine = on_bad_line
        self._dedupe = dedupe
        _check("repeats", repeats, repeats >= 1, "1 or more")
        _check("batch_size", batch_size, batch_size is None or batch_size >= 1, "1 or more")
        self.seed = evaluation_seed
        self.on_failure = on_failure
        given = os.fspath(model) if model is not None else os.environ.get("CACHEDEVAL_MODEL")
        self._model = given or None
        self._sampling: Sampling = sampling
        self._batch_size = batch_size
        self._memory_budget = memory_budget
        self._fetch = fetch
        self._models: dict[str, ModelResource] = {}
        given_judges = (
            [judge] if isinstance(judge, str) or not isinstance(judge, Sequence) else judge
        )
        names = [name for name in given_judges if name]
        default = os.environ.get("CACHEDEVAL_JUDGE") or DEFAULT_JUDGE
        # Everything is checked before the cache is opened: bad input leaves no folder behind.
        self._judges: list[Judge] = open_judges(
            names or [default],
            primary=primary,
            criteria=criteria,
            per_criterion=per_criterion,
            repeats=repeats,
            limits=limits,
            options=JudgeOptions(
                temperature=judge_temperature,
                max_completion_tokens=judge_max_tokens,
                reasoning_effort=judge_reasoning_effort,
                extra=dict(judge_extra or {}),
                judge_id=judge_id,
            ),
            local_model=self._local_model,
        )
        self.engine = Engine(cache, mode=mode, memory_budget=memory_budget)

    @property
    def judge_name(self) -> str:
        """The name of the first judge in reports."""
        return self._judges[0].name

    @property
    def paid_judge(self) -> str:
        """The name of the judge whose tokens have a price; "" where that is none, or several."""
        paid = [judge.name for judge in self._judges if judge.prices]
        return paid[0] if len(paid) == 1 else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def evaluate_adapter(
        self,
        adapter_name: str | os.PathLike[str] | None = None,
        training_data_path: str | os.PathLike[str] | None = None,
        num_questions: int = 20,
        use_base_model: bool = False,  # noqa: FBT001, FBT002  the original's signature
        use_cache: bool = True,  # noqa: FBT001, FBT002
        *,
        on_progress: OnProgress | None = None,
    ) -> Report:
        """Score one adapter, or the base model.

        Args:
            adapter_name: folder of the adapter, its name in `./adapters/`, or `base`.
            training_data_path: JSON Lines file with the questions.
            num_questions: how many questions are drawn; all if there are fewer.
            use_base_model: score the base model without the adapter.
            use_cache: False neither reads nor writes the cache.
            on_progress: called with a step's name, how many of its calls are done, and how many
                there are.

        Raises:
            InputError: the model, an adapter or the questions cannot be found or read.
            ServiceError: the judge cannot be used at all (a wrong key); or, with `on_failure="raise"`,
                a question failed.
        """
        return self.evaluate_adapters(
            [None if use_base_model else adapter_name],
            training_data_path,
            num_questions,
            use_cache=use_cache,
            model_from=adapter_name,
            on_progress=on_progress,
        )[0]

    async def aevaluate_adapter(self, *args: Any, **kwargs: Any) -> Report:
        """Do the same as `evaluate_adapter`, awaited."""
        return await _in_thread(self.evaluate_adapter, *args, **kwargs)

    def evaluate_adapters(
        self,
        adapters: Sequence[str | os.PathLike[str] | None],
        training_data_path: str | os.PathLike[str] | None,
        num_questions: int = 20,
        *,
        use_cache: bool = True,
        model_from: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Report]:
        """Score several adapters in one run: one load of the base model, one report each.

        Args:
            adapters: folders or names; `base` or None is the base model without an adapter.
            training_data_path: JSON Lines file with the questions.
            num_questions: how many questions are drawn.
            use_cache: False neither reads nor writes the cache.
            model_from: the adapter whose settings name the model, where nothing else does.
            on_progress: as in `evaluate_adapter`.

        Raises:
            InputError: the model, an adapter or the questions cannot be found or read.
            ServiceError: as in `evaluate_adapter`.
        """
        mode: CacheMode = self.engine.mode if use_cache else "off"
        stats = RunStats(self._models.values(), self._judges)
        targets = self.targets(adapters, training_data_path, num_questions, model_from, mode)
        calls = [call for target in targets for call in target.calls()]
        self._check_access(calls, mode)
        if on_progress is not None:
            stats.on_outcome = Progress(calls, on_progress)
        settled = self.engine.settle(calls, mode=mode, on_outcome=stats)
        outcomes = dict(zip(calls, settled, strict=True))
        self._raise_what_ends_it(settled)
        unusable = [error for target in targets if (error := target.unusable(outcomes))]
        if unusable and len(unusable) == len(targets):
            raise unusable[0]
        if mode in {"use", "refresh"}:
            # Replies that no parser can read are requested again next time.
            self.engine.forget(
                [call for judge in self._judges for call in judge.unreadable(settled)]
            )
        run = stats.as_dict()
        remote = [judge for judge in self._judges if isinstance(judge, RemoteJudge)]
        notes = notes_of(targets, outcomes)
        return [
            build_report(
                [item_result(sample, outcomes, self._judges) for sample in target.samples],
                failures_count_zero=self.on_failure == "zero",
                run=run,
                model=target.model_name,
                adapter=target.adapter_name,
                judge=self._judges[0].name,
                judge_parameters={judge.name: judge.parameters for judge in remote},
                judge_refused={judge.name: judge.refused for judge in remote if judge.refused},
                rubric=self._judges[0].rubric_name,
                rubrics={judge.name: judge.rubric_name for judge in self._judges},
                seed=self.seed,
                notes=noted,
            )
            for target, noted in zip(targets, notes, strict=True)
        ]

    async def aevaluate_adapters(self, *args: Any, **kwargs: Any) -> list[Report]:
        """Do the same as `evaluate_adapters`, awaited."""
        return await _in_thread(self.evaluate_adapters, *args, **kwargs)

    def compare(
        self,
        a: str | os.PathLike[str] | None,
        b: str | os.PathLike[str] | None,
        *,
        training_data_path: str | os.PathLike[str] | None,
        num_questions: int = 20,
        on_progress: OnProgress | None = None,
    ) -> Comparison:
        """Evaluate two adapters in one run, and compare them question by question.

        Args:
            a: folder or name of an adapter; `base` or None is the base model without one.
            b: likewise.
            training_data_path: JSON Lines file with the questions.
            num_questions: how many questions are drawn.
            on_progress: as in `evaluate_adapter`.

        Raises:
            InputError: the model, an adapter or the questions cannot be found or read, or no
                question has a score for both.
            ServiceError: as in `evaluate_adapter`.
        """
        one, other = self.evaluate_adapters(
            [a, b], training_data_path, num_questions, on_progress=on_progress
        )
        return compare(one, other)

    async def acompare(self, *args: Any, **kwargs: Any) -> Comparison:
        """Do the same as `compare`, awaited."""
        return await _in_thread(self.compare, *args, **kwargs)

    def plan(
        self,
        adapters: Sequence[str | os.PathLike[str] | None],
        training_data_path: str | os.PathLike[str] | None,
        num_questions: int = 20,
    ) -> "Plan":
        """Return what an evaluation would compute, with an estimate of its cost; loads no model."""
        targets = self.targets(adapters, training_data_path, num_questions)
        return self.engine.plan([call for target in targets for call in target.scoring()])

    def explain(
        self,
        adapters: Sequence[str | os.PathLike[str] | None],
        training_data_path: str | os.PathLike[str] | None,
        num_questions: int = 20,
    ) -> "list[Explanation]":
        """Return for each step that is not in the cache why it is not."""
        targets = self.targets(adapters, training_data_path, num_questions)
        calls = [call for target in targets for call in target.scoring()]
        return [why for why in self.engine.explain_many(calls) if why.state != "hit"]

    def cleanup_models(self) -> None:
        """Close the models that are loaded, and release their memory."""
        self.engine.cleanup()

    def close(self) -> None:
        """Close the models and the cache; closing twice is harmless."""
        self.engine.close()

    def targets(
        self,
        adapters: Sequence[str | os.PathLike[str] | None],
        data: str | os.PathLike[str] | None,
        num_questions: int = 20,
        model_from: str | os.PathLike[str] | None = None,
        mode: "CacheMode" = "use",
    ) -> list[EvalTarget]:
        """Return the calls of every question of every adapter; nothing runs or loads.

        Args:
            adapters: folders or names; `base` or None is the base model without an adapter.
            data: JSON Lines file with the questions.
            num_questions: how many questions are drawn.
            model_from: the adapter whose settings name the model, where nothing else does.
            mode: with `off`, digests of files are not stored.

        Raises:
            InputError: the model, an adapter or the questions cannot be found or read.
        """
        if data is None:
            raise InputError("training_data_path: give the JSON Lines file with the questions")
        questions, notes = self._sample(data, num_questions)
        for judge in self._judges:
            judge.check_questions(questions)
        known_digests: DigestCache = (
            ProcessDigestCache() if mode == "off" else StoreDigestCache(self.engine.store)
        )
        adapters = [None if name == BASE else name for name in adapters]
        first = next((name for name in (*adapters, model_from) if name not in (None, BASE)), None)
        path = model_of(self._model, first, fetch=self._fetch)
        model = self._local_model(path, known_digests)
        judge_binders = [judge.prepare(known_digests) for judge in self._judges]
        prompts = [self._settings.prompt(question, model.tokenizer) for question in questions]
        return [
            EvalTarget.bind(
                questions,
                prompts,
                model=model,
                model_name=path.name if self._model is None else Path(self._model).name,
                adapter=None if name is None else adapter_resource(name, known_digests),
                adapter_name=None if name is None else Path(name).name,
                settings=self._settings,
                judge_binders=judge_binders,
                notes=notes,
            )
            for name in adapters
        ]

    def _sample(
        self, data: str | os.PathLike[str], num_questions: int
    ) -> tuple[list[Question], list[str]]:
        """Return the questions of an evaluation, and what is to be known of them."""
        found, bad = read_data(data, on_bad_line=self._on_bad_line)
        if self._dedupe:
            found = first_of_each(found)
        questions = draw(found, num_questions, self.seed, self._sampling)
        notes = []
        if bad:
            named = "; ".join(f"line {line}" for line in bad[:_NAMED])
            more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            what = "1 line" if len(bad) == 1 else f"{len(bad)} lines"
            notes.append(f"{what} of the data could not be used and left out: {named}{more}")
        repeated = len(questions) - len(first_of_each(questions))
        if repeated:
            notes.append(
                f"{repeated} of the {len(questions)} questions repeat another and count again; "
                "--dedupe counts each once"
            )
        return questions, notes

    def _local_model(self, path: Path, known_digests: DigestCache) -> ModelResource:
        """Return the resource of a model folder, the same one for the same content."""
        found = model_resource(
            path,
            known_digests,
            batch_size=self._batch_size,
            memory_budget=self._memory_budget,
            store=None if isinstance(known_digests, ProcessDigestCache) else self.engine.store,
        )
        return self._models.setdefault(found.identified.digest, found)

    def _check_access(self, calls: Sequence[Call[Any]], mode: "CacheMode") -> None:
        """Check that the judge can be used before the model is loaded, not after.

        A run of hits calls no judge, and needs no key; nor does one that computes nothing.
        """
        if mode == "offline":
            return
        try:
            for judge in self._judges:
                judge.check_access()
        except InputError:
            plan = {} if mode in {"off", "refresh"} else self.engine.plan(calls)
            if not plan or any(node.computed + node.unknown for node in plan.values()):
                raise

    def _raise_what_ends_it(self, outcomes: Sequence[Outcome]) -> None:
        missing = [o for o in outcomes if isinstance(o.error, MissingError)]
        if missing:
            counts: dict[str, int] = {}
            # A step has several nodes, each with a call a question.
            for name, count in Counter(outcome.call.node.name for outcome in missing).items():
                counts[step_of(name)] = max(count, counts.get(step_of(name), 0))
            what = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise InputError(
                f"offline: the cache lacks {what}; run once without --offline, or `cachedeval "
                "explain` to see why they are missing"
            )
        if self.on_failure == "raise":
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error


OptimizedAdapterEvaluator = AdapterEvaluator
"""`AdapterEvaluator` under its old name."""


async def _in_thread(method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    import asyncio  # takes longer to import than a run of hits has time

    return await asyncio.to_thread(method, *args, **kwargs)


def _check(name: str, value: object, good: bool, needed: str) -> None:  # noqa: FBT001
    if not good:
        raise InputError(f"{name} is {value}; it must be {needed}")
