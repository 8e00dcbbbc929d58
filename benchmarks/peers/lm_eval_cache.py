"""lm-eval's `CachingLM`; the pipeline asks it for all generations, then for all judgements."""

import json
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CachingLM

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main
from benchmarks.workload import question_of


class _Model(LM):
    """Answers, or judges where an answer stands in the request."""

    def generate_until(self, requests: list[Any]) -> list[str]:
        texts = []
        for request in requests:
            name, question, answer = json.loads(request.args[0])
            if answer is None:
                texts.append(plain.generation(name, question, 150))
            else:
                texts.append(json.dumps(plain.judge(name, question, answer)))
        return texts

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any]) -> list[Any]:
        raise NotImplementedError


def open_cache(folder: Path) -> Steps:
    """Put the cache around the model."""
    cached = CachingLM(_Model(), str(folder / "cache.db"))

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
        return plain.mean([json.loads(verdict) for verdict in verdicts])

    return Steps(
        lambda model, question, _: ask([(model, question, None)])[0],
        lambda model, question, answer: json.loads(ask([(model, question, answer)])[0]),
        run=run,
    )


if __name__ == "__main__":
    main(open_cache)
