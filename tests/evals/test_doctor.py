"""What the doctor finds, and what it says to do."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.tiny_architectures import save_tiny
from support.tiny_model import make_tiny_model

from cachedeval import AdapterEvaluator, open_backend
from cachedeval.evals import doctor
from cachedeval.evals.doctor import Check, examine
from cachedeval.evals.mlx.cpu import OWN_BLAS

CPU = {"device": "cpu", "name": "a CPU", "blas": "/lib/libopenblas.so.0", "gflops": 40.0}
OWN = {**CPU, "blas": None, "gflops": 2.0}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("CACHEDEVAL_", "CEREBRAS_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    answers(monkeypatch, CPU, OWN)


def answers(
    monkeypatch: pytest.MonkeyPatch,
    found: Mapping[str, Any] | str,
    own: Mapping[str, Any] | str = "not asked",
) -> None:
    """Let the probe find this, or fail so."""

    def probe(*arguments: str) -> tuple[Mapping[str, Any] | None, str]:
        answer = own if OWN_BLAS in arguments else found
        return (None, answer) if isinstance(answer, str) else (answer, "")

    monkeypatch.setattr(doctor, "_probe", probe)


def checks(**given: str) -> dict[str, Check]:
    return {check.name: check for check in examine(**given)}


def test_a_good_machine_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEREBRAS_API_KEY", "secret-key-value")
    found = checks()
    assert [check.name for check in found.values() if check.state != "ok"] == []
    assert list(found) == ["versions", "packages", "device", "blas", "judge", "cache", "disk"]
    assert "secret" not in str(found)
    assert "mlx-lm" in found["packages"].found


@pytest.mark.skipif(sys.platform != "linux", reason="on macOS mlx has Accelerate and Metal")
def test_the_blas_is_compared_with_what_mlx_has_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert checks()["blas"] == Check(
        "blas", "ok", "libopenblas.so.0, 40 GFLOP/s in float32, 20.0 times mlx's own (2)"
    )
    answers(monkeypatch, OWN)
    slow = checks()["blas"]
    assert (slow.state, slow.found) == ("warn", "mlx's own, 2 GFLOP/s in float32")
    assert "ngsolve-openblas" in slow.advice
    answers(monkeypatch, {**CPU, "gflops": 0.5}, OWN)
    assert checks()["blas"].state == "warn"


def test_a_gpu_has_no_blas_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"device": "gpu", "name": "M4", "blas": None, "gflops": None})
    found = checks()
    assert found["device"].found == "gpu (M4)"
    assert "blas" not in found


def test_mlx_that_dies_is_a_failure_and_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "it was killed by SIGILL")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    found = checks()["device"]
    assert found.state == "fail"
    assert "SIGILL" in found.found
    assert "OPENBLAS_CORETYPE" in found.advice


def test_the_real_probe_returns_device_and_speed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cachedeval.evals.mlx.cpu"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["device"] in ("cpu", "gpu")
    assert found["device"] == "gpu" or found["gflops"] > 0


def test_a_probe_that_is_killed_or_raises_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    real = subprocess.run

    def instead(code: str) -> None:
        monkeypatch.setattr(
            subprocess,
            "run",
            lambda command, **options: real([command[0], "-c", code], **options),
        )

    instead("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert doctor._probe() == (None, "it was killed by SIGILL")
    instead("raise ImportError('no mlx here')")
    assert doctor._probe() == (None, "ImportError: no mlx here")
    instead("pass")
    assert doctor._probe() == (None, "it ended with status 0")


def test_a_model_is_looked_at_and_not_loaded(tmp_path: Path) -> None:
    found = checks(model=str(make_tiny_model(tmp_path / "model")))["model"]
    assert found.state == "ok"
    assert "llama" in found.found
    assert checks(model=str(tmp_path / "none"))["model"].state == "fail"


def test_a_quantized_model_is_slow_on_a_cpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(make_tiny_model(tmp_path / "model", quantize_bits=4))
    on_cpu = checks(model=model)["model"]
    assert on_cpu.state == "warn"
    assert "quantized to 4 bits" in on_cpu.found
    assert "--dequantize" in on_cpu.advice
    answers(monkeypatch, {**CPU, "device": "gpu"})
    assert checks(model=model)["model"].state == "ok"


def test_a_judge_without_a_key_fails_if_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    default = checks()["judge"]
    assert (default.state, "CEREBRAS_API_KEY" in default.advice) == ("warn", True)
    assert checks(judge="cerebras:some")["judge"].state == "fail"
    assert checks(judge="nobody:x")["judge"].state == "fail"
    assert checks(judge="mlx:/no/such")["judge"].state == "fail"
    assert checks(judge="f1")["judge"].state == "ok"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert checks(judge="openai:local")["judge"].found.endswith("no key, and none needed")


def test_a_cache_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = checks(cache=f"disk:{tmp_path}/some/cache")
    assert found["cache"].state == "ok"
    assert "does not exist yet" in found["cache"].found
    assert not (tmp_path / "some").exists()


def test_a_cache_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    found = checks(cache=f"disk:{tmp_path}/cache")
    assert found["cache"] == Check("cache", "ok", f"disk:{tmp_path}/cache: can be read and written")
    backend = open_backend(f"disk:{tmp_path}/cache")
    assert list(backend.scan()) == []
    backend.close()


def test_a_cache_that_cannot_be_used_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert checks(cache=f"disk:{tmp_path}/file")["cache"].state == "fail"
    assert checks(cache=f"disk:{tmp_path}/file/inside")["cache"].state == "fail"
    assert checks(cache="no such scheme")["cache"].state == "fail"


def test_a_nearly_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 300 * 2**20

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    assert checks()["disk"].state == "warn"
    Usage.free = 2**20
    assert checks()["disk"].state == "fail"
    assert "prune" in checks()["disk"].advice


@pytest.mark.filterwarnings("ignore")  # of transformers, about settings that are not a Llama's
@pytest.mark.parametrize("name", ["llama", "gpt_bigcode"])
def test_what_a_trial_of_the_batches_found(tmp_path: Path, name: str) -> None:
    model = save_tiny(name, tmp_path / "model")
    data = tmp_path / "q.jsonl"
    lines = [json.dumps({"question": each, "answer": "x"}) for each in "abc"]
    data.write_text("\n".join(lines))
    cache = f"disk:{tmp_path / 'cache'}"
    assert "decoding" not in checks(model=str(model), cache=cache)

    def evaluate(batch_size: int | None) -> None:
        with AdapterEvaluator(
            str(model), judge="exact", cache=cache, max_tokens=2, batch_size=batch_size
        ) as evaluator:
            evaluator.evaluate_adapters([None], data, 3 if batch_size is None else 1)

    evaluate(1)
    assert "not been tried" in checks(model=str(model), cache=cache)["decoding"].found
    evaluate(None)
    found = checks(model=str(model), cache=cache)["decoding"]
    if name == "llama":
        assert (found.state, found.found[:9]) == ("ok", "together:")
    else:
        assert (found.state, found.found[:11]) == ("warn", "one by one:")
        assert "ValueError" in found.found
