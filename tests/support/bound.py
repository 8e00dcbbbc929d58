"""Calls and their recipes, to compare them without running anything."""

from pathlib import Path
from typing import Any

from cachedeval.engine.digest_cache import ProcessDigestCache
from cachedeval.engine.node import Call, recipe_of
from cachedeval.engine.resource import Resource
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Decoded, Generation, Rendered, decode, render, text
from cachedeval.evals.judging.judge import Judge, JudgeBinder
from cachedeval.evals.judging.judges import NamedJudge, open_judge

__all__ = ["answer_to", "asked", "bench_of", "judge_of", "recipe"]


def asked(content: str, reference: str | None = None, **rubric: Any) -> Question:
    """Return a question of one message."""
    return Question(content, content, ({"role": "user", "content": content},), reference, rubric)


def answer_to(question: Question, model: str = "base", adapter: str | None = None) -> Call[Any]:
    """Return the call that answers it."""
    tokenizer: Resource[Any] = Resource("tokenizer", model, object)
    prompt = render(tokenizer=tokenizer, messages=question.messages)
    decoded = decode(
        model=Resource("model", model, object),
        adapter=None if adapter is None else Resource("adapter", adapter, Path),
        prompt=prompt,
        max_tokens=8,
    )
    return text(tokenizer=tokenizer, prompt=prompt, decoded=decoded)


def judge_of(name: NamedJudge = "cerebras:m", **options: Any) -> Judge:
    """Return a judge; local models are known by their folders' names."""
    return open_judge(
        name,
        local_model=lambda path, _: Resource("model", Path(path).name, object),
        **options,
    )


def bench_of(judge: Judge) -> JudgeBinder:
    return judge.prepare(ProcessDigestCache())


def recipe(call: Call[Any], said: str = "the answer") -> bytes:
    """Return a call's recipe, were every answer this text, and every reply made of its recipe."""

    def digest(upstream: Call[Any]) -> str:
        outputs = {render: Rendered(b"", ()), decode: Decoded(b"", "stop"), text: Generation(said)}
        known = outputs.get(upstream.node)
        return recipe(upstream, said).hex() if known is None else repr(known)

    return recipe_of(call, digest)
