"""Laws about what is told of the values: sizes, times, uses."""

import time

from cachedeval.testing.law import Subject, expect, key, law

__all__: list[str] = []

_SLACK = 2.0
"""Seconds by which a backend's clock may differ from ours."""


@law()
def scans_every_key_once(subject: Subject) -> None:
    """A scan shows what is held, all of it, each once, and nothing else."""
    backend = subject.open()
    expect(list(backend.scan()) == [], "an empty backend shows an entry")
    keys = [key(number) for number in range(300)]
    for one in keys:
        backend.put_many({one: b"x"})
    backend.put_many({keys[5]: b"again"})
    backend.delete_many(keys[:2])
    shown = [entry.key for entry in backend.scan()]
    expect(len(shown) == len(set(shown)), "a scan shows a key twice")
    expect(set(shown) <= set(keys[2:]), "a scan shows a key that is not held")
    expect(set(shown) == set(keys[2:]), "a scan misses a key")


@law()
def scans_what_was_held_at_its_start(subject: Subject) -> None:
    """Deleting and putting while a scan goes on does not disturb it."""
    backend = subject.open()
    keys = [key(number) for number in range(1000)]
    backend.put_many(dict.fromkeys(keys, b"value"))
    shown = []
    for entry in backend.scan():
        shown.append(entry.key)
        backend.delete_many([entry.key])
        if len(shown) == 10:  # noqa: PLR2004
            backend.put_many({key(5000 + number): b"new" for number in range(50)})
        if len(shown) > len(keys) + 50:
            break
    missing = set(keys) - set(shown)
    expect(not missing, "a scan in which entries are deleted misses others")


@law()
def tells_sizes(subject: Subject) -> None:
    """A size is the room that a value takes: not less than its bytes, and little more."""
    backend = subject.open()
    sizes = {key(size): size for size in (0, 10, 1_000, 10_000, 100_000, 1_000_000)}
    backend.put_many({one: b"s" * size for one, size in sizes.items()})
    for entry in backend.scan():
        size = sizes[entry.key]
        expect(entry.size >= size, f"a value of {size} bytes is said to take {entry.size}")
        expect(entry.size <= 2 * size + 8192, f"one of {size} bytes is said to take {entry.size}")


@law()
def tells_when_a_value_was_put(subject: Subject) -> None:
    """A new entry was created now, used at the same time, and never touched."""
    backend = subject.open()
    before = time.time()
    backend.put_many({key(1): b"one", key(2): b"two"})
    after = time.time()
    for entry in backend.scan():
        expect(
            before - _SLACK <= entry.created <= after + _SLACK,
            f"a value put at {before} is said to be created at {entry.created}",
        )
        expect(entry.used == entry.created, "a value that was never touched has a time of use")
        expect(entry.hits == 0, "a value that was never touched has hits")


@law()
def notes_use(subject: Subject) -> None:
    """A touch adds hits and sets the time of the last use, of that key alone."""
    backend = subject.open()
    backend.put_many({key(1): b"one", key(2): b"two"})
    backend.get_many([key(1), key(2)])
    now = time.time()
    backend.touch_many({key(1): 2}, now + 100)
    backend.touch_many({key(1): 3}, now + 200)
    entries = {entry.key: entry for entry in backend.scan()}
    expect(entries[key(1)].hits == 2 + 3, f"2 and 3 hits make {entries[key(1)].hits}")
    expect(abs(entries[key(1)].used - (now + 200)) < 1, "a touch does not set the last use")
    expect(entries[key(1)].created <= now + _SLACK, "a touch changed the time of creation")
    expect(entries[key(2)].hits == 0, "a touch, or a get, touched another key")
    expect(backend.get_many([key(1)]) == {key(1): b"one"}, "a touch changed a value")


@law()
def ignores_touches_of_what_it_does_not_hold(subject: Subject) -> None:
    """Touching a key that is not held is no error and makes no entry."""
    backend = subject.open()
    backend.touch_many({key(1): 1}, time.time())
    backend.put_many({key(2): b"two"})
    backend.touch_many({key(1): 1, key(2): 1}, time.time() + 100)
    entries = {entry.key: entry.hits for entry in backend.scan()}
    expect(entries == {key(2): 1}, "a touch of an unknown key made an entry, or hid another's")
    expect(backend.get_many([key(1)]) == {}, "a touch of an unknown key made a value")


@law()
def forgets_the_use_of_what_is_deleted(subject: Subject) -> None:
    """A key that is put again after it was deleted begins anew."""
    backend = subject.open()
    backend.put_many({key(1): b"one", key(2): b"two"})
    backend.touch_many({key(1): 5, key(2): 7}, time.time())
    backend.delete_many([key(1)])
    backend.put_many({key(1): b"one"})
    entries = {entry.key: entry.hits for entry in backend.scan()}
    expect(entries[key(1)] == 0, "a deleted value's hits are its successor's")
    expect(entries[key(2)] == 7, "a delete changed another key's hits")  # noqa: PLR2004
