"""Which part of a text is the answer."""

import pytest

from cachedeval.evals.reasoning import CHANNELS, KNOWN, Markers, Parts, markers_in, separate

THINK = KNOWN[0]
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"

CASES = [
    ("4", THINK, False, None, "4"),
    ("<think>2 + 2</think>\n\n4", THINK, False, "2 + 2", "4"),
    ("\n<think>\n2 + 2\n</think>4\n", THINK, False, "2 + 2", "4\n"),
    ("2 + 2</think>4", THINK, True, "2 + 2", "4"),
    ("<think>2 + 2</think>4", THINK, True, "2 + 2", "4"),
    ("<think>a</think><think>b</think>4", THINK, False, "a\n\nb", "4"),
    ("<think></think>4", THINK, False, "", "4"),
    ("<think>2 + 2", THINK, False, "2 + 2", None),
    ("2 + 2", THINK, True, "2 + 2", None),
    ("<think>a</think>\n<think>b", THINK, False, "a\n\nb", None),
    ("<think>a</think>", THINK, False, "a", ""),
    ("The tag </think> ends it.", THINK, False, None, "The tag </think> ends it."),
    ("Use <think> like this.", THINK, False, None, "Use <think> like this."),
    ("[THINK]a[/THINK]4", Markers("[THINK]", "[/THINK]"), False, "a", "4"),
    ("<think>a</think>4", None, False, None, "<think>a</think>4"),
    ("<think>a</think>4", Markers("", ""), False, None, "<think>a</think>4"),
    ("4", CHANNELS, False, None, "4"),
    (f"{ANALYSIS}2 + 2<|end|>{FINAL}4", CHANNELS, False, "2 + 2", "4"),
    (
        f"{ANALYSIS}a<|end|><|start|>assistant{ANALYSIS}b<|end|>{FINAL}4",
        CHANNELS,
        False,
        "a\n\nb",
        "4",
    ),
    (f"{ANALYSIS}2 + 2", CHANNELS, False, "2 + 2", None),
    (f"{ANALYSIS}2 + 2<|end|>", CHANNELS, False, "2 + 2", None),
    ("<|channel|>ana", CHANNELS, False, "", None),
    (f"<|channel|>final<|message|>4{chr(10)}5", CHANNELS, False, "", "4\n5"),
]


@pytest.mark.parametrize(("text", "markers", "opened", "thought", "answer"), CASES)
def test_the_answer_is_what_follows_the_thought(
    text: str,
    markers: Markers | None,
    opened: bool,  # noqa: FBT001
    thought: str | None,
    answer: str | None,
) -> None:
    assert separate(text, markers, opened=opened) == Parts(thought, answer)


@pytest.mark.parametrize("known", KNOWN)
def test_a_template_names_its_markers(known: Markers) -> None:
    assert markers_in("{{ m.content.split('" + known.end + "')[-1] }}") == known


def test_a_template_without_markers_and_one_with_channels() -> None:
    assert markers_in("{{ messages }}") is None
    assert markers_in("<|channel|>analysis<|message|>{{ x.split('</think>') }}") == CHANNELS
