from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain import VALUES, alike

from cachedeval import EncodingError
from cachedeval.engine.encoding import Identified, encode
from cachedeval.engine.keys import RecipeHead, identity_recipe, key_of, node_of, read_recipe

NAMES = st.text(min_size=1, max_size=5)


@given(NAMES, NAMES, st.dictionaries(NAMES, VALUES, max_size=5))
def test_a_recipe_is_the_encoding_of_its_parts(
    node: str, version: str, inputs: dict[str, Any]
) -> None:
    recipe = RecipeHead(node, version, tuple(inputs)).recipe(inputs)
    by_name = dict(sorted(inputs.items(), key=lambda item: encode(item[0])))
    assert recipe == encode(("recipe", node, version, by_name))
    read = read_recipe(recipe)
    assert (read.node, read.version) == (node, version)
    assert alike(read.inputs) == alike(inputs)
    assert node_of(recipe) == node


@pytest.mark.parametrize("count", [0, 1, 254, 255, 256, 1000])
def test_many_inputs(count: int) -> None:
    inputs = {f"x{n}": n for n in range(count)}
    recipe = RecipeHead("n" * count, "1", tuple(inputs)).recipe(inputs)
    assert recipe == encode(("recipe", "n" * count, "1", inputs))
    assert node_of(recipe) == "n" * count


def test_an_input_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(EncodingError, match=r"input 'x': at \[0\]: a value of type object"):
        RecipeHead("n", "1", ("x",)).recipe({"x": [object()]})


@pytest.mark.parametrize("value", [None, (), ("recipe", "n", "1"), ("recipe", 1, "1", {}), b"x"])
def test_what_is_no_recipe(value: Any) -> None:
    with pytest.raises(EncodingError, match="not a recipe"):
        read_recipe(encode(value))


@pytest.mark.parametrize("data", [b"", b"t\x04", encode(("recipes", "n", "1", {})), b"\0" * 30])
def test_bytes_that_are_no_recipe_are_of_no_node(data: bytes) -> None:
    with pytest.raises(EncodingError, match="not a"):
        node_of(data)


def test_a_key_is_sixteen_bytes() -> None:
    assert key_of(b"").hex() == "99aa06d3014798d86001c324468d497f"


def test_an_identity_is_shown_by_label_and_digest() -> None:
    one, other = (identity_recipe(Identified(label, "sha256:0")) for label in ("a", "b"))
    assert one != other
    assert node_of(one) == "(identity)"
