"""A real model behind a real server as a judge: ``mlx_lm.server``, under both providers."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.judge_load import Load, judge_all

from cachedeval.evals.demo.model import MODEL_NAME
from cachedeval.services.limits import Limits
from cachedeval.services.retry import RetryPolicy

pytestmark = pytest.mark.slow

JUDGES = ("openai:default_model", "cerebras:default_model")

SERVE = """
import sys
from cachedeval.evals.mlx.cpu import open_blas
open_blas()
from mlx_lm.server import main
main()
"""


@contextmanager
def mlx_server(model: Path) -> Iterator[str]:
    """Serve a model on loopback; gives the server's URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "--model", str(model), "--port", str(port)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def load(url: str, judge: str, questions: int, tokens: int) -> Load:
    return asyncio.run(
        judge_all(
            url,
            questions,
            limits=Limits(max_concurrency=8),
            policy=RetryPolicy(attempts=1, timeout=60),
            judge_name=judge,
            max_completion_tokens=tokens,
            words=3,
            rubric_name="correctness",
        )
    )


def test_nonsense_is_a_typed_failure(tmp_path: Path) -> None:
    from support.tiny_model import make_tiny_model  # noqa: PLC0415 -- it imports mlx

    with mlx_server(make_tiny_model(tmp_path / "model")) as url:
        for judge in JUDGES:
            done = load(url, judge, 2, 24)
            assert done.kinds == {"bad_verdict": 2}, done.failures
            assert all(failure.reply for failure in done.failures.values())
            assert done.service is not None
            assert done.service.usage.completion_tokens > 0


def demo_model() -> Path:
    import platformdirs  # noqa: PLC0415 -- one test needs it

    named = os.environ.get("CACHEDEVAL_HOME")
    home = Path(named) if named else platformdirs.user_cache_path("cachedeval")
    return next(iter((home / "models").glob(f"{MODEL_NAME}-*")), home / "none")


@pytest.mark.skipif(not demo_model().exists(), reason="the demo model is not at hand")
@pytest.mark.parametrize("judge", JUDGES)
def test_a_small_model_judges_or_says_why_not(judge: str) -> None:
    with mlx_server(demo_model()) as url:
        done = load(url, judge, 4, 24)
        assert len(done.verdicts) + len(done.failures) == 4
        assert set(done.kinds) <= {"bad_verdict", "timed_out"}  # a busy machine is slow
        assert done.service is not None
        assert done.service.usage.requests == 4
