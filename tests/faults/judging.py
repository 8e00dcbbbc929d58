"""Verdicts that are lost or wrong, and limits that are exceeded, against a service with faults.

Run it with ``python -m faults.judging`` from the folder ``tests``; ``--quick`` makes it a tenth as
long. Each row runs the real clients over real HTTP against ``support.judge_server``, and prints
what was counted and what is wanted. The exit status is 1 if a row falls short.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from support.judge_chaos import Chaos, Quota, too_many
from support.judge_http import Received
from support.judge_load import Load, judge_all
from support.judge_server import JudgeServer

from cachedeval.services.limits import Limits
from cachedeval.services.retry import RetryPolicy


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


def chaos(scale: Scale) -> Iterator[Row]:
    """Seeded faults of all kinds."""
    script = Chaos(2026, retry_after=0.2)
    policy = RetryPolicy(timeout=5.0, wait_initial=0.05)
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
                used >= 0.95 and not rejected,
            )


def retry_after(_: Scale) -> Iterator[Row]:
    """A 429 with advice, to all workers at once."""
    began: list[float] = []

    def script(got: Received) -> object:
        began.append(got.at)
        return too_many({"retry-after": "2"}) if got.at < began[0] + 1 else None

    server = JudgeServer(script=script)  # type: ignore[arg-type] # answers and None
    load = run(server, 20, Limits(max_concurrency=20))
    rejected = {got.text: got.answered for got in server.requests if got.status == 429}
    first = min(rejected.values())
    waits = [got.at - rejected.get(got.text, first) for got in server.requests if got.status == 200]
    yield Row(
        "429 with retry-after: 2, 20 workers",
        f"tried again after {min(waits):.2f} to {max(waits):.2f} s, {len(load.verdicts)} scored",
        "none before 2 s, all scored",
        min(waits) >= 2 and len(load.verdicts) == 20,
    )


def timeout(_: Scale) -> Iterator[Row]:
    """A server that never answers."""
    load = run(
        JudgeServer(script=lambda _: "hang"),
        50,
        Limits(max_concurrency=50),
        RetryPolicy(timeout=1.0, wait_initial=0.05),
    )
    yield Row(
        "a server that never answers, 50 questions, deadline 1 s",
        f"{load.kinds['timed_out']} timed out after 3 attempts",
        "all",
        load.kinds == {"timed_out": 50},
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
        server.calls <= 5 and len(messages) == 1,
    )


ROWS: tuple[Callable[[Scale], Iterator[Row]], ...] = (
    retry_after,
    timeout,
    wrong_key,
    chaos,
    limits_kept,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a row falls short."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth as long")
    options.add_argument("--only", metavar="ROW", help="one of the functions of this module")
    given = options.parse_args(arguments)
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
