"""The lower bounds: the work that cannot be avoided, and nothing else.

    python -m benchmarks.peers.lower_bound evaluation MODEL ADAPTER MAX_TOKENS SETS.json

prints the seconds of importing mlx_lm, importing the judge's SDK, loading model and adapter, and
decoding each set of prompts with `mlx_lm.batch_generate`, all of its prompts together.

    python -m benchmarks.peers.lower_bound pipeline FOLDER QUESTIONS
    python -m benchmarks.peers.lower_bound fill FOLDER QUESTIONS

does what any cache on SQLite must do for the warm pipeline: a new process makes the keys of 2 n + 1
steps from their inputs (msgspec and xxh3_128), reads the values in selects of 500, decodes each
with msgspec, and averages the scores. It verifies nothing, and has no graph.
"""
# ruff: noqa: PLC0415

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.steps import answer_of, question_of, verdict_of

__all__: list[str] = []

_CHUNK = 500


def _evaluation(model_path: str, adapter_path: str, max_tokens: str, sets: str) -> dict[str, float]:
    seconds: dict[str, float] = {}
    begun = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        seconds[name] = now - begun
        begun = time.perf_counter()

    from cachedeval.evals.mlx.cpu import open_blas

    open_blas()
    from mlx_lm import load  # after the BLAS, and timed
    from mlx_lm.generate import batch_generate

    lap("import")
    import cerebras.cloud.sdk  # noqa: F401  what is timed

    lap("sdk")
    loaded: Any = load(model_path, adapter_path=adapter_path or None)
    model, tokenizer = loaded[:2]
    lap("load")
    for name, messages in json.loads(Path(sets).read_text("utf-8")).items():
        prompts = [
            tokenizer.apply_chat_template(chat, add_generation_prompt=True) for chat in messages
        ]
        batch_generate(model, tokenizer, prompts, max_tokens=int(max_tokens))
        lap(f"decode {name}")
    return seconds


class _Pipeline:
    """The steps' values in a table of SQLite.

    Args:
        folder: where the database lies.
    """

    def __init__(self, folder: Path) -> None:
        import sqlite3

        import msgspec
        import xxhash

        folder.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / "values.db")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode
        self._digest = xxhash.xxh3_128_digest

    def _key(self, *inputs: object) -> bytes:
        return self._digest(self._encode(inputs))

    def fill(self, questions: int) -> None:
        """Write the values of a pipeline."""
        rows, scores = [], []
        for number in range(questions):
            question = question_of(number)
            answer = answer_of(question)
            verdict = verdict_of(question, answer)
            scores.append(verdict["score"])
            rows.append((self._key("generation", "model", question, 150), self._encode(answer)))
            rows.append((self._key("judge", "judge", question, answer), self._encode(verdict)))
        rows.append((self._key("mean", scores), self._encode(sum(scores) / questions)))
        with self._connection as connection:
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute("CREATE TABLE held (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
            connection.executemany("INSERT INTO held VALUES (?, ?)", rows)

    def read(self, questions: int) -> float:
        """Return the mean score from what is held."""
        asked = [question_of(number) for number in range(questions)]
        keys = [self._key("generation", "model", question, 150) for question in asked]
        answers = self._select(keys)
        keys = [
            self._key("judge", "judge", question, answers[key])
            for question, key in zip(asked, keys, strict=True)
        ]
        verdicts = self._select(keys)
        key = self._key("mean", [verdicts[key]["score"] for key in keys])
        return float(self._select([key])[key])

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _select(self, keys: list[bytes]) -> dict[bytes, Any]:
        values = {}
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            select = f"SELECT key, value FROM held WHERE key IN ({marks})"  # noqa: S608  only marks
            for key, value in self._connection.execute(select, chunk):
                values[key] = self._decode(value)
        return values


def main() -> None:
    """Do what the arguments say; print JSON as the last line."""
    mode, *rest = sys.argv[1:]
    if mode == "evaluation":
        print(json.dumps(_evaluation(*rest)))
        return
    begun = time.perf_counter()
    pipeline = _Pipeline(Path(rest[0]))
    if mode == "fill":
        pipeline.fill(int(rest[1]))
    else:
        mean = pipeline.read(int(rest[1]))
        print(json.dumps({"mean": mean, "seconds": time.perf_counter() - begun}))
    pipeline.close()


if __name__ == "__main__":
    main()
