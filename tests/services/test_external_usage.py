from cachedeval.services.windows import ExternalUsage


def test_we_alone_are_not_taken_for_others() -> None:
    others = ExternalUsage(60)
    left, sent = 1000, 0
    for second in range(120):
        sent += 5  # of which the reply's service has seen three
        others.see_day(second, left - (sent - 2), sent=sent, sent_then=sent - 4)
        assert others.requests(second) == 0


def test_external_requests_are_estimated_from_the_daily_counter() -> None:
    others = ExternalUsage(60)
    for second in range(300):
        ours, theirs = second, second // 2
        others.see_day(second, 10_000 - ours - theirs, sent=ours, sent_then=ours)
        if second > 10:
            assert 25 <= others.requests(second) <= 40, second


def test_external_usage_that_stops_expires_within_two_minutes() -> None:
    others = ExternalUsage(60)
    for second in range(400):
        ours, theirs = second, min(second, 100)
        others.see_day(second, 10_000 - ours - theirs, sent=ours, sent_then=ours)
    assert others.requests(400) == 0


def test_a_new_day_begins_anew() -> None:
    others = ExternalUsage(60)
    others.see_day(0, 100, sent=10, sent_then=10)
    others.see_day(30, 50, sent=11, sent_then=11)
    assert others.requests(30) > 0
    others.see_day(31, 14_400, sent=12, sent_then=12)
    assert others.requests(40) == 0


def test_tokens_are_the_most_that_was_seen_within_a_minute() -> None:
    others = ExternalUsage(60)
    for at, seen in ((0, 500), (10, 900), (20, 300), (25, -80)):
        others.see_tokens(at, seen)
    assert others.tokens(25) == 900
    assert others.tokens(69) == 900
    assert others.tokens(71) == 300
    assert others.tokens(90) == 0
