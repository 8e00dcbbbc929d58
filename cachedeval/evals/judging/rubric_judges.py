"""The judges that score by a rubric: a service over HTTP, and a model on this machine."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from cachedeval.engine.digest_cache import DigestCache
from cachedeval.engine.node import Call, Node
from cachedeval.engine.resource import Resource
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.judge import DECIMALS, JudgeBinder, Score, asked
from cachedeval.evals.judging.nodes import judge_call, judge_parse, local_judge
from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.pricing import Prices, load_prices
from cachedeval.evals.judging.refused import RefusedNote
from cachedeval.evals.judging.rubric import Rubric, rubric_of_levels
from cachedeval.evals.judging.spec import JudgeSpec, api_key_of
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.models import resolve_model
from cachedeval.evals.statistics import spread
from cachedeval.services.spec import identifying_url
from cachedeval.services.usage import ServiceUsage

__all__ = ["LocalJudge", "LocalModelOf", "RemoteJudge"]

_NOT_REPORTED = ("seed", "response_format")
"""Parameters that say nothing to a reader: one differs by repeat, the other stands for a schema."""

LocalModelOf = Callable[[Any, DigestCache], Resource[Any]]


def _rubric_resource(rubric: Rubric) -> Resource[Rubric]:
    """Return a rubric as a judge reads it: its name and its weights are in no prompt."""
    identity = msgspec.to_builtins(rubric)
    del identity["name"]
    for criterion in identity["criteria"]:
        del criterion["weight"]
    return Resource("rubric", identity, lambda: rubric)


def _own_rubric(question: Question) -> Rubric | None:
    """Return the rubric that a question brings along, in BiGGen-JudgeBinder's form, or None."""
    if not question.rubric:
        return None
    nested = question.rubric.get("score_rubric", question.rubric.get("rubric"))
    form = nested if isinstance(nested, dict) else question.rubric
    if not any(name.startswith("score") and name.endswith("_description") for name in form):
        return None
    return rubric_of_levels(form, where=f"question {question.id}")


class _ByRubric:
    """What judges with a rubric share."""

    def __init__(self, name: str, rubric: Rubric, *, per_criterion: bool) -> None:
        self.name = name
        self.rubric_name: str | None = rubric.name
        self.prices: Prices = {}
        self._rubric = rubric
        self._split = per_criterion
        self._usual = self._parts_of(rubric)

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Find nothing: a rubric needs no reference answer."""

    def read(self, verdicts: Sequence[Verdict], question: Question) -> Score:
        """Return the score that a question's verdicts come to."""
        rubric = _own_rubric(question) or self._rubric
        per_round = self._rounds(verdicts, rubric)
        totals = [rubric.total(scores) for scores in per_round]
        overall = spread(totals)
        return Score(
            round(overall.mean, DECIMALS),
            {
                criterion.name: round(
                    spread([scores[criterion.name] for scores in per_round]).mean, DECIMALS
                )
                for criterion in rubric.criteria
            },
            "\n".join(dict.fromkeys(v.rationale for v in verdicts if v.rationale)),
            None if overall.stdev is None else round(overall.stdev, DECIMALS),
        )

    def _parts(self, question: Question) -> list[Resource[Rubric]]:
        """Return what a question is judged by: one rubric, or one a criterion."""
        own = _own_rubric(question)
        return self._usual if own is None else self._parts_of(own)

    def _parts_of(self, rubric: Rubric) -> list[Resource[Rubric]]:
        return [_rubric_resource(part) for part in (rubric.split() if self._split else [rubric])]

    @staticmethod
    def _rounds(verdicts: Sequence[Verdict], rubric: Rubric) -> list[dict[str, float]]:
        """Put the verdicts of single criteria together again, a dict for each repeat."""
        rounds: list[dict[str, float]] = [{}]
        for verdict in verdicts:
            if verdict.scores.keys() & rounds[-1].keys():
                rounds.append({})
            rounds[-1].update(verdict.scores)
        assert all(len(scores) == len(rubric.criteria) for scores in rounds)  # noqa: S101  bound so
        return rounds


class RemoteJudge(_ByRubric):
    """A judge over HTTP."""

    node: Node[Any] = judge_call

    def __init__(
        self,
        spec: JudgeSpec,
        rubric: Rubric,
        *,
        per_criterion: bool,
        repeats: int,
        limits: str | None,
        options: JudgeOptions,
    ) -> None:
        super().__init__(str(spec), rubric, per_criterion=per_criterion)
        self._spec = spec
        self._repeats = repeats
        self._settings: Any = None
        if limits is not None:
            from cachedeval.evals.judging.settings import load_settings  # noqa: PLC0415  slow to import

            self._settings = load_settings(limits)
            options = options.over(self._settings.judge)
        options.check_repeats(repeats)
        self._options = options
        self.prices = load_prices(self._settings and self._settings.prices)
        self.usage = ServiceUsage()
        self._known = RefusedNote(None)
        self._notes: dict[str, RefusedNote] = {}
        """By the judge's identity: a client outlives the run that opened it."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of its requests, as reports state them."""
        found = self._options.parameters(seed=0, refused=self._known.names)
        return {name: value for name, value in found.items() if name not in _NOT_REPORTED}

    @property
    def refused(self) -> list[str]:
        """The parameters that the service refused, and that are not sent."""
        return sorted(self._options.optional & self._known.names)

    def prepare(self, known_digests: DigestCache) -> JudgeBinder:
        """Find and identify what is judged by; see `Judge`."""
        spec, options = self._spec, self._options
        environ = dict(os.environ)  # that of the identity is that of the client
        server = (
            {"base_url": identifying_url(spec.service, environ)}
            if options.judge_id is None
            else {"judge_id": options.judge_id}
        )
        identity = {"provider": spec.provider, "model": spec.model, **server}

        def open_client() -> Any:
            from cachedeval.evals.judging.client import JudgeClient  # noqa: PLC0415  imports the SDK
            from cachedeval.evals.judging.settings import JudgeSettings  # noqa: PLC0415

            return JudgeClient(
                spec,
                self._settings or JudgeSettings(),
                environ,
                optional=options.optional,
                refused=known.names,
                on_refused=known.remember,
                usage=self.usage,
            )

        client = Resource("judge", identity, open_client, close=lambda client: client.close())
        known = self._notes.setdefault(client.identified.digest, RefusedNote(identity))
        known.recall(known_digests)
        self._known = known

        def bind(question: Question, answer: Call[Generation]) -> tuple[Call[Verdict], ...]:
            return tuple(self._calls(client, question, answer))

        return bind

    def check_access(self) -> None:
        """Raise an `InputError` where the key is missing."""
        api_key_of(self._spec, os.environ)

    def unreadable(self, outcomes: Iterable[Outcome]) -> list[Call[Any]]:
        """Return the calls whose stored results no parser can read."""
        return [
            upstream
            for outcome in outcomes
            if outcome.call.node is judge_parse and isinstance(outcome.error, InvalidVerdictError)
            for upstream in outcome.call.upstream
            if upstream.node is judge_call
        ]

    def _calls(
        self, client: Resource[Any], question: Question, answer: Call[Generation]
    ) -> Iterator[Call[Verdict]]:
        parts = self._parts(question)
        item: dict[str, Any] = {
            "question": asked(question),
            "reference": question.reference,
            "response": answer,
        }
        for repeat in range(self._repeats):
            parameters = self._options.parameters(seed=repeat, refused=self._known.names)
            for rubric in parts:
                reply = judge_call(
                    judge=client, rubric=rubric, parameters=parameters, repeat=repeat, **item
                )
                yield judge_parse(reply=reply, rubric=rubric, **item)


class LocalJudge(_ByRubric):
    """A model on this machine, which is read rather than asked."""

    node: Node[Any] = local_judge

    def __init__(
        self, spec: JudgeSpec, rubric: Rubric, local_model: LocalModelOf, *, per_criterion: bool
    ) -> None:
        super().__init__(str(spec), rubric, per_criterion=per_criterion)
        self._spec = spec
        self._local_model = local_model

    def prepare(self, known_digests: DigestCache) -> JudgeBinder:
        """Find and identify what is judged by; see `Judge`."""
        path = resolve_model(self._spec.model)
        self.name = f"mlx:{path.name}"
        judge = self._local_model(path, known_digests)

        def bind(question: Question, answer: Call[Generation]) -> tuple[Call[Verdict], ...]:
            return tuple(
                local_judge(
                    judge=judge,
                    rubric=rubric,
                    question=asked(question),
                    reference=question.reference,
                    response=answer,
                )
                for rubric in self._parts(question)
            )

        return bind

    def unreadable(self, outcomes: Iterable[Outcome]) -> list[Call[Any]]:
        """Return the calls whose stored results no parser can read."""
        del outcomes
        return []

    def check_access(self) -> None:
        """Find nothing: the model's folder was found when it was identified."""
