import random

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.gates import fail_under, not_worse_than
from cachedeval.evals.report import ItemResult, Report, build_report
from cachedeval.evals.summary import summarize


def items(*scores: float | None) -> list[ItemResult]:
    return [
        ItemResult(
            id=str(number),
            question=f"{number}?",
            score=score,
            criteria={},
            error="timed_out: no reply" if score is None else None,
        )
        for number, score in enumerate(scores)
    ]


def report(*scores: float | None, adapter: str | None = None, judge: str = "f1") -> Report:
    return build_report(items(*scores), failures_count_zero=False, judge=judge, adapter=adapter)


def failures(loss: float, deviation: float, *, margin: float = 0.0, draws: int = 1000) -> float:
    """Return how often the gate fails for a true loss, with 100 questions."""
    draw = random.Random(7)
    failed = 0
    for _ in range(draws):
        before = [draw.uniform(30, 70) for _ in range(100)]
        after = [min(100.0, max(0.0, score + draw.gauss(-loss, deviation))) for score in before]
        new, old = (Report(judge="f1", items=items(*scores)) for scores in (after, before))
        failed += not not_worse_than(new, old, margin).passed
    return failed / draws


@pytest.mark.slow
def test_a_loss_fails_and_no_loss_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The gate does not use the p-value, which takes nearly all of the time.
    monkeypatch.setattr("cachedeval.evals.statistics._p_value", lambda _: 1.0)
    assert failures(5.0, 15.0) >= 0.8
    assert failures(0.0, 15.0) <= 0.05
    assert failures(2.0, 15.0, margin=2.0, draws=300) <= 0.05
    assert failures(7.0, 15.0, margin=2.0, draws=300) >= 0.8


def test_the_means_alone_do_not_decide() -> None:
    before, after = [50.0, 60.0, 40.0, 70.0, 30.0, 80.0], [90.0, 20.0, 70.0, 30.0, 60.0, 20.0]
    gate = not_worse_than(report(*after, adapter="new"), report(*before))
    assert gate.passed
    assert gate.message.startswith("not-worse-than passed: new differs by -6.7, 95% interval ")


def test_a_certain_loss_names_itself() -> None:
    before = [50.0 + n for n in range(20)]
    gate = not_worse_than(
        report(*(score - 9 - n % 3 for n, score in enumerate(before))), report(*before)
    )
    assert not gate.passed
    assert gate.message.endswith("on 20 pairs: more than 0.0 is lost")
    assert "base differs by -9.9, 95% interval -10." in gate.message


def test_too_few_pairs_pass_and_say_so() -> None:
    gate = not_worse_than(report(1.0, 2.0), report(99.0, 98.0))
    assert gate.passed
    assert "2 pairs are too few to tell" in gate.message


def test_reports_of_other_judges_are_refused() -> None:
    with pytest.raises(InputError, match=r"--not-worse-than: .*different judges"):
        not_worse_than(report(1.0), report(1.0, judge="exact"))


def test_the_least_mean_passes_and_no_score_fails() -> None:
    assert fail_under(report(70.0, 70.0), 70.0).passed
    assert not fail_under(report(70.0, 69.9), 70.0).passed
    assert fail_under(report(None), 0.0) == (False, "fail-under failed: base has no score")


def test_a_summary_shows_scores_gates_and_failures_and_no_markup() -> None:
    hostile = report(50.0, None, adapter="<b>|*x*\n")
    gates = [fail_under(hostile, 60.0), fail_under(hostile, 40.0)]
    text = summarize([report(80.0), hostile], gates)
    assert "| base | 80.0 |" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "❌ fail-under failed" in text
    assert "✅ fail-under passed" in text
    assert "- failed: 1?: timed\\_out: no reply" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4
