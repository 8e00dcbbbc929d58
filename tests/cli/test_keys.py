"""The judge's key on the command line: checked before anything is loaded, and shown nowhere."""

import json
from pathlib import Path

import pytest
from support.evaluation import JUDGE, Evaluation
from support.judge_http import Answer, Received, completion
from support.judge_server import JudgeServer
from support.judge_verdicts import verdict

pytestmark = pytest.mark.slow

KEY = "csk-7Qf2x9RvLm4Tz8Kw1Bn6Yp"


def seen(folder: Path, *outputs: str) -> list[bytes]:
    """Return everything that a run has left behind."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return [*files, *(output.encode() for output in outputs)]


def has_key(data: bytes) -> bool:
    return any(KEY[at : at + 8].encode() in data for at in range(len(KEY) - 7))


@pytest.mark.parametrize(
    "key",
    [
        f"{KEY}\n{KEY[::-1]}",
        f"{KEY}\n",
        f" {KEY}",
        f"'{KEY}'",
        f"\u201c{KEY}\u201d",
        f"{KEY}\u2013",
    ],
)
@pytest.mark.parametrize("provider", ["cerebras", "openai"])
def test_a_malformed_key_ends_the_run_before_it_begins(
    evaluation: Evaluation, server: JudgeServer, key: str, provider: str
) -> None:
    out = evaluation.folder / "out"
    evaluation.env = {
        f"{provider.upper()}_API_KEY": key,
        f"{provider.upper()}_BASE_URL": server.url,
    }
    done = evaluation("run", "--json", "--out", out, judge=f"{provider}:m")
    assert done.status == 2
    assert f"{provider.upper()}_API_KEY" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not any(has_key(data) for data in seen(evaluation.folder, done.out, done.err))
    assert (server.calls, server.connections) == (0, 0)
    lacking = evaluation("plan", judge=f"{provider}:m")
    assert "generation" in lacking.out  # no answer was generated
    doctor = evaluation.place.run("doctor", "--judge", f"{provider}:m", env=evaluation.env)
    assert f"{provider.upper()}_API_KEY" in doctor.out + doctor.err
    assert not has_key((doctor.out + doctor.err).encode())


def repeats_the_key(got: Received) -> Answer:
    """Echo the key in a header and in words, in another way for each question."""
    authorization = got.headers["authorization"]
    key = authorization.removeprefix("Bearer ")
    escaped = "".join(f"\\u{ord(char):04x}" for char in key)
    echo = {"x-echo": authorization}
    if got.number % 2:
        told = verdict(got.body) | {"rationale": f"by {key} and by KEY"}
        said = json.dumps(told).replace("KEY", escaped)
        return Answer(200, completion(got, said), echo)
    body = json.dumps({"error": {"message": f"{authorization} KEY", "code": key}})
    return Answer(400, body.replace("KEY", escaped).encode(), echo)


@pytest.mark.parametrize("options", [[], ["--json"], ["--verbose"]])
def test_a_key_that_the_judge_repeats_is_nowhere(
    evaluation: Evaluation, options: list[str]
) -> None:
    out = evaluation.folder / "out"
    with JudgeServer(script=repeats_the_key) as server:
        evaluation.judged_by(server)
        evaluation.env["CEREBRAS_API_KEY"] = KEY
        evaluation.env["CEREBRAS_LOG"] = "debug"
        done = evaluation("run", "--out", out, *options, judge=JUDGE)
        again = evaluation("run", "--out", out, *options, judge=JUDGE)
    assert {done.status, again.status} <= {0, 3}
    (written,) = out.glob("*.json")
    report = json.loads(written.read_text("utf-8"))
    assert any("[redacted]" in item["rationale"] for item in report["items"])
    everything = seen(evaluation.folder, done.out, done.err, again.out, again.err)
    assert not [data[:200] for data in everything if has_key(data)]
