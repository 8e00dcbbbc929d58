import random
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.browser import CHROMIUM, Browser

from cachedeval.evals.page.render import name_reports, render_page, write_page
from cachedeval.evals.report import ItemResult, Report, build_report

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

HOSTILE = (
    "</script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)> & \u202e"
    "reversed\u202c \x1b[31mred\x1b[0m \ud800 <!-- <a href='javascript:alert(3)'>"
)


def item(number: int, score: float | None, response: str, **more: object) -> ItemResult:
    fields = {
        "question": f"Question {number}?",
        "reference": "yes",
        "criteria": {} if score is None else {"clarity": score / 10, "truth": 5.0},
        "rationale": "It is clear.",
        "error": "timed_out: no reply in 60 s" if score is None else None,
    }
    return ItemResult(id=f"{number:06}", score=score, response=response, **{**fields, **more})  # type: ignore[arg-type]


def report(adapter: str | None, items: list[ItemResult], **about: object) -> Report:
    about = {"judge": "cerebras:m", "model": "tiny", "seed": 1, "rubric": "default", **about}
    return build_report(items, failures_count_zero=False, adapter=adapter, **about)  # type: ignore[arg-type]


def pair() -> list[Report]:
    scores = [(50.0, 90.0), (80.0, 70.0), (None, 60.0), (40.0, 40.0), (10.0, 95.0)]
    return [
        report(name, [item(n, both[at], f"the answer of {name}") for n, both in enumerate(scores)])
        for at, name in enumerate((None, "tuned"))
    ]


def many(questions: int, subjects: int) -> list[Report]:
    draw = random.Random(1)
    words = [
        "the",
        "capital",
        "of",
        "France",
        "lies",
        "on",
        "a",
        "river",
        "with",
        "many",
        "bridges",
    ]
    return [
        report(
            f"adapter-{at}",
            [
                item(n, draw.randrange(1001) / 10, " ".join(draw.choices(words, k=80)))
                for n in range(questions)
            ],
        )
        for at in range(subjects)
    ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def show(browser: Browser, folder: Path, reports: list[Report]) -> Path:
    path = folder / "page.html"
    write_page(path, reports)
    browser.requests.clear()
    browser.open(path)
    return path


def column(browser: Browser, at: int) -> list[str]:
    found = browser.run(
        "[...document.querySelectorAll('#questions > tbody > tr:not(.detail)')]"
        f".filter(row => !row.hidden).map(row => row.cells[{at}].innerText.split('\\n')[0])"
    )
    assert isinstance(found, list)
    return found


@needs_browser
@pytest.mark.slow
def test_questions_sort_filter_and_open_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, pair())
    assert column(browser, 1) == ["50.0", "80.0", "failed", "40.0", "10.0"]
    browser.run("document.querySelector('#questions th:nth-child(2) button').focus()")
    browser.press("Enter")
    assert column(browser, 1) == ["failed", "10.0", "40.0", "50.0", "80.0"]
    assert (
        browser.run("document.querySelector('#questions th:nth-child(2)').ariaSort") == "ascending"
    )
    browser.press(" ")
    assert column(browser, 1) == ["80.0", "50.0", "40.0", "10.0", "failed"]
    browser.press("Tab")  # the next column
    browser.press("Tab")  # the difference
    browser.press("Enter")
    assert column(browser, 3) == ["-10.0", "+0.0", "+40.0", "+85.0", "—"]
    browser.press("Tab")  # the first row
    browser.press("Enter")
    opened = browser.run("document.querySelector('#questions .detail').innerText")
    assert "the answer of None" in opened
    assert "tuned\nRationale" in opened
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    marked = browser.run(
        "[...document.querySelectorAll('.detail ins, .detail del')].map(e => e.innerText)"
    )
    assert marked == ["None", "tuned"]
    browser.press("Enter")
    assert browser.run("document.querySelector('#questions .detail')") is None
    for which, left in (("failed", 1), ("different", 4), ("truncated", 0), ("all", 5)):
        browser.run(
            f"{{const which = document.getElementById('which'); which.value = '{which}';"
            "which.dispatchEvent(new Event('change'));}"
        )
        assert len(column(browser, 0)) == left
        assert browser.run("document.getElementById('shown').innerText") == f"{left} of 5 questions"
    browser.run(
        "{const box = document.getElementById('search'); box.value = 'QUESTION 3';"
        "box.dispatchEvent(new Event('input'));}"
    )
    assert column(browser, 0) == ["Question 3?"]


@needs_browser
@pytest.mark.slow
def test_hostile_text_is_inert_and_readable(browser: Browser, tmp_path: Path) -> None:
    texts = {"question": HOSTILE, "reference": HOSTILE, "rationale": HOSTILE, "reasoning": HOSTILE}
    items = [
        item(1, 50.0, HOSTILE + "x" * 200_000, truncated=True, **texts),
        item(2, None, HOSTILE, error=f"bad: {HOSTILE}"),
    ]
    reports = [report(HOSTILE, items, model=HOSTILE, rubric=HOSTILE), report("b", items)]
    path = show(browser, tmp_path, reports)
    browser.run("document.querySelectorAll('#questions td button').forEach(b => b.click())")
    shown = browser.run("document.querySelector('.detail .text').innerText")
    assert "<script>alert(1)</script>" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    longest = browser.run(
        "Math.max(...[...document.querySelectorAll('.text')].map(e => e.innerText.length))"
    )
    assert longest > 200_000
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.images.length + document.links.length") == 0
    assert browser.dialogs == 0
    assert browser.requests == [path.as_uri()]
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 800, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_width(browser: Browser, tmp_path: Path, width: int, *, dark: bool) -> None:
    show(browser, tmp_path, pair())
    browser.run("document.querySelector('#questions td button').click()")
    browser.screenshot(tmp_path / "page.png", width=width, dark=dark)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    light = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not dark


@needs_browser
@pytest.mark.slow
def test_a_thousand_questions_of_five_evaluations(browser: Browser, tmp_path: Path) -> None:
    path = show(browser, tmp_path, many(1000, 5))
    assert path.stat().st_size < 5_000_000
    assert len(column(browser, 0)) == 1000
    browser.run("document.querySelector('#questions th:nth-child(3) button').click()")
    figures = [float(cell) for cell in column(browser, 2)]
    assert figures == sorted(figures)


class Outline(HTMLParser):
    """Checks that every element is closed, and collects the tags and the text."""

    VOID = frozenset({"meta", "line", "rect", "path", "br", "input", "polygon", "polyline"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_same_reports_give_the_same_bytes() -> None:
    assert render_page(pair()) == render_page(pair())


def test_the_page_is_well_formed_and_says_what_was_found() -> None:
    text = Outline(render_page(pair())).text
    assert "base and tuned" in text
    assert "45.0 (" in text
    assert "too few to tell; better on 2, worse on 1, the same on 1 of 4 questions" in text
    assert "1 timed_out" in text


def test_nothing_of_a_hostile_text_becomes_markup() -> None:
    items = [item(1, 50.0, HOSTILE, question=HOSTILE, criteria={HOSTILE: 1.0, "b": 2.0})]
    hostile = [
        report(HOSTILE, items, model=HOSTILE, judge=HOSTILE),
        report(None, items, judge="f1"),
    ]
    plain = [item(1, 50.0, "a", question="a", criteria={"a": 1.0, "b": 2.0})]
    harmless = [report("a", plain, model="a", judge="a"), report(None, plain, judge="f1")]
    assert Outline(render_page(hostile)).tags == Outline(render_page(harmless)).tags


def test_reports_of_other_questions_or_judges_are_shown_side_by_side() -> None:
    first, second = pair()
    other = report("other", [item(9, 30.0, "so")], judge="f1")
    text = Outline(render_page([first, second, other])).text
    assert "scores by different judges cannot be compared" in text
    assert "1 to 5 questions, scored by cerebras:m, f1" in text


def test_a_report_without_scores_and_one_of_one_question() -> None:
    for items in ([item(1, None, "")], [item(1, 100.0, "yes")]):
        Outline(render_page([report(None, items)]))
        Outline(render_page([report(None, items), report("a", items)]))


def test_names_tell_evaluations_apart() -> None:
    one = report("a", [item(1, 1.0, "")])
    other = report("a", [item(1, 1.0, "")], model="large")
    assert name_reports([one, other]) == ["a, tiny", "a, large"]
    assert name_reports([one, one]) == ["a", "a (2)"]
    assert name_reports([one, report(None, [])]) == ["a", "base"]
