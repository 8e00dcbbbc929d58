"""Laws about what is kept: bytes come back as they went in, under their key alone."""

import random

from cachedeval.testing.law import Subject, expect, key, law

__all__: list[str] = []

_MANY = 5_000


@law()
def returns_what_it_was_given(subject: Subject) -> None:
    """A value comes back whole, at once, as `bytes`."""
    backend = subject.open()
    items = {key(number): f"value {number}".encode() for number in range(20)}
    for one, value in items.items():
        backend.put_many({one: value})
        found = backend.get_many([one])
        expect(found == {one: value}, "a value is not there, or not itself, after its put")
        expect(type(found[one]) is bytes, f"a value is {type(found[one]).__name__}, not bytes")
    expect(backend.get_many(list(items)) == items, "not all values are there after their puts")


@law()
def returns_only_what_was_asked_for(subject: Subject) -> None:
    """Asking for some keys returns those."""
    backend = subject.open()
    backend.put_many({key(number): b"%d" % number for number in range(10)})
    found = backend.get_many([key(3), key(7)])
    expect(found == {key(3): b"3", key(7): b"7"}, "asked for two of ten, it did not return two")


@law()
def leaves_out_what_it_does_not_hold(subject: Subject) -> None:
    """A key that is not held is no error, whatever is beside it."""
    backend = subject.open()
    expect(backend.get_many([key(1)]) == {}, "an empty backend returns a value")
    backend.put_many({key(2): b"two"})
    expect(backend.get_many([key(1), key(3)]) == {}, "a key that is not held has a value")
    found = backend.get_many([key(1), key(2), key(3)])
    expect(found == {key(2): b"two"}, "among keys that are not held, one that is goes wrong")


@law()
def takes_nothing_for_an_answer(subject: Subject) -> None:
    """Calls without keys do nothing."""
    backend = subject.open()
    backend.put_many({})
    backend.touch_many({}, 1.0)
    expect(backend.get_many([]) == {}, "asked for nothing, it returns something")
    expect(backend.delete_many([]) == 0, "asked to delete nothing, it counts something")


@law()
def overwrites(subject: Subject) -> None:
    """The last value put under a key is the one that is held."""
    backend = subject.open()
    for value in (b"first", b"second", b"", b"a longer one" * 20_000, b"last"):
        backend.put_many({key(1): value, key(2): b"other"})
        expect(backend.get_many([key(1)]) == {key(1): value}, "a put did not overwrite")
    expect(backend.get_many([key(2)]) == {key(2): b"other"}, "a put harmed another key's value")
    expect(len(list(backend.scan())) == 2, "a key that was overwritten is held twice")  # noqa: PLR2004


@law()
def keeps_empty_values(subject: Subject) -> None:
    """An empty value is a value."""
    backend = subject.open()
    backend.put_many({key(1): b"", key(2): b"x"})
    found = backend.get_many([key(1), key(2), key(3)])
    expect(found == {key(1): b"", key(2): b"x"}, "an empty value is not held, or is another")
    expect(backend.delete_many([key(1)]) == 1, "an empty value is not counted when deleted")


@law()
def keeps_any_bytes(subject: Subject) -> None:
    """Values are opaque: no text, no marks, no programs."""
    backend = subject.open()
    items = {
        key(1): bytes(range(256)),
        key(2): b"\x00" * 100,
        key(3): b"\xff\xfe invalid \xc3\x28 text",
        key(4): b"\x80\x04\x95",  # how a pickle begins
        key(5): b"line\r\nline\n\n",
    }
    backend.put_many(items)
    expect(backend.get_many(list(items)) == items, "some bytes are not kept as they are")


@law()
def keeps_values_of_any_size(subject: Subject) -> None:
    """From one byte to megabytes, around every border that a format may have."""
    backend = subject.open()
    noise = random.Random(1).randbytes(2_000_003)  # noqa: S311  noise
    sizes = [
        1,
        *(2**power + more for power in (8, 12, 15, 16, 17) for more in (-1, 0, 1)),
        len(noise),
    ]
    items = {key(size): noise[:size] for size in sizes}
    backend.put_many(items)
    for one, value in items.items():
        same = backend.get_many([one]).get(one) == value
        expect(same, f"a value of {len(value)} bytes is not kept")


@law()
def keeps_many_at_once(subject: Subject) -> None:
    """Thousands of keys in one call."""
    backend = subject.open()
    items = {key(number << 64 | number * 7): b"%d" % number * 9 for number in range(_MANY)}
    backend.put_many(items)
    found = backend.get_many(list(items))
    expect(found == items, f"of {_MANY} values put at once, {len(found)} are there")
    expect(len(list(backend.scan())) == _MANY, "a scan does not show them all")
    gone = list(items)[::2]
    expect(backend.delete_many(gone) == len(gone), "of many deleted at once, not all are counted")
    found = backend.get_many(list(items))
    left = {one: value for one, value in items.items() if one not in set(gone)}
    expect(found == left, "of many deleted at once, some are left, or others are gone")


@law()
def takes_a_key_twice(subject: Subject) -> None:
    """A key that is asked for twice is returned once, and deleted once."""
    backend = subject.open()
    backend.put_many({key(1): b"one", key(2): b"two"})
    found = backend.get_many([key(1), key(2), key(1), key(9), key(9)])
    expect(found == {key(1): b"one", key(2): b"two"}, "a key that is asked for twice goes wrong")
    expect(backend.delete_many([key(1), key(1)]) == 1, "a key deleted twice is not counted once")


@law()
def tells_keys_apart(subject: Subject) -> None:
    """All 16 bytes of a key count, and all values of a byte."""
    backend = subject.open()
    odd = [
        b"\x00" * 16,
        b"\xff" * 16,
        b"\x00" * 15 + b"\x01",
        b"\x01" + b"\x00" * 15,
        b"abcdefghijklmnop",
        b"ABCDEFGHIJKLMNOP",
        b"../../etc/passwd",
        b"a\x00b\x00c\x00d\x00e\x00f\x00g\x00h\x00",
        b"\n\r\t '\"%*?;[]()`",
        b"\x80\xfe\xff\xc0\xc1\xf5" + b"\xed\xa0\x80" + b"       ",
        *(bytes(1 << at % 8 if at // 8 == byte else 0 for byte in range(16)) for at in range(128)),
    ]
    items = {one: one[::-1] + b"!" for one in odd}
    backend.put_many(items)
    for one, value in items.items():
        expect(backend.get_many([one]) == {one: value}, f"the key {one!r} is taken for another")
    held = {entry.key for entry in backend.scan()}
    expect(held == set(items), "a scan returns other keys than were put")


@law()
def keeps_no_hold_on_the_callers_objects(subject: Subject) -> None:
    """What the caller does with its mapping later changes nothing, and the other way round."""
    backend = subject.open()
    items = {key(1): b"one"}
    backend.put_many(items)
    items[key(1)] = b"changed"
    items[key(2)] = b"added"
    found = backend.get_many([key(1), key(2)])
    expect(found == {key(1): b"one"}, "the caller's mapping is the backend's memory")
    found.clear()
    expect(backend.get_many([key(1)]), "the mapping that it returned is the backend's memory")


@law()
def deletes(subject: Subject) -> None:
    """What is deleted is gone, the rest stays, and what was held is counted."""
    backend = subject.open()
    expect(backend.delete_many([key(1)]) == 0, "an empty backend deletes something")
    backend.put_many({key(number): b"%d" % number for number in range(10)})
    gone = (key(number) for number in (1, 2, 99))
    expect(backend.delete_many(gone) == 2, "deleting two that are held and one that is not")  # noqa: PLR2004
    expect(backend.get_many([key(1), key(2)]) == {}, "a deleted value is still there")
    left = backend.get_many([key(number) for number in range(10)])
    expect(len(left) == 8, "deleting harmed other keys")  # noqa: PLR2004
    expect(backend.delete_many([key(1)]) == 0, "a deleted value is counted again")
    backend.put_many({key(1): b"again"})
    expect(backend.get_many([key(1)]) == {key(1): b"again"}, "a deleted key cannot be put again")


@law()
def does_as_a_dictionary_does(subject: Subject) -> None:
    """Any sequence of puts, deletes and gets ends as it does on a dictionary."""
    backend = subject.open()
    model: dict[bytes, bytes] = {}
    chance = random.Random(2)  # noqa: S311  a script
    keys = [key(number) for number in range(12)]
    for step in range(150):
        some = chance.sample(keys, chance.randint(1, 5))
        action = chance.choice(["put", "put", "delete", "touch", "get"])
        if action == "put":
            items = {one: b"%d" % step * chance.choice([1, 50, 40_000]) for one in some}
            backend.put_many(items)
            model.update(items)
        elif action == "delete":
            held = sum(model.pop(one, None) is not None for one in some)
            expect(backend.delete_many(some) == held, f"step {step}: the deleted are miscounted")
        elif action == "touch":
            backend.touch_many(dict.fromkeys(some, 1), 2e9 + step)
        expect(backend.get_many(keys) == model, f"step {step}: after a {action} it differs")
        shown = sorted(entry.key for entry in backend.scan())
        expect(shown == sorted(model), f"step {step}: after a {action} the scan differs")
