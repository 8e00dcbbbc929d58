"""What a judge's calls cost in time and in lost verdicts, against a service that misbehaves.

Run with ``python -m benchmarks.judging`` from the repository's root; ``--quick`` makes it a tenth
as long. Each row runs the real clients over real HTTP against ``tests/support/judge_server.py``,
and says what was measured and what is wanted of it. The exit status is 1 where a row falls short.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.judge_chaos import Chaos, Quota, too_many  # noqa: E402 -- the path comes first
from support.judge_http import Received  # noqa: E402
from support.judge_load import Load, judge_all  # noqa: E402
from support.judge_server import JudgeServer  # noqa: E402

from cachedeval.services.limits import Limits  # noqa: E402
from cachedeval.services.retry import RetryPolicy  # noqa: E402


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    wanted: str
    holds: bool


@dataclass(frozen=True)
class Scale:
    """How large the rows are."""

    questions: int = 1000
    minute: float = 15.0
    minutes: int = 3


def run(
    server: JudgeServer, questions: int, limits: Limits, policy: RetryPolicy | None = None
) -> Load:
    """Judge questions against a server in this process."""
    with server:
        return asyncio.run(judge_all(server.url, questions, limits=limits, policy=policy))


@contextmanager
def server_apart(*options: str) -> Iterator[str]:
    """The judge server in a process of its own; gives its URL."""
    script = ROOT / "tests" / "support" / "judge_server.py"
    with subprocess.Popen(
        [sys.executable, str(script), *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 -- it was asked for
        yield process.stdout.readline().strip()
        process.terminate()


def chaos(scale: Scale) -> Iterator[Row]:
    """Seeded faults of all kinds."""
    script = Chaos(2026, retry_after=0.2)
    policy = RetryPolicy(timeout=1.0, wait_initial=0.05)
    limits = Limits(max_concurrency=100, minute=scale.minute)
    load = run(JudgeServer(latency=0.02, script=script), scale.questions, limits, policy)
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(script.happened.items()))
    yield Row(
        f"{scale.questions} questions at {faults}",
        f"{len(load.verdicts)} scored, {load.misjudged} wrong, {load.seconds:.1f} s",
        "all scored, none wrong",
        len(load.verdicts) == scale.questions and not load.misjudged,
    )


def limits_kept(scale: Scale) -> Iterator[Row]:
    """A service that enforces its limits in sliding windows, for us alone and with another."""
    for share in (0.0, 0.5):
        for name, requests, tokens, a_minute in (
            ("300 requests", 300, None, 300),
            ("200,000 tokens", None, 200_000, 480),
        ):
            quota = Quota(requests=requests, tokens=tokens, minute=scale.minute, other_share=share)
            server = JudgeServer(latency=0.05, quota=quota)
            limits = Limits(
                requests_per_minute=requests,
                tokens_per_minute=tokens,
                minute=scale.minute,
                max_concurrency=64,
            )
            run(server, int(a_minute * (1 - share) * (scale.minutes + 0.5)), limits)
            second = server.requests[0].at + 1
            used = quota.share() / (1 - share)
            rejected = quota.rejected_after(second)
            other = " while another takes half" if share else ""
            yield Row(
                f"{name} in {scale.minute:g} s{other}",
                f"{used:.1%} of what is permitted, {rejected} turned down",
                "95%, none after the first second",
                used >= 0.95 and not rejected,  # noqa: PLR2004 -- as wanted
            )


def speed(scale: Scale) -> Iterator[Row]:
    """Calls of a second's latency."""
    for questions, concurrency in ((scale.questions, 100), (20, 20)):
        with server_apart("--latency", "1") as url:
            load = asyncio.run(
                judge_all(url, questions, limits=Limits(max_concurrency=concurrency))
            )
        ideal = questions / concurrency
        most = 1.1 * ideal if ideal > 1 else 1.2
        yield Row(
            f"{questions} calls of 1 s, {concurrency} at once",
            f"{load.seconds:.2f} s",
            f"at most {most:g} s",
            len(load.verdicts) == questions and load.seconds <= most,
        )


def retry_after(_: Scale) -> Iterator[Row]:
    """A 429 with advice, to all workers at once."""
    began: list[float] = []

    def script(got: Received) -> object:
        began.append(got.at)
        return too_many({"retry-after": "2"}) if got.at < began[0] + 1 else None

    server = JudgeServer(script=script)  # type: ignore[arg-type] # answers and None
    load = run(server, 20, Limits(max_concurrency=20))
    told = {got.text: got.answered for got in server.requests if got.status == 429}  # noqa: PLR2004
    first = min(told.values())
    waits = [
        got.at - told.get(got.text, first)
        for got in server.requests
        if got.status == 200  # noqa: PLR2004 -- HTTP
    ]
    yield Row(
        "429 with retry-after: 2, 20 workers",
        f"{min(waits):.2f} to {max(waits):.2f} s, {len(load.verdicts)} scored",
        "2 to 2.5 s each",
        min(waits) >= 2 and max(waits) <= 2.5 and len(load.verdicts) == 20,  # noqa: PLR2004
    )


def timeout(_: Scale) -> Iterator[Row]:
    """A server that never answers."""
    began = time.monotonic()
    load = run(
        JudgeServer(script=lambda _: "hang"),
        50,
        Limits(max_concurrency=50),
        RetryPolicy(timeout=1.0, wait_initial=0.05),
    )
    took = time.monotonic() - began
    yield Row(
        "a server that never answers, 50 questions, time-out 1 s",
        f"{load.kinds['timed_out']} timed out after 3 attempts, {took:.1f} s",
        "all, in 3 time-outs",
        load.kinds == {"timed_out": 50} and took < 5,  # noqa: PLR2004 -- as wanted
    )


def wrong_key(scale: Scale) -> Iterator[Row]:
    """401."""
    server = JudgeServer(api_key="another")
    load = run(server, scale.questions, Limits(max_concurrency=100))
    messages = {str(failure) for failure in load.failures.values()}
    yield Row(
        f"a wrong key, {scale.questions} questions",
        f"{server.calls} requests, {len(messages)} message, {load.seconds:.1f} s",
        "a handful, one",
        server.calls <= 5 and len(messages) == 1,  # noqa: PLR2004 -- a handful
    )


ROWS: tuple[Callable[[Scale], Iterator[Row]], ...] = (
    speed,
    retry_after,
    timeout,
    wrong_key,
    chaos,
    limits_kept,
)


def main() -> int:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth as long")
    options.add_argument("--only", metavar="ROW", help="one of the functions of this module")
    given = options.parse_args()
    scale = Scale(questions=200, minute=6.0, minutes=2) if given.quick else Scale()
    print("| what | measured | wanted | |\n| --- | --- | --- | --- |")
    fell_short = 0
    for rows in ROWS:
        if given.only not in (None, rows.__name__):
            continue
        for row in rows(scale):
            fell_short += not row.holds
            verdict = "yes" if row.holds else "NO"
            print(f"| {row.what} | {row.measured} | {row.wanted} | {verdict} |", flush=True)
    return 1 if fell_short else 0


if __name__ == "__main__":
    raise SystemExit(main())
