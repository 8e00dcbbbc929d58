"""Checks of one handle: stored values, the entries of a scan, and leases."""

import contextlib
import random
import time

from cachedeval.engine.backend import Entry, Label
from cachedeval.testing.contract import BackendUnderTest, check, expect, key

__all__: list[str] = []

_MANY = 5_000
"""Values that are stored in one call."""

_MANY_LEASES = 500
"""Leases that are held at a time."""

_SLACK = 2.0
"""Seconds by which a backend's clock may differ from this process's."""


@check()
def returns_stored_values(tested: BackendUnderTest) -> None:
    """A value can be read as soon as it is stored: the same bytes, as `bytes`."""
    backend = tested.open()
    items = {key(number): f"value {number}".encode() for number in range(20)}
    for one, value in items.items():
        backend.put_many({one: value})
        found = backend.get_many([one])
        expect(found == {one: value}, "a value is missing or different after it was stored")
        expect(type(found[one]) is bytes, f"a value is {type(found[one]).__name__}, not bytes")
    expect(backend.get_many(list(items)) == items, "some of 20 stored values are missing")


@check()
def returns_only_requested_keys(tested: BackendUnderTest) -> None:
    """`get_many` returns the keys that were requested and no others."""
    backend = tested.open()
    backend.put_many({key(number): b"%d" % number for number in range(10)})
    found = backend.get_many([key(3), key(7)])
    expect(found == {key(3): b"3", key(7): b"7"}, "get_many does not return the 2 requested of 10")


@check()
def omits_missing_keys(tested: BackendUnderTest) -> None:
    """`get_many` leaves out keys that are not stored; it does not raise for them."""
    backend = tested.open()
    expect(backend.get_many([key(1)]) == {}, "an empty backend returns a value")
    backend.put_many({key(2): b"two"})
    expect(backend.get_many([key(1), key(3)]) == {}, "a key that is not stored has a value")
    found = backend.get_many([key(1), key(2), key(3)])
    expect(found == {key(2): b"two"}, "a stored key among missing ones is not returned")


@check()
def accepts_empty_calls(tested: BackendUnderTest) -> None:
    """Calls without keys do nothing."""
    backend = tested.open()
    backend.put_many({})
    backend.touch_many({}, 1.0)
    expect(backend.get_many([]) == {}, "get_many([]) returns a value")
    expect(backend.delete_many([]) == 0, "delete_many([]) does not return 0")
    expect(backend.lease_many([]) == set(), "lease_many([]) does not return an empty set")
    backend.release_many([])


@check()
def replaces_existing_values(tested: BackendUnderTest) -> None:
    """The last value stored under a key replaces the ones before."""
    backend = tested.open()
    for value in (b"first", b"second", b"", b"a longer one" * 20_000, b"last"):
        backend.put_many({key(1): value, key(2): b"other"})
        expect(backend.get_many([key(1)]) == {key(1): value}, "put_many does not replace a value")
    expect(backend.get_many([key(2)]) == {key(2): b"other"}, "another key's value has changed")
    expect(len(list(backend.scan())) == 2, "scan yields a replaced key twice")  # noqa: PLR2004


@check()
def stores_empty_values(tested: BackendUnderTest) -> None:
    """An empty value is a value."""
    backend = tested.open()
    backend.put_many({key(1): b"", key(2): b"x"})
    found = backend.get_many([key(1), key(2), key(3)])
    expect(found == {key(1): b"", key(2): b"x"}, "an empty value is missing or different")
    expect(backend.delete_many([key(1)]) == 1, "delete_many does not count an empty value")


@check()
def stores_any_bytes(tested: BackendUnderTest) -> None:
    """Values are opaque: null bytes, invalid UTF-8, line breaks."""
    backend = tested.open()
    items = {
        key(1): bytes(range(256)),
        key(2): b"\x00" * 100,
        key(3): b"\xff\xfe invalid \xc3\x28 text",
        key(4): b"\x80\x04\x95",  # how a pickle begins
        key(5): b"line\r\nline\n\n",
    }
    backend.put_many(items)
    expect(backend.get_many(list(items)) == items, "a value of arbitrary bytes is different")


@check()
def stores_values_of_any_size(tested: BackendUnderTest) -> None:
    """Values from one byte to megabytes, around the limits that a format may have."""
    backend = tested.open()
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
        expect(same, f"a value of {len(value)} bytes is missing or different")


@check()
def stores_many_keys_at_once(tested: BackendUnderTest) -> None:
    """Thousands of keys in one call."""
    backend = tested.open()
    items = {key(number << 64 | number * 7): b"%d" % number * 9 for number in range(_MANY)}
    backend.put_many(items)
    found = backend.get_many(list(items))
    expect(found == items, f"of {_MANY} values stored in one call, {len(found)} are returned")
    expect(len(list(backend.scan())) == _MANY, f"scan does not yield {_MANY} entries")
    gone = list(items)[::2]
    expect(backend.delete_many(gone) == len(gone), "delete_many miscounts many deleted keys")
    found = backend.get_many(list(items))
    left = {one: value for one, value in items.items() if one not in set(gone)}
    expect(found == left, "deleting many keys left some, or deleted others")


@check()
def accepts_repeated_keys(tested: BackendUnderTest) -> None:
    """A key that occurs twice in a call is returned once and deleted once."""
    backend = tested.open()
    backend.put_many({key(1): b"one", key(2): b"two"})
    found = backend.get_many([key(1), key(2), key(1), key(9), key(9)])
    expect(found == {key(1): b"one", key(2): b"two"}, "get_many fails with a repeated key")
    expect(backend.delete_many([key(1), key(1)]) == 1, "delete_many does not count a key once")


@check()
def distinguishes_keys(tested: BackendUnderTest) -> None:
    """All 16 bytes of a key matter, and a byte may have any value."""
    backend = tested.open()
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
        expect(backend.get_many([one]) == {one: value}, f"the key {one!r} has another key's value")
    stored = {entry.key for entry in backend.scan()}
    expect(stored == set(items), "scan yields other keys than were stored")


@check()
def copies_mappings(tested: BackendUnderTest) -> None:
    """Changes to a mapping that the caller passed or received do not change stored values."""
    backend = tested.open()
    items = {key(1): b"one"}
    backend.put_many(items)
    items[key(1)] = b"changed"
    items[key(2)] = b"added"
    found = backend.get_many([key(1), key(2)])
    expect(found == {key(1): b"one"}, "a change to the mapping passed to put_many changes values")
    found.clear()
    expect(backend.get_many([key(1)]), "a change to the dict from get_many changes values")


@check()
def deletes_and_counts(tested: BackendUnderTest) -> None:
    """`delete_many` deletes those keys alone and returns how many were stored."""
    backend = tested.open()
    expect(backend.delete_many([key(1)]) == 0, "an empty backend counts a deleted key")
    backend.put_many({key(number): b"%d" % number for number in range(10)})
    gone = (key(number) for number in (1, 2, 99))
    expect(backend.delete_many(gone) == 2, "delete_many of 2 stored keys does not return 2")  # noqa: PLR2004
    expect(backend.get_many([key(1), key(2)]) == {}, "a deleted value is returned")
    left = backend.get_many([key(number) for number in range(10)])
    expect(len(left) == 8, "delete_many deleted other keys")  # noqa: PLR2004
    expect(backend.delete_many([key(1)]) == 0, "delete_many counts a key that was deleted before")
    backend.put_many({key(1): b"again"})
    expect(backend.get_many([key(1)]) == {key(1): b"again"}, "a deleted key cannot be stored again")


@check()
def behaves_like_a_dictionary(tested: BackendUnderTest) -> None:
    """Any sequence of puts, deletes and gets has the same results as on a dictionary."""
    backend = tested.open()
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
            stored = sum(model.pop(one, None) is not None for one in some)
            expect(backend.delete_many(some) == stored, f"step {step}: delete_many miscounts")
        elif action == "touch":
            backend.touch_many(dict.fromkeys(some, 1), 2e9 + step)
        expect(backend.get_many(keys) == model, f"step {step}: wrong values after a {action}")
        shown = sorted(entry.key for entry in backend.scan())
        expect(shown == sorted(model), f"step {step}: scan yields wrong keys after a {action}")


@check()
def closes_twice(tested: BackendUnderTest) -> None:
    """`close` works on an unused backend, on a used one, and on a closed one."""
    tested.open().close()
    backend = tested.open()
    backend.put_many({key(1): b"one"})
    backend.get_many([key(1)])
    backend.close()
    backend.close()


@check()
def scans_every_key_once(tested: BackendUnderTest) -> None:
    """A scan yields one entry for each stored key and none for other keys."""
    backend = tested.open()
    expect(list(backend.scan()) == [], "scan of an empty backend yields an entry")
    keys = [key(number) for number in range(300)]
    for one in keys:
        backend.put_many({one: b"x"})
    backend.put_many({keys[5]: b"again"})
    backend.delete_many(keys[:2])
    shown = [entry.key for entry in backend.scan()]
    expect(len(shown) == len(set(shown)), "scan yields a key twice")
    expect(set(shown) <= set(keys[2:]), "scan yields a key that is not stored")
    expect(set(shown) == set(keys[2:]), "scan misses a key")


@check()
def scans_while_keys_change(tested: BackendUnderTest) -> None:
    """Deletes and puts during a scan hide no key that was stored at its start."""
    backend = tested.open()
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
    expect(not missing, "scan misses keys after others were deleted")


@check()
def reports_sizes(tested: BackendUnderTest) -> None:
    """An entry's size is at least that of its value, and at most twice that plus 8 KiB."""
    backend = tested.open()
    sizes = {key(size): size for size in (0, 10, 1_000, 10_000, 100_000, 1_000_000)}
    backend.put_many({one: b"s" * size for one, size in sizes.items()})
    for entry in backend.scan():
        size = sizes[entry.key]
        right = size <= entry.size <= 2 * size + 8192
        expect(right, f"the entry of a value of {size} bytes has size {entry.size}")


@check()
def reports_creation_times(tested: BackendUnderTest) -> None:
    """An entry's time of creation is when its value was stored, or 0.0 if it is not recorded."""
    backend = tested.open()
    before = time.time()
    backend.put_many({key(1): b"one", key(2): b"two"})
    after = time.time()
    for entry in backend.scan():
        right = before - _SLACK <= entry.created <= after + _SLACK or entry.created == 0
        expect(right, f"the entry of a value stored at {before} has created={entry.created}")
        expect(entry.used == entry.created, "an entry that was never touched has a time of use")
        expect(entry.hits == 0, "an entry that was never touched has hits")


@check()
def counts_and_selects_as_it_scans(tested: BackendUnderTest) -> None:
    """`count` and `select` agree with `scan`, which yields labels as stored or none at all."""
    backend = tested.open()
    labels = {key(n): Label(f"label {n % 2}", float(n)) for n in range(9)}
    backend.put_labelled(dict.fromkeys(labels, b"value" * 30), labels)
    backend.put_many({key(20): b"no label", key(0): b"no label now"})
    expect(backend.get_many([key(1)]) == {key(1): b"value" * 30}, "put_labelled stores no value")
    backend.touch_many({key(1): 2, key(2): 1}, time.time() + 100)
    entries = list(backend.scan())
    for entry in entries:
        label = labels.get(entry.key) if entry.key != key(0) else None
        right = entry.label is None or (label is not None and entry.label == label.text)
        expect(right, f"scan yields label={entry.label!r} for a key stored with {label}")
    groups: dict[str | None, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.label, []).append(entry)
    counts = {count.label: count for count in backend.count()}
    expect(counts.keys() == groups.keys(), "count yields other labels than scan")
    for text, group in groups.items():
        count = counts[text]
        found = (count.values, count.size, count.hits)
        sums = (len(group), sum(e.size for e in group), sum(e.hits for e in group))
        expect(found == sums, f"count yields {found} for a label with {sums}, by scan")
        some = {entry.key for entry in backend.select(text)}
        expect(some == {entry.key for entry in group}, "select yields other entries than scan")
        used = {entry.key for entry in backend.select(text, used=True)}
        touched = {entry.key for entry in group if entry.hits}
        expect(used == touched, "select(used=True) does not yield the touched entries")
        newest = list(backend.select(text, newest=2))
        expect(len(newest) == min(2, len(group)), "select(newest=2) does not yield 2 entries")
    values = {count.label: count.values for count in backend.count(sizes=False)}
    wanted = {text: len(group) for text, group in groups.items()}
    expect(values == wanted, "count(sizes=False) counts other values than scan yields")


@check(uses=True)
def records_uses(tested: BackendUnderTest) -> None:
    """`touch_many` adds hits and sets the time of the last use, of those keys alone."""
    backend = tested.open()
    backend.put_many({key(1): b"one", key(2): b"two"})
    backend.get_many([key(1), key(2)])
    now = time.time()
    backend.touch_many({key(1): 2}, now + 100)
    backend.touch_many({key(1): 3}, now + 200)
    entries = {entry.key: entry for entry in backend.scan()}
    expect(entries[key(1)].hits == 2 + 3, f"2 and 3 hits make {entries[key(1)].hits}")
    expect(abs(entries[key(1)].used - (now + 200)) < 1, "touch_many does not set the last use")
    created = entries[key(1)].created
    expect(abs(created - now) <= _SLACK, f"a value stored at {now} has created={created}")
    expect(entries[key(2)].hits == 0, "touch_many or get_many added a hit to another key")
    expect(backend.get_many([key(1)]) == {key(1): b"one"}, "touch_many changed a value")


@check(uses=True)
def ignores_touches_of_missing_keys(tested: BackendUnderTest) -> None:
    """`touch_many` of a key that is not stored neither raises nor adds an entry."""
    backend = tested.open()
    backend.touch_many({key(1): 1}, time.time())
    backend.put_many({key(2): b"two"})
    backend.touch_many({key(1): 1, key(2): 1}, time.time() + 100)
    entries = {entry.key: entry.hits for entry in backend.scan()}
    expect(entries == {key(2): 1}, "touch_many of a missing key adds an entry, or skips another")
    expect(backend.get_many([key(1)]) == {}, "touch_many of a missing key stores a value")


@check(uses=True)
def deletes_uses_with_values(tested: BackendUnderTest) -> None:
    """A key that is stored again after it was deleted has no hits."""
    backend = tested.open()
    backend.put_many({key(1): b"one", key(2): b"two"})
    backend.touch_many({key(1): 5, key(2): 7}, time.time())
    backend.delete_many([key(1)])
    backend.put_many({key(1): b"one"})
    entries = {entry.key: entry.hits for entry in backend.scan()}
    expect(entries[key(1)] == 0, "the hits of a deleted value count for the next one")
    expect(entries[key(2)] == 7, "delete_many changed another key's hits")  # noqa: PLR2004


@check()
def grants_free_leases(tested: BackendUnderTest) -> None:
    """Leases that nobody holds are granted; without leases, every lease is."""
    backend = tested.open()
    keys = [key(number) for number in range(10)]
    with backend.lease(keys[0]) as granted:
        expect(granted is True, "lease refuses a free key")
    granted_many = backend.lease_many(keys)
    expect(granted_many == set(keys), "lease_many does not return the set of all free keys")
    backend.release_many(keys)


@check(leases=True)
def leases_are_exclusive(tested: BackendUnderTest) -> None:
    """While a key is leased, its lease is refused; other keys are free, and it is free later."""
    backend = tested.open()
    with backend.lease(key(1)) as first:
        expect(first is True, "a free lease is refused")
        with backend.lease(key(1)) as second, backend.lease(key(2)) as other:
            expect(second is False, "two callers hold one lease")
            expect(other is True, "the lease of one key excludes another key")
        with backend.lease(key(1)) as third:
            expect(third is False, "the end of a refused lease releases the holder's")
    with backend.lease(key(1)) as again:
        expect(again is True, "a released lease is refused")


@check(leases=True)
def leases_end_after_errors(tested: BackendUnderTest) -> None:
    """A lease ends with its context, also by an exception."""
    backend = tested.open()
    with contextlib.suppress(ZeroDivisionError), backend.lease(key(1)):
        raise ZeroDivisionError
    with backend.lease(key(1)) as again:
        expect(again is True, "a lease is still held after an exception in its context")


@check(leases=True)
def leases_never_wait(tested: BackendUnderTest) -> None:
    """A lease that is held is refused at once."""
    backend = tested.open()
    start = time.monotonic()
    with backend.lease(key(1)):
        for _ in range(10):
            with backend.lease(key(1)) as second:
                expect(second is False, "two callers hold one lease")
    expect(time.monotonic() - start < 2, "lease waits for a lease that is held")  # noqa: PLR2004


@check(leases=True)
def leases_hundreds_of_keys(tested: BackendUnderTest) -> None:
    """Hundreds of leases can be held at a time, acquired one by one or in one call."""
    backend = tested.open()
    keys = [key(number << 70 | number * 7) for number in range(2 * _MANY_LEASES)]
    one_by_one, at_once = keys[:_MANY_LEASES], keys[_MANY_LEASES:]
    with contextlib.ExitStack() as stack:
        granted = sum([stack.enter_context(backend.lease(one)) for one in one_by_one])
        expect(granted == _MANY_LEASES, f"of {_MANY_LEASES} free leases, {granted} are granted")
        granted = len(backend.lease_many(at_once))
        expect(granted == _MANY_LEASES, f"of {_MANY_LEASES} keys, lease_many grants {granted}")
        expect(backend.lease_many(keys) == set(), "two callers hold one of many leases")
    backend.release_many(at_once)
    expect(backend.lease_many(keys) == set(keys), "one of many released leases is refused")
    backend.release_many(keys)


@check(leases=True)
def leases_are_separate_from_values(tested: BackendUnderTest) -> None:
    """A lease is not a value, and blocks neither puts nor gets."""
    backend = tested.open()
    with backend.lease(key(1)):
        expect(backend.get_many([key(1)]) == {}, "a lease stores a value")
        expect(list(backend.scan()) == [], "a lease adds an entry")
        backend.put_many({key(1): b"one"})
        expect(backend.get_many([key(1)]) == {key(1): b"one"}, "a lease hides a value")
    expect(backend.get_many([key(1)]) == {key(1): b"one"}, "the end of a lease deletes a value")
    with backend.lease(key(1)) as again:
        expect(again is True, "the lease of a stored key is refused")


@check(leases=True)
def lease_many_grants_the_free_keys(tested: BackendUnderTest) -> None:
    """`lease_many` grants exactly those keys that are free, and `release_many` frees them."""
    backend = tested.open()
    keys = [key(number) for number in range(15)]
    backend.lease_many(keys[:10])
    granted = backend.lease_many(keys[5:])
    expect(granted == set(keys[10:]), "lease_many does not grant the 5 free keys of 10")
    expect(backend.lease_many(keys) == set(), "lease_many grants a key that is leased")
    backend.release_many(iter(keys[:3]))
    expect(backend.lease_many(keys) == set(keys[:3]), "release_many does not free its 3 keys alone")
    backend.release_many(keys)


@check(leases=True)
def lease_many_grants_a_repeated_key_once(tested: BackendUnderTest) -> None:
    """A key that occurs twice in a call is leased once, and one release frees it."""
    backend = tested.open()
    granted = backend.lease_many([key(1), key(2), key(1)])
    expect(granted == {key(1), key(2)}, "lease_many fails with a repeated key")
    backend.release_many([key(1)])
    expect(backend.lease_many([key(1)]) == {key(1)}, "a repeated key needs two releases")
    backend.release_many([key(1), key(1)])
    expect(backend.lease_many([key(1), key(2)]) == {key(1)}, "a repeated release frees other keys")
    backend.release_many([key(1), key(2)])


@check(leases=True)
def release_many_ignores_unleased_keys(tested: BackendUnderTest) -> None:
    """`release_many` of a key that is not leased neither raises nor changes other leases."""
    backend = tested.open()
    backend.release_many([key(1)])
    backend.lease_many([key(2)])
    backend.release_many([key(1)])
    expect(backend.lease_many([key(2)]) == set(), "releasing an unleased key frees another")
    backend.release_many([key(1), key(2), key(3)])
    free = {key(1), key(2), key(3)}
    expect(backend.lease_many(sorted(free)) == free, "an unleased key blocks the release of others")
    backend.release_many(free)


@check(leases=True)
def lease_and_lease_many_exclude_each_other(tested: BackendUnderTest) -> None:
    """A key has one lease, by `lease` or by `lease_many`."""
    backend = tested.open()
    with backend.lease(key(1)):
        granted = backend.lease_many([key(1), key(2)])
        expect(granted == {key(2)}, "lease_many grants a key that lease has leased")
        with backend.lease(key(2)) as second:
            expect(second is False, "lease grants a key that lease_many has leased")
    expect(backend.lease_many([key(1)]) == {key(1)}, "lease_many refuses a key that lease released")
    backend.release_many([key(1), key(2)])
    with backend.lease(key(2)) as again:
        expect(again is True, "lease refuses a key that release_many released")
