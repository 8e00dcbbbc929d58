import math

from hypothesis import given
from hypothesis import strategies as st

from cachedeval.services.windows import SlidingWindow

steps = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0.5, 12)), min_size=1, max_size=80
)  # pause, amount


@given(steps)
def test_no_period_ever_holds_more_than_the_limit(plan: list[tuple[float, float]]) -> None:
    window = SlidingWindow(limit=20, period=10)
    now = 100.0
    sent: list[tuple[float, float]] = []
    for pause, amount in plan:
        now += pause
        for _ in range(1000):
            if (delay := window.delay(now, amount)) == 0:
                break
            now += delay
        window.add(now, amount)
        sent.append((now, amount))
    for end, _ in sent:
        within = sum(amount for at, amount in sent if end - 10 <= at <= end)
        assert within <= 20 + 1e-6


@given(steps)
def test_what_is_let_in_at_the_delay_it_named_fits(plan: list[tuple[float, float]]) -> None:
    window = SlidingWindow(limit=20, period=10)
    now = 0.0
    for pause, amount in plan:
        now += pause
        delay = window.delay(now, amount)
        assert 0 <= delay <= 10 * 1.02
        assert window.delay(now + delay + 1e-9, amount) <= 1e-6
        now += delay + 1e-9
        window.add(now, amount)


def test_a_refund_makes_room_at_once() -> None:
    window = SlidingWindow(limit=10, period=60)
    held = window.add(0, 10)
    assert window.delay(1, 4) > 50
    window.settle(1, held, 5)
    assert window.delay(1, 4) == 0
    window.settle(100, held, 500)  # it has fallen out by then
    assert window.held(100) == 0


def test_more_than_the_limit_goes_when_the_window_is_empty() -> None:
    window = SlidingWindow(limit=10, period=60)
    assert window.delay(0, 1000) == 0
    window.add(0, 10)
    assert 60 <= window.delay(0, 1000) < 62


def test_what_is_reserved_is_not_used_and_where_all_is_one_looks_again() -> None:
    window = SlidingWindow(limit=10, period=60)
    window.reserved = 6
    assert window.delay(0, 4) == 0
    window.add(0, 1)
    assert window.delay(0, 4) > 0
    window.reserved = 11
    assert window.delay(0, 1) == 3


def test_one_that_was_long_on_its_way_is_held_from_its_arrival() -> None:
    window = SlidingWindow(limit=1, period=60)
    held = window.add(0, 1)
    window.restart(5, held)
    assert window.delay(61, 1) > 3
    assert window.delay(66, 1) == 0


def test_without_a_limit_there_is_no_delay() -> None:
    window = SlidingWindow(limit=math.inf, period=60)
    for _ in range(5):
        window.add(0, 1e9)
    assert window.delay(0, 1e9) == 0
