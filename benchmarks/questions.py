"""Real questions to measure with."""

import json
from pathlib import Path

from benchmarks.measure import REPOSITORY

__all__ = ["questions", "write_questions"]

MT_BENCH = REPOSITORY.parent / "shared" / "data" / "mt_bench_question.jsonl"


def questions(count: int) -> list[str]:
    """Return real questions: MT-Bench's where it lies beside the repository, else the examples'."""
    path = MT_BENCH if MT_BENCH.exists() else REPOSITORY / "examples" / "demo.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [row["turns"][0] if "turns" in row else row["question"] for row in rows]
    return (found * (count // len(found) + 1))[:count]


def write_questions(path: Path, count: int) -> Path:
    """Write them as a file to evaluate on, each with a reference that no answer equals."""
    rows = [{"question": question, "answer": "-"} for question in questions(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
