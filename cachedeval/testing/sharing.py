"""Laws about who sees a value, and how long: threads, handles, processes, the next day."""

import time
from collections.abc import Callable

from cachedeval.testing.law import Subject, expect, key, law
from cachedeval.testing.others import Child, Line, run_threads

__all__: list[str] = []

_LARGE = b"large" * 40_000


@law()
def closes_twice(subject: Subject) -> None:
    """Closing is harmless: unused, used, and again."""
    subject.open().close()
    backend = subject.open()
    backend.put_many({key(1): b"one"})
    backend.get_many([key(1)])
    backend.close()
    backend.close()


@law()
def serves_many_threads(subject: Subject) -> None:
    """Threads put, get, touch, scan and delete at once; none fails and nothing is lost."""
    backend = subject.open()
    backend.put_many({key(0): b"shared"})

    def work(number: int) -> None:
        for step in range(15):
            mine = key(1000 * number + step)
            backend.put_many({mine: b"%d" % step, key(0): b"shared"})
            found = backend.get_many([mine, key(0)])
            expect(found == {mine: b"%d" % step, key(0): b"shared"}, "a thread misses its value")
            backend.touch_many({mine: 1}, time.time())
            if step % 5 == 0:
                expect(mine in {entry.key for entry in backend.scan()}, "a scan misses a value")
                expect(backend.delete_many([mine]) == 1, "a thread cannot delete its value")

    run_threads(work, 6)
    keys = [key(1000 * number + step) for number in range(1, 7) for step in range(15)]
    left = len(backend.get_many(keys))
    expect(left == 6 * 12, f"six threads left {left} values, and not {6 * 12}")


@law(persistent=True)
def outlives_its_handle(subject: Subject) -> None:
    """What was put is there when the place is opened again, its use and its times too."""
    backend = subject.open()
    items = {key(1): b"one", key(2): b"", key(3): _LARGE}
    backend.put_many(items)
    backend.touch_many({key(1): 3}, time.time() + 100)
    backend.delete_many([key(2)])
    del items[key(2)]
    before = sorted(backend.scan())
    backend.close()
    backend = subject.open()
    expect(backend.get_many([key(1), key(2), key(3)]) == items, "closed and opened, it differs")
    expect(sorted(backend.scan()) == before, "closed and opened, a scan differs")


@law(persistent=True)
def outlives_its_process(subject: Subject) -> None:
    """What a put has returned from is kept, even if the process is killed at that moment."""

    def work(line: Line) -> None:
        backend = subject.open()
        for number in range(10):
            backend.put_many({key(number): b"%d" % number, key(100 + number): _LARGE})
        line.say()
        line.hear()

    with Child(work) as child:
        expect(child.line.hear(), "another process cannot put")
        child.kill()
    keys = [key(base + number) for base in (0, 100) for number in range(10)]
    found = subject.open().get_many(keys)
    expect(len(found) == len(keys), f"a killed process had put {len(keys)}, {len(found)} are held")
    expect(found[key(7)] == b"7" and found[key(107)] == _LARGE, "and these are others")


@law(shared=True)
def shows_one_handle_what_another_does(subject: Subject) -> None:
    """Puts, overwrites, deletes and touches of one handle are seen by another at once."""
    one, other = subject.open(), subject.open()
    expect(other.get_many([key(1)]) == {}, "an empty backend returns a value")
    one.put_many({key(1): b"one", key(2): _LARGE})
    expect(other.get_many([key(1), key(2)]) == {key(1): b"one", key(2): _LARGE}, "a put is unseen")
    other.put_many({key(1): b"new"})
    expect(one.get_many([key(1)]) == {key(1): b"new"}, "an overwrite is unseen")
    other.touch_many({key(1): 2}, time.time() + 100)
    expect({entry.hits for entry in one.scan()} == {0, 2}, "a touch is unseen")
    expect(one.delete_many([key(2)]) == 1, "another handle's value cannot be deleted")
    expect(other.get_many([key(1), key(2)]) == {key(1): b"new"}, "a delete is unseen")
    one.close()
    expect(other.get_many([key(1)]) == {key(1): b"new"}, "one handle's end is another's")


@law(shared=True)
def shows_one_process_what_another_does(subject: Subject) -> None:
    """The same between two processes."""
    here = subject.open()
    here.put_many({key(1): b"one", key(2): b"two"})

    def work(line: Line) -> None:
        there = subject.open()
        line.say(b"y" if there.get_many([key(1)]) == {key(1): b"one"} else b"n")
        there.put_many({key(1): b"new", key(3): _LARGE})
        there.delete_many([key(2)])
        line.say()
        line.hear()
        line.say(b"y" if there.get_many([key(4)]) == {key(4): b"four"} else b"n")

    with Child(work) as child:
        expect(child.line.hear() == b"y", "another process does not see a put")
        expect(child.line.hear(), "another process cannot put and delete")
        found = here.get_many([key(1), key(2), key(3)])
        expect(found == {key(1): b"new", key(3): _LARGE}, "another process's puts are unseen")
        here.put_many({key(4): b"four"})
        child.line.say()
        expect(child.line.hear() == b"y", "a process does not see a put made since it opened")
        child.finish()


@law(shared=True)
def serves_many_processes(subject: Subject) -> None:
    """Four processes open one empty place at once and put; nothing fails and nothing is lost."""

    def work(number: int) -> Callable[[Line], None]:
        def put(line: Line) -> None:
            line.hear()
            backend = subject.open()
            for step in range(10):
                backend.put_many({key(100 * number + step): b"%d" % step, key(0): b"shared"})

        return put

    with Child(work(1)) as one, Child(work(2)) as two, Child(work(3)) as three, Child(work(4)) as f:
        children = (one, two, three, f)
        for child in children:
            child.line.say()
        for child in children:
            child.finish()
    keys = [key(100 * number + step) for number in range(1, 5) for step in range(10)]
    found = subject.open().get_many([*keys, key(0)])
    expect(len(found) == 41, f"four processes put 41 values, {len(found)} are held")  # noqa: PLR2004
