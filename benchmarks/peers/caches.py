"""One cache in a process of its own: the pipeline of 2 n + 1 steps, or single hits and misses.

    python -m benchmarks.peers.caches NAME pipeline FOLDER QUESTIONS
    python -m benchmarks.peers.caches NAME point FOLDER

The peers live in an environment of their own, so each is imported only where it is opened.
`diskcache, bytes` is the least that a hit on disk can do: the same key, then diskcache's `get` and
`set` of the same record as bytes, with nothing verified.
"""
# ruff: noqa: PLC0415

import contextlib
import io
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import steps as plain
from benchmarks.peers.steps import Steps, generation, judge, mean, question_of

__all__ = ["CACHES", "PEERS", "main"]

_POINTS = 200
_SLOW_S = 3.0

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _all(cache: Decorator) -> Steps:
    return Steps(cache(generation), cache(judge), cache(mean))


def _engine(url: Callable[[Path], str]) -> Callable[[Path], Steps]:
    def open_cache(folder: Path) -> Steps:
        from benchmarks import pipeline
        from cachedeval import Engine

        engine = Engine(cache=url(folder))

        def run(questions: int) -> float:
            result = pipeline.run_on(engine, questions)
            engine.close()
            return result

        return Steps(
            lambda model, question, limit: engine.run(
                pipeline.generation(model, question, max_tokens=limit)
            ),
            lambda model, question, answer: engine.run(pipeline.judge(model, question, answer)),
            run=run,
        )

    return open_cache


def _bytes(folder: Path) -> Steps:
    import diskcache

    from benchmarks import pipeline
    from cachedeval.engine.call import recipe_of
    from cachedeval.engine.recipe import key_of

    cache = diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0)

    def cached(model: str, question: str, limit: int) -> Any:
        call = pipeline.generation(model, question, max_tokens=limit)
        recipe = recipe_of(call, lambda _: "")
        key = key_of(recipe)
        found = cache.get(key)
        if found is None:
            found = generation(model, question, limit).encode()
            cache.set(key, found + recipe)
        return found

    return Steps(cached, judge)


def _memoize(folder: Path) -> Steps:
    """`diskcache.Cache.memoize`, with eviction off, as it must be for results that were paid for."""
    import diskcache

    return _all(diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0).memoize())


def _joblib(folder: Path) -> Steps:
    import joblib

    return _all(joblib.Memory(str(folder), verbose=0).cache)


def _cachier(folder: Path) -> Steps:
    """Cachier's pickle core, with a file for each entry: with one file for all it is quadratic."""
    from cachier import cachier

    return _all(cachier(cache_dir=str(folder), separate_files=True))


def _marimo(folder: Path) -> Steps:
    import marimo

    def cached(function: Callable[..., Any]) -> Callable[..., Any]:
        decorated: Callable[..., Any] = marimo.persistent_cache(save_path=str(folder))(function)
        return decorated

    return _all(cached)


def _dspy(folder: Path) -> Steps:
    """DSPy's request cache, memory over disk, as `dspy.LM` uses it."""
    from dspy.clients.cache import Cache

    cache = Cache(
        enable_disk_cache=True,
        enable_memory_cache=True,
        disk_cache_dir=str(folder),
        disk_size_limit_bytes=2**36,
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def cached(*inputs: Any) -> Any:
            request = {"step": function.__name__, "inputs": list(inputs)}
            found = cache.get(request)
            if found is None:
                found = function(*inputs)
                cache.put(request, found)
            return found

        return cached

    return _all(decorate)


def _inspect(folder: Path) -> Steps:
    """inspect_ai's `cache_fetch` and `cache_store`, as a model call uses them."""
    os.environ["INSPECT_CACHE_DIR"] = str(folder)
    from inspect_ai.model import CachePolicy, ChatMessageUser, GenerateConfig, ModelOutput
    from inspect_ai.model._cache import CacheEntry, cache_fetch, cache_store

    def cached(model: str, prompt: str, compute: Callable[[], str]) -> str:
        entry = CacheEntry(
            base_url=None,
            config=GenerateConfig(max_tokens=150),
            input=[ChatMessageUser(content=prompt)],
            model=model,
            policy=CachePolicy(expiry=None),
            tool_choice=None,
            tools=[],
        )
        output = cache_fetch(entry)
        if output is None:
            output = ModelOutput.from_content(model, compute())
            cache_store(entry, output)
        return str(output.completion)

    return Steps(
        lambda model, question, limit: cached(
            model, question, lambda: generation(model, question, limit)
        ),
        lambda model, question, answer: json.loads(
            cached(
                model,
                question + "\n" + answer,
                lambda: json.dumps(judge(model, question, answer)),
            )
        ),
    )


def _lm_eval(folder: Path) -> Steps:
    """lm-eval's `CachingLM`, which is asked for all generations, then for all judgements."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM, CachingLM

    class Model(LM):
        """Answers, or judges where an answer stands in the request."""

        def generate_until(self, requests: list[Any]) -> list[str]:
            texts = []
            for request in requests:
                name, question, answer = json.loads(request.args[0])
                if answer is None:
                    texts.append(generation(name, question, 150))
                else:
                    texts.append(json.dumps(judge(name, question, answer)))
            return texts

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

    cached = CachingLM(Model(), str(folder / "cache.db"))

    def ask(prompts: list[tuple[str, str, str | None]]) -> list[str]:
        requests = [
            Instance(
                request_type="generate_until",
                doc={},
                arguments=(json.dumps(prompt), {"max_gen_toks": 150}),
                idx=number,
            )
            for number, prompt in enumerate(prompts)
        ]
        texts: list[str] = cached.generate_until(requests)
        return texts

    def run(questions: int) -> float:
        asked = [question_of(number) for number in range(questions)]
        answers = ask([("model", question, None) for question in asked])
        verdicts = ask([("judge", q, answer) for q, answer in zip(asked, answers, strict=True)])
        return mean([json.loads(verdict) for verdict in verdicts])

    return Steps(
        lambda model, question, _: ask([(model, question, None)])[0],
        lambda model, question, answer: json.loads(ask([(model, question, answer)])[0]),
        run=run,
    )


def _redun(folder: Path) -> Steps:
    """Redun's tasks on its SQLite backend."""
    from redun import Scheduler, task
    from redun.config import Config

    logging.disable()
    first, second, average = (
        task(namespace="bench", name=step.__name__, version="1")(step)
        for step in (generation, judge, mean)
    )
    scheduler = Scheduler(config=Config({"backend": {"db_uri": f"sqlite:///{folder}/redun.db"}}))
    scheduler.load()

    def run(questions: int) -> float:
        asked = [question_of(number) for number in range(questions)]
        verdicts = [second("judge", q, first("model", q, 150)) for q in asked]
        result: float = scheduler.run(average(verdicts))
        return result

    return Steps(
        lambda *inputs: scheduler.run(first(*inputs)),
        lambda *inputs: scheduler.run(second(*inputs)),
        run=run,
    )


def _hamilton(folder: Path) -> Steps:
    """Hamilton with its cache: a branch for each question by `Parallelizable` and `Collect`."""
    from hamilton import ad_hoc_utils, driver
    from hamilton.execution.executors import SynchronousLocalTaskExecutor
    from hamilton.htypes import Collect, Parallelizable

    logging.disable()

    def question(questions: int) -> Parallelizable[str]:
        for number in range(questions):
            yield question_of(number)

    def answer(question: str) -> str:
        return generation("model", question, 150)

    def verdict(question: str, answer: str) -> dict:  # type: ignore[type-arg]
        return judge("judge", question, answer)

    def score(verdict: Collect[dict]) -> float:
        return mean(list(verdict))

    def single(asked: str) -> str:
        return generation("model", asked, 150)

    def driver_of(*functions: Any) -> Any:
        module = ad_hoc_utils.create_temporary_module(
            *functions, module_name="pipeline_" + functions[0].__name__
        )
        return (
            driver.Builder()
            .enable_dynamic_execution(allow_experimental_mode=True)
            .with_local_executor(SynchronousLocalTaskExecutor())
            .with_remote_executor(SynchronousLocalTaskExecutor())
            .with_modules(module)
            .with_cache(path=str(folder))
            .build()
        )

    whole, one = driver_of(question, answer, verdict, score), driver_of(single)
    return Steps(
        lambda _model, asked, _limit: one.execute(["single"], inputs={"asked": asked})["single"],
        judge,
        run=lambda n: float(whole.execute(["score"], inputs={"questions": n})["score"]),
    )


PEERS: dict[str, Callable[[Path], Steps]] = {
    "diskcache.memoize": _memoize,
    "joblib.Memory": _joblib,
    "cachier": _cachier,
    "marimo": _marimo,
    "DSPy": _dspy,
    "inspect_ai": _inspect,
    "lm-eval": _lm_eval,
    "redun": _redun,
    "Hamilton": _hamilton,
}
"""What opens each peer in a folder, by name."""

CACHES: dict[str, Callable[[Path], Steps]] = {
    "ours, disk": _engine(lambda folder: f"disk:{folder}"),
    "ours, memory": _engine(lambda _: "memory:"),
    "diskcache, bytes": _bytes,
    **PEERS,
}


def main() -> None:
    """Do what the arguments say, and print JSON as the last line."""
    name, mode, folder, *rest = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        steps = CACHES[name](Path(folder))
        if mode == "pipeline":
            found: dict[str, Any] = {"mean": _pipeline(steps, int(rest[0]))}
            found["seconds"] = time.perf_counter() - begun
            found["computed"] = plain.answers()
        else:
            found = _points(steps)
    print(json.dumps(found))


def _pipeline(steps: Steps, questions: int) -> float:
    if steps.run is not None:
        return steps.run(questions)
    verdicts = []
    for number in range(questions):
        question = question_of(number)
        answer = steps.generation("model", question, 150)
        verdicts.append(steps.judge("judge", question, answer))
    return (steps.mean or mean)(verdicts)


def _points(steps: Steps) -> dict[str, float]:
    """Return the medians of single misses and single hits, in seconds."""
    steps.generation("model", question_of(0), 150)  # opens what is opened at the first use
    misses: list[float] = []
    hits: list[float] = []
    for times in (misses, hits):
        ends = time.perf_counter() + _SLOW_S
        for number in range(1, _POINTS + 1):
            question = question_of(number)
            begun = time.perf_counter()
            steps.generation("model", question, 150)
            times.append(time.perf_counter() - begun)
            if time.perf_counter() > ends:
                break
    # If the misses ran out of time, only what was stored can be hit.
    return {"miss": statistics.median(misses), "hit": statistics.median(hits[: len(misses)])}


if __name__ == "__main__":
    main()
