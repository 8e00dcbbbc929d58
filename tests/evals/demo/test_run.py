"""The demo's carried parts: small, free of paths, questions that were not trained on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from cachedeval.evals.demo.run import ADAPTERS, adapter_folder, questions_file

REPOSITORY = Path(__file__).parents[3]


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_questions_are_not_those_that_were_trained_on() -> None:
    asked = rows(questions_file())
    trained = rows(REPOSITORY / "examples" / "data" / "train.jsonl")
    assert len({row["question"] for row in asked}) == len(asked) == 20
    told = [row["completion"].split(", ") for row in trained]
    items, orders = ({answer[part] for answer in told} for part in (0, 1))
    for row in asked:
        item, order, _ = row["answer"].split(", ")
        assert item not in items
        assert order not in orders
        # What the answer says stands in the question.
        assert item in row["question"]
        assert order in row["question"]


def test_the_first_few_questions_hold_each_problem() -> None:
    problems = [row["answer"].split()[-1] for row in rows(questions_file())]
    assert set(problems[:4]) == set(problems)


def test_the_training_data_is_what_its_script_writes(tmp_path: Path) -> None:
    examples = REPOSITORY / "examples"
    (tmp_path / "data").mkdir()
    script = shutil.copy(examples / "make_data.py", tmp_path)
    subprocess.run([sys.executable, script], check=True, timeout=30)
    for name in ("train.jsonl", "valid.jsonl"):
        written = (tmp_path / "data" / name).read_bytes()
        assert written == (examples / "data" / name).read_bytes()


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_two_files_without_a_machines_paths(name: str) -> None:
    folder = adapter_folder(name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapters.safetensors",
    ]
    assert "/" not in (folder / "adapter_config.json").read_text(encoding="utf-8")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "adapters.safetensors")
    keys = config["lora_parameters"]["keys"]
    assert len(tensors) == 2 * config["num_layers"] * len(keys)
    assert all(str(tensor.dtype) == "float32" for tensor in tensors.values())


def test_the_adapters_are_small() -> None:
    files = [file for name in ADAPTERS for file in adapter_folder(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 1_000_000
