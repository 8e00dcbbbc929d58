"""Laws about leases: one holder at a time, no waiting, and freed by whatever ends the holder."""

import contextlib
import threading
import time

from cachedeval.engine.backend import Backend
from cachedeval.testing.law import Subject, expect, key, law
from cachedeval.testing.others import Child, Line, run_threads

__all__: list[str] = []

_MANY = 500
_RACERS = 8


@law()
def leases_to_one_holder(subject: Subject) -> None:
    """While one holds a key's lease nobody else gets it; other keys are free, and later it is."""
    backend = subject.open()
    with backend.lease(key(1)) as mine:
        expect(mine is True, "a free lease is refused")
        with backend.lease(key(1)) as second, backend.lease(key(2)) as other:
            expect(second is False, "two hold one lease")
            expect(other is True, "the lease of one key excludes another key")
        with backend.lease(key(1)) as third:
            expect(third is False, "the end of a refused lease ends the holder's")
    with backend.lease(key(1)) as again:
        expect(again is True, "a lease that has ended is refused")


@law()
def ends_a_lease_with_an_error(subject: Subject) -> None:
    """A lease ends with its context, however that ends."""
    backend = subject.open()
    with contextlib.suppress(ZeroDivisionError), backend.lease(key(1)):
        raise ZeroDivisionError
    with backend.lease(key(1)) as again:
        expect(again is True, "an error in its context leaves a lease held")


@law()
def leases_without_waiting(subject: Subject) -> None:
    """A lease that is taken is refused at once."""
    backend = subject.open()
    start = time.monotonic()
    with backend.lease(key(1)):
        for _ in range(10):
            with backend.lease(key(1)) as second:
                expect(second is False, "two hold one lease")
    expect(time.monotonic() - start < 2, "a lease that is taken makes others wait")  # noqa: PLR2004


@law()
def leases_to_one_thread(subject: Subject) -> None:
    """Of threads that try at once, one gets the lease."""
    backend = subject.open()
    for number in range(5):
        holders = _race(backend, key(number))
        expect(holders == 1, f"of {_RACERS} threads, {holders} hold one lease")


@law()
def leases_many_keys(subject: Subject) -> None:
    """Hundreds of leases at a time."""
    backend = subject.open()
    with contextlib.ExitStack() as stack:
        got = [stack.enter_context(backend.lease(key(n << 70 | n * 7))) for n in range(_MANY)]
        expect(all(got), f"of {_MANY} leases of different keys, {sum(got)} are given")
        with backend.lease(key(3 << 70 | 3 * 7)) as second:
            expect(second is False, "two hold one lease, while one holds many")


@law()
def leases_apart_from_values(subject: Subject) -> None:
    """A lease is not a value, and holds up neither puts nor gets."""
    backend = subject.open()
    with backend.lease(key(1)):
        expect(backend.get_many([key(1)]) == {}, "a lease makes a value")
        expect(list(backend.scan()) == [], "a lease makes an entry")
        backend.put_many({key(1): b"one"})
        expect(backend.get_many([key(1)]) == {key(1): b"one"}, "a lease hides a value")
    expect(backend.get_many([key(1)]) == {key(1): b"one"}, "the end of a lease ends a value")
    with backend.lease(key(1)) as again:
        expect(again is True, "the lease of a key that is held is refused")


@law(shared=True)
def leases_to_one_handle(subject: Subject) -> None:
    """Two handles exclude each other, and one that closes does not free another's lease."""
    one, other, third = subject.open(), subject.open(), subject.open()
    with one.lease(key(1)) as mine:
        expect(mine is True, "a free lease is refused")
        with other.lease(key(1)) as second:
            expect(second is False, "two handles hold one lease")
        other.put_many({key(2): b"two"})
        other.close()
        with third.lease(key(1)) as second:
            expect(second is False, "another handle's end frees a lease")
    with third.lease(key(1)) as again:
        expect(again is True, "a lease that has ended is refused to another handle")


@law(shared=True)
def leases_to_one_process(subject: Subject) -> None:
    """Two processes exclude each other, both ways round."""
    here = subject.open()

    def work(line: Line) -> None:
        there = subject.open()
        with there.lease(key(1)) as second, there.lease(key(2)) as mine:
            line.say(b"y" if mine and not second else b"n")
            line.hear()
        line.say()
        line.hear()

    with here.lease(key(1)) as first, Child(work) as child:
        expect(first is True, "a free lease is refused")
        expect(child.line.hear() == b"y", "two processes hold one lease, or a free one is refused")
        with here.lease(key(2)) as second:
            expect(second is False, "two processes hold one lease")
        child.line.say()
        expect(child.line.hear(), "another process fails")
        with here.lease(key(2)) as second:
            expect(second is True, "a lease that has ended is refused to another process")
        # The holder's other handles come and go; its lease stays.
        passing = subject.open()
        passing.put_many({key(9): b"nine"})
        passing.close()
        with here.lease(key(3)):
            pass
        expect(not _free_there(subject), "a lease is lost when its process closes another handle")
    expect(_free_there(subject), "a lease that has ended is refused to another process")


@law(shared=True)
def frees_the_leases_of_the_dead(subject: Subject) -> None:
    """A process that is killed holds no lease any more, and nobody has to clean up after it."""
    here = subject.open()

    def work(line: Line) -> None:
        with subject.open().lease(key(1)) as mine:
            line.say(b"y" if mine else b"n")
            line.hear()

    for _ in range(3):
        with Child(work) as child:
            expect(child.line.hear() == b"y", "the lease of a killed holder stays taken")
            with here.lease(key(1)) as second:
                expect(second is False, "two processes hold one lease")
            child.kill()
        deadline = time.monotonic() + 1
        while not _free(here):
            expect(time.monotonic() < deadline, "the lease of a killed holder stays taken")
            time.sleep(0.01)


def _race(backend: Backend, one: bytes) -> int:
    """Let threads try for a lease at once, and hold on until all have tried; how many got it."""
    start, end = threading.Barrier(_RACERS), threading.Barrier(_RACERS)
    got: list[bool] = []

    def run(_: int) -> None:
        start.wait(30)
        try:
            with backend.lease(one) as mine:
                got.append(mine)
                end.wait(30)
        except BaseException:
            end.abort()
            raise

    run_threads(run, _RACERS)
    return sum(got)


def _free(backend: Backend) -> bool:
    with backend.lease(key(1)) as mine:
        return mine


def _free_there(subject: Subject) -> bool:
    """Whether another process can have the lease."""
    with Child(lambda line: line.say(b"y" if _free(subject.open()) else b"n")) as child:
        answer = child.line.hear()
        expect(answer, "another process cannot ask for a lease")
        return answer == b"y"
