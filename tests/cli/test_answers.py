"""What the command says of answers that are none, and of adapters that do nothing."""

import json
from pathlib import Path

import pytest
from support.tiny_model import make_tiny_model
from support.workplace import Finished, Workplace

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' "
    "+ message.content.split('</think>')[-1] + '<|im_end|>\\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\\n<think>\\n' }}"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


def run(place: Workplace, folder: Path, *more: str | Path) -> Finished:
    data = place.questions(folder, 4)
    cache = f"disk:{folder / 'cache'}"
    return place.run("run", "--data", data, "--judge", "f1", "--cache", cache, *more)


def test_an_adapter_that_changes_nothing_is_named_also_from_the_cache(
    place: Workplace, tmp_path: Path
) -> None:
    options = ("--model", place.model, "--max-tokens", "8", "--adapter", "base", "--adapter")
    for _ in range(2):
        done = run(place, tmp_path, *options, place.same)
        assert done.status == 0, done.err
        assert "the adapter changes nothing: all its lora_b are zero" in done.out
        assert "gives the same answer as the base model to every question" in done.out
    done = run(place, tmp_path, *options, place.changing)
    assert done.status == 0, done.err
    assert "changes nothing" not in done.out
    assert "gives the same answer" not in done.out


def test_a_thought_cut_at_the_bound_is_exit_3_and_a_longer_bound_decodes_what_was_cut(
    place: Workplace, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "model")
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    options = ("--model", model, "--json", "--max-tokens")
    done = run(place, tmp_path, *options, "4")
    assert done.status == 3, done.err
    report = done.json["report"]
    assert (report["failures"], report["truncated"], report["score"]) == ({"NoAnswer": 4}, 4, None)
    assert all("raise --max-tokens" in item["error"] for item in report["items"])
    # A text that some thought has ends that one, and others are cut.
    stop = ("--stop", report["items"][0]["reasoning"].strip()[0])
    short = run(place, tmp_path, *options, "4", *stop)
    longer = run(place, tmp_path, *options, "12", *stop)
    cut = short.json["report"]["truncated"]
    assert cut < 4
    assert longer.json["run"]["nodes"]["generation"]["computed"] == cut
