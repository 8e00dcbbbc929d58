import threading

from cachedeval import Computed, Engine, node


@node(version="1", name="paid")
def paid(x: int) -> Computed[int]:
    if x < 0:
        raise ValueError(x)
    return Computed(x, cost={"usd": 0.25})


def test_calls_hits_computed_failed() -> None:
    with Engine() as engine:
        assert engine.stats == {}
        engine.settle([paid(1), paid(1), paid(2), paid(-1)])
        engine.settle([paid(1), paid(-1)])
        stats = engine.stats["paid"]
        assert stats.as_dict() == {"calls": 6, "hits": 2, "computed": 2, "failed": 2}
        assert repr(stats) == "6 calls: 2 hits, 2 computed, 2 failed"
        assert stats.cost == {"usd": 0.5}
        assert stats.saved["usd"] == 0.5
        assert stats.seconds > 0
        assert stats.saved.keys() == {"usd", "seconds"}


def test_a_call_given_twice_counts_once() -> None:
    call = paid(1)
    with Engine() as engine:
        assert engine.run([call, call]) == [1, 1]
        assert engine.stats["paid"].calls == 1


def test_many_threads_lose_no_count() -> None:
    with Engine() as engine:
        engine.run(paid(1))
        threads = [
            threading.Thread(target=lambda: [engine.run([paid(1)] * 3) for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.stats["paid"].hits == 400
