"""The floor: what any cache on SQLite must do for the warm pipeline, and no more.

    python -m benchmarks.floor FOLDER QUESTIONS [fill]

A fresh process makes the keys of 2 n + 1 steps from their inputs (msgspec and xxh3_128), reads the
values in selects of 500, decodes each with msgspec, and averages the scores. It verifies nothing,
and knows no graph.
"""

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from benchmarks.workload import answer_of, question_of, verdict_of

_CHUNK = 500


_encode = msgspec.msgpack.Encoder().encode


def _key(*inputs: object) -> bytes:
    return xxhash.xxh3_128_digest(_encode(inputs))


def fill(folder: Path, questions: int) -> None:
    """Write the values of a pipeline of so many questions."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, scores = [], []
    for number in range(questions):
        question = question_of(number)
        answer = answer_of(question)
        verdict = verdict_of(question, answer)
        scores.append(verdict["score"])
        rows.append((_key("generation", "model", question, 150), _encode(answer)))
        rows.append((_key("judge", "judge", question, answer), _encode(verdict)))
    rows.append((_key("mean", scores), _encode(sum(scores) / questions)))
    with sqlite3.connect(folder / "floor.db") as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE kept (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        connection.executemany("INSERT INTO kept VALUES (?, ?)", rows)
    connection.close()


def read(folder: Path, questions: int) -> float:
    """Return the mean score, from what is kept."""
    connection = sqlite3.connect(folder / "floor.db")
    asked = [question_of(number) for number in range(questions)]
    keys = [_key("generation", "model", question, 150) for question in asked]
    answers = _select(connection, keys)
    keys = [
        _key("judge", "judge", question, answers[key])
        for question, key in zip(asked, keys, strict=True)
    ]
    verdicts = _select(connection, keys)
    key = _key("mean", [verdicts[key]["score"] for key in keys])
    mean = _select(connection, [key])[key]
    connection.close()
    return float(mean)


def _select(connection: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, Any]:
    decode = msgspec.msgpack.Decoder().decode
    values = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        marks = ",".join("?" * len(chunk))
        select = f"SELECT key, value FROM kept WHERE key IN ({marks})"  # noqa: S608  question marks
        for key, value in connection.execute(select, chunk):
            values[key] = decode(value)
    return values


def main() -> None:
    """Fill, or read and tell the mean."""
    folder, questions, *rest = sys.argv[1:]
    if rest:
        fill(Path(folder), int(questions))
        return
    begun = time.perf_counter()
    mean = read(Path(folder), int(questions))
    print(json.dumps({"mean": mean, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main()
