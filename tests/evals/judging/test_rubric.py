from pathlib import Path

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.judging.rubric import (
    Criterion,
    Rubric,
    builtin_rubrics,
    load_rubric,
    rubric_of_levels,
)

LEVELS = {"criteria": "Kind?"} | {f"score{n}_description": f"level {n}" for n in range(1, 6)}


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_asks_for_four_things_from_0_to_10() -> None:
    rubric = load_rubric("default")
    assert [criterion.name for criterion in rubric.criteria] == [
        "accuracy",
        "relevance",
        "completeness",
        "clarity",
    ]
    assert {criterion.range for criterion in rubric.criteria} == {(0, 10)}
    assert {criterion.weight for criterion in rubric.criteria} == {1.0}


@pytest.mark.parametrize("name", builtin_rubrics())
def test_each_builtin_one_loads(name: str) -> None:
    assert load_rubric(name).name == name


def test_a_file_of_criteria_alone_will_do(tmp_path: Path) -> None:
    path = write(tmp_path, '[[criteria]]\nname = "tone"\ndescription = "kind"\n')
    rubric = load_rubric(path)
    assert rubric.name == "mine"
    assert rubric.criteria == (Criterion(name="tone", description="kind"),)
    assert rubric.template == load_rubric("default").template
    assert load_rubric(str(path)) == rubric


def test_a_file_may_say_all(tmp_path: Path) -> None:
    rubric = load_rubric(
        write(
            tmp_path,
            """
            name = "all"
            template_version = "7"
            system = ""
            template = "$item_id $criteria $question $response $reply_format"
            [[criteria]]
            name = "tone"
            description = "kind"
            range = [1, 3]
            weight = 2
            levels = ["rude", "so so", "kind"]
            """,
        )
    )
    assert (rubric.name, rubric.template_version, rubric.system) == ("all", "7", "")
    assert rubric.criteria[0].range == (1, 3)
    assert rubric.criteria[0].levels == ("rude", "so so", "kind")


ONE = '[[criteria]]\nname = "tone"\ndescription = "kind"\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no criteria"),
        ("criteria = []", "no criteria"),
        ("criteria = 3", "Expected `array`, got `int`"),
        ('[[criteria]]\nname = "tone"', "missing required field `description`"),
        ('[[criteria]]\nname = ""\ndescription = "kind"', "criteria[0].name"),
        ('[[criteria]]\nname = " x"\ndescription = "kind"', "criteria[0].name"),
        (ONE + ONE, "criterion 'tone' stands there twice"),
        (ONE + "range = [10, 0]", "criterion 'tone': range is [10, 0]"),
        (ONE + "range = [5, 5]", "range is [5, 5]"),
        (ONE + "range = [0, inf]", "range is [0, inf]"),
        (ONE + "range = [0]", "criteria[0].range"),
        (ONE + "weight = 0", "weight is 0"),
        (ONE + "weight = nan", "weight is nan"),
        (ONE + 'levels = ["a", "b"]', "2 levels for the range [0, 10]"),
        (ONE + "wieght = 2", "unknown field `wieght` - at `$.criteria[0]` (did you mean weight?)"),
        ("templat = 3\n" + ONE, "unknown field `templat` (did you mean template?)"),
        (
            'template = "$response"\nsystem = ""\n' + ONE,
            "neither system nor template has $criteria",
        ),
        ('template = "$answer"\n' + ONE, "no such placeholder: $answer"),
        ('template = "5 $ each"\n' + ONE, "write $$"),
        ("not toml", "is no TOML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(tmp_path: Path, text: str, why: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as raised:
        load_rubric(path)
    said = str(raised.value)
    assert said.startswith(str(path))
    assert why in said
    assert "\n" not in said


def test_neither_name_nor_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a built-in one \(correctness, default\)"):
        load_rubric("defualt")
    with pytest.raises(InputError, match=r"none.toml: no such file"):
        load_rubric(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_rubric(tmp_path)


def test_the_total_is_the_weighted_mean_of_what_each_range_gives() -> None:
    rubric = Rubric(
        name="r",
        criteria=(
            Criterion(name="a", description="-"),
            Criterion(name="b", description="-", range=(1, 5), weight=3),
        ),
    )
    assert rubric.total({"a": 10, "b": 5}) == 100
    assert rubric.total({"a": 0, "b": 1}) == 0
    assert rubric.total({"a": 10, "b": 3}) == pytest.approx((100 + 3 * 50) / 4)
    with pytest.raises(KeyError):
        rubric.total({"a": 10})


def test_a_rubric_of_levels_is_scored_from_1_to_5() -> None:
    rubric = rubric_of_levels(LEVELS)
    assert rubric.criteria[0].range == (1, 5)
    assert rubric.total({"score": 4}) == 75
    with pytest.raises(InputError, match="line 7: score3_description is missing"):
        rubric_of_levels(LEVELS | {"score3_description": " "}, where="line 7")
    with pytest.raises(InputError, match="criteria"):
        rubric_of_levels({})


def test_split_keeps_the_prompt_and_parts_the_criteria() -> None:
    rubric = load_rubric("default")
    parts = rubric.split()
    assert [part.criteria[0] for part in parts] == list(rubric.criteria)
    assert {part.template for part in parts} == {rubric.template}
