import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.engine.errors import InputError
from cachedeval.evals.data import Question, read_questions


def write(folder: Path, content: bytes | str | Sequence[Any]) -> Path:
    path = folder / "data.jsonl"
    if not isinstance(content, bytes | str):
        content = "\n".join(json.dumps(row) for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def one(folder: Path, row: dict[str, Any]) -> Question:
    (question,) = read_questions(write(folder, [row]))
    return question


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("row", "asked", "reference"),
    [
        ({"prompt": "Why?", "completion": "So."}, "Why?", "So."),
        ({"prompt": "Why?"}, "Why?", None),
        ({"question": "Why?", "answer": "So."}, "Why?", "So."),
        ({"question": "Why?", "answer": None}, "Why?", None),
        ({"question": "Why?", "answer": ""}, "Why?", ""),
        ({"question": 6, "answer": 6.5}, "6", "6.5"),
        ({"instruction": "Add.", "input": "1 1", "output": "2"}, "Add.\n\n1 1", "2"),
        ({"instruction": "Add.", "input": "", "output": 2}, "Add.", "2"),
        ({"instruction": "Add."}, "Add.", None),
        ({"question": " Why? \n", "source": "x"}, " Why? \n", None),
    ],
)
def test_each_format_is_one_message_of_the_user(
    tmp_path: Path, row: dict[str, Any], asked: str, reference: str | None
) -> None:
    question = one(tmp_path, row)
    assert question.question == asked
    assert question.messages == (user(asked),)
    assert question.reference == reference
    assert question.rubric == {}


def test_a_chat_ends_with_the_reference(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    before = [system, user("Hi"), {"role": "assistant", "content": "Hello"}, user("Why?")]
    said = {"role": "assistant", "content": "So."}
    question = one(tmp_path, {"messages": [*before, said]})
    assert question.messages == tuple(before)
    assert question.reference == "So."
    assert question.question == "Why?"
    without = one(tmp_path, {"messages": before})
    assert without.messages == tuple(before)
    assert without.reference is None


def test_what_else_a_message_has_does_not_count(tmp_path: Path) -> None:
    plain = one(tmp_path, {"messages": [user("Hi")]})
    assert one(tmp_path, {"messages": [{**user("Hi"), "name": "x", "weight": 0}]}) == plain


def test_the_formats_that_say_the_same_are_the_same_question(tmp_path: Path) -> None:
    said = [user("Why?"), {"role": "assistant", "content": "So."}]
    rows: list[dict[str, Any]] = [
        {"question": "Why?", "answer": "So."},
        {"prompt": "Why?", "completion": "So.", "id": 7},
        {"instruction": "Why?", "output": "So."},
        {"messages": said},
    ]
    assert len({one(tmp_path, row).id for row in rows}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"question": "Why", "answer": "So."},
        {"question": "Why?", "answer": "So"},
        {"question": "Why?"},
        {"question": "Why?So", "answer": "."},
        {"question": "Why?", "answer": "So.", "criteria": "Kind?"},
        {"messages": [user("Why?"), user("So.")]},
        {"messages": [{"role": "system", "content": ""}, user("Why?")]},
    ],
)
def test_what_differs_in_anything_is_another_question(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    assert one(tmp_path, other).id != one(tmp_path, {"question": "Why?", "answer": "So."}).id


def test_a_line_may_bring_its_own_rubric(tmp_path: Path) -> None:
    form = {"criteria": "Kind?", "score1_description": "no"}
    assert one(tmp_path, {"question": "?", **form, "x": 1}).rubric == form
    assert one(tmp_path, {"question": "?", "score_rubric": form}).rubric == {"score_rubric": form}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\r\n \t\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_bom_line_ends_and_blank_lines_do_not_count(
    tmp_path: Path, bom: bytes, end: bytes, *, last: bool
) -> None:
    lines = [b'{"question": "a"}', '{"question": "\u2028 ü \x85"}'.encode(), b'{"question": "b"}']
    found = read_questions(write(tmp_path, bom + end.join(lines) + (end if last else b"")))
    assert [question.question for question in found] == ["a", "\u2028 ü \x85", "b"]


def test_lone_surrogates_and_emoji_come_as_they_are(tmp_path: Path) -> None:
    lone, face = read_questions(write(tmp_path, '{"prompt": "\\ud800"}\n{"prompt": "🙂"}'))
    assert (lone.question, face.question) == ("\ud800", "🙂")
    assert one(tmp_path, {"prompt": "\ud83d\ude42"}) == face


def test_repeated_questions_get_ids_of_their_own(tmp_path: Path) -> None:
    rows = [{"question": name} for name in "abaab"]
    found = read_questions(write(tmp_path, rows))
    a, b = found[0].id, found[1].id
    assert [question.id for question in found] == [a, b, f"{a}-2", f"{a}-3", f"{b}-2"]
    assert [len(a), len(b)] == [16, 16]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20))
def test_ids_are_unique_and_do_not_depend_on_the_order(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    there = [q.id for q in read_questions(write(folder, [{"question": name} for name in names]))]
    back = [
        q.id for q in read_questions(write(folder, [{"question": name} for name in names[::-1]]))
    ]
    assert len(set(there)) == len(names)
    assert sorted(there) == sorted(back)


def test_ten_thousand_lines(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} plus {n}?", "answer": 2 * n} for n in range(10_000)]
    found = read_questions(write(tmp_path, rows))
    assert len({question.id for question in found}) == 10_000
    assert found[-1].reference == "19998"


def test_an_id_is_the_same_for_ever(tmp_path: Path) -> None:
    """Samples are drawn by it: were it another one, each sample would be."""
    assert one(tmp_path, {"question": "Why?", "answer": "So."}).id == "7e2a6a16aec84c1b"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b'{"question": "a"} x', "not JSON: Extra data"),
        (b'{"question": "a", "answer": NaN}', "not JSON: NaN is no JSON; write null"),
        (b"\x00", "not JSON"),
        (b'{"question": ' + b"[" * 100_000, "not JSON"),
        (b'{"question": "a", "rubric": ' + b"[" * 500 + b"]" * 500 + b"}", "nested too deeply"),
        (b'{"question": "\xff"}', "not UTF-8; save the file as UTF-8"),
        (b'{"question": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"question": "a"}'.encode("utf-16"), "not UTF-8"),
        (b"[]", "it must be a JSON object, not a list"),
        (b'"a"', "it must be a JSON object, not a string"),
        (b"null", "it must be a JSON object, not null"),
        (b"true", "it must be a JSON object, not a boolean"),
        (b"1.5", "it must be a JSON object, not a number"),
        (
            b"{}",
            "no question in it: it needs `messages`, `prompt`, `question` or `instruction` (it has: nothing)",
        ),
        (b'{"q": 1, "a": 2}', "(it has: q, a)"),
        (b'{"a\\nb": 1, "\\ud800": 2}', "(it has: a\\nb, \\ud800)"),
        (
            json.dumps(dict.fromkeys("abcdefghij", 1)).encode(),
            "(it has: a, b, c, d, e, f, g, h, …)",
        ),
        (b'{"text": "a"}', "a line of plain `text` asks nothing"),
        (b'{"question": ""}', "the question is empty"),
        (b'{"question": " \\n"}', "the question is empty"),
        (b'{"question": null}', "`question` must be a string, not null"),
        (b'{"question": true}', "`question` must be a string, not a boolean"),
        (b'{"prompt": ["a"]}', "`prompt` must be a string, not a list"),
        (b'{"question": "a", "answer": {}}', "`answer` must be a string, not an object"),
        (b'{"instruction": "a", "input": []}', "`input` must be a string, not a list"),
        (b'{"messages": []}', "`messages` must be a list of messages with `role` and `content`"),
        (b'{"messages": "a"}', "`messages` must be a list of messages"),
        (b'{"messages": ["a"]}', "`messages`[0] must have a `role`, one of system, user"),
        (b'{"messages": [{"role": "human", "content": "a"}]}', "`messages`[0] must have a `role`"),
        (b'{"messages": [{"role": [], "content": "a"}]}', "`messages`[0] must have a `role`"),
        (b'{"messages": [{"role": "user"}]}', "`content` must be a string, not null"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "the question is empty"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: bytes, why: str) -> None:
    path = write(tmp_path, b'{"question": "a"}\n\n' + line + b'\n{"question": "b"}\n')
    with pytest.raises(InputError) as raised:
        read_questions(path)
    said = str(raised.value)
    assert said.startswith(f"data {path}:3: ")
    assert why in said
    assert "\n" not in said


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.jsonl: there is no such file"):
        read_questions(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match=r"a folder; name a file in it \(\*.jsonl there: none\)"):
        read_questions(tmp_path)
    write(tmp_path, "")
    with pytest.raises(InputError, match=r"\*.jsonl there: data.jsonl\)"):
        read_questions(tmp_path)
    with pytest.raises(InputError, match=r"data.jsonl: has no questions"):
        read_questions(write(tmp_path, " \n\n"))
    with pytest.raises(InputError, match=r"data.jsonl/x: cannot be read"):
        read_questions(tmp_path / "data.jsonl" / "x")
