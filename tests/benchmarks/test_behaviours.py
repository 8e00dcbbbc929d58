"""The table beside other caches: its programs run, and its text is that of the stored answers."""

import pytest

from benchmarks.peers.behaviours import (
    BEGIN,
    CACHES,
    CASES,
    END,
    PAGE,
    interpreter,
    measure,
    stored,
    table,
)

PEERS = ("joblib", "redun", "Hamilton")


def test_each_question_has_an_answer_for_each_cache() -> None:
    assert {name: list(answers) for name, answers in stored().items()} == {
        name: list(CACHES) for name in CASES
    }


def test_the_page_shows_the_stored_answers() -> None:
    page = PAGE.read_text("utf-8")
    start = page.index(BEGIN)
    assert page[start : page.index(END) + len(END)] == table()


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["cachedeval", "functools", "diskcache"])
@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_what_the_cache_does(cache: str, name: str) -> None:
    assert measure(cache, CASES[name]) == stored()[name][cache]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("cache", PEERS)
@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_what_a_peer_does(cache: str, name: str) -> None:
    if interpreter(cache) is None:
        pytest.skip("the peers' environment is not installed")
    assert measure(cache, CASES[name]) == stored()[name][cache]
