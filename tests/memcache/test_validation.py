"""Arguments: what passes, what is refused, and what is said about it."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from rain.memcache import validation

BAD_KEYS = [b"", b"x" * 251, *(b"ab" + bytes([byte]) + b"cd" for byte in (*range(33), 127))]
WRONG_KEYS: list[Any] = ["text", bytearray(b"key"), memoryview(b"key"), 1, None]


class Key(bytes):
    """A subclass is bytes, too."""


@pytest.mark.parametrize("key", [b"a", b"x" * 250, bytes(range(33, 127)), bytes(range(128, 256)), Key(b"key")])
def test_good_keys(key: bytes):
    validation.check_key(key)
    assert validation.check_keys([key]) == [key]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys(key: bytes):
    """Refused alone and among good ones."""
    with pytest.raises(ValueError, match=r"a key (must|has)"):
        validation.check_key(key)
    with pytest.raises(ValueError, match=r"a key (must|has)"):
        validation.check_keys([b"good", key, b"better"])


@pytest.mark.parametrize("key", WRONG_KEYS)
def test_keys_of_wrong_types(key: Any):
    for check in (validation.check_key, lambda key: validation.check_keys([b"good", key])):
        with pytest.raises(TypeError, match=f"a key must be bytes, not {type(key).__name__}"):
            check(key)


def test_what_is_said_about_keys():
    with pytest.raises(ValueError, match="must not be empty"):
        validation.check_key(b"")
    with pytest.raises(ValueError, match=r"at most 250 bytes, this one has 300: b'x{40}'"):
        validation.check_key(b"x" * 300)
    with pytest.raises(ValueError, match="blanks or control characters: b'a b'"):
        validation.check_key(b"a b")


def test_many_keys():
    """Any iterable, consumed once; repetitions go, order stays."""
    assert validation.check_keys(key for key in (b"b", b"a", b"b", b"c")) == [b"b", b"a", b"c"]
    assert validation.check_keys([]) == []
    assert validation.check_keys([Key(b"a"), b"a"]) == [b"a"]
    with pytest.raises(TypeError, match="not int"):
        validation.check_keys(b"key")  # type: ignore[arg-type]


def test_values():
    """All contiguous buffers as their bytes; bytes themselves uncopied."""
    value = b"value"
    assert validation.check_value(value) is value
    for given, expected in [
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[2:4], b"cd"),
        (array("H", [1, 2]), array("H", [1, 2]).tobytes()),
        (memoryview(b"abcd").cast("B", (2, 2)), b"abcd"),
        (bytearray(), b""),
        (b"", b""),
    ]:
        checked = validation.check_value(given)
        assert bytes(checked) == expected
        assert len(checked) == len(expected)


def test_a_value_that_may_change_is_copied():
    """A transport may hold a large one beyond the call, which returns early with `noreply` and when cancelled."""
    array_of_bytes = bytearray(b"abc")
    checked = validation.check_value(array_of_bytes)
    array_of_bytes[0] = ord("x")
    assert checked == b"abc"
    assert isinstance(validation.check_value(memoryview(b"abc")), memoryview)


def test_values_that_are_none():
    for value in ("text", 1, None, [b"x"]):
        with pytest.raises(TypeError, match=f"a value must be bytes or another buffer, not {type(value).__name__}"):
            validation.check_value(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="contiguous"):
        validation.check_value(memoryview(b"abcdef")[::2])


LIMITS = [
    (validation.check_flags, "flags", 0, 2**32 - 1),
    (validation.check_cas, "cas", 0, 2**64 - 1),
    (validation.check_delta, "value", 0, 2**64 - 1),
    (validation.check_exptime, "exptime", -(2**31), 2**31 - 1),
    (validation.check_ttl, "ttl", 0, 2**31 - 1),
    (validation.check_lease, "lease", 1, 2_592_000),
    (validation.check_stale, "stale", 0, 2_592_000),
]


@pytest.mark.parametrize(("check", "name", "low", "high"), LIMITS)
def test_limits_of_numbers(check: Any, name: str, low: int, high: int):
    """At the limits and beyond; messages name the argument."""
    check(low)
    check(high)
    for number in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"^{name} must be from {low} to {high}, not {number}$"):
            check(number)
    for wrong in (1.0, "1", None, True):
        with pytest.raises(TypeError, match=f"^{name} must be an int"):
            check(wrong)


def test_wait():
    for wait in (None, 0, 0.5, 7, float("inf")):
        validation.check_wait(wait)
    for wait in (-1, -0.001, float("nan")):
        with pytest.raises(ValueError, match="wait must not be negative"):
            validation.check_wait(wait)
    for wait in ("1", True, b"1"):
        with pytest.raises(TypeError, match="wait must be a number of seconds or None"):
            validation.check_wait(wait)  # type: ignore[arg-type]


def test_arguments_of_stats():
    validation.check_stats_arguments(["items", "0", "a-b_c:d!~"])
    for argument in ("", " ", "a b", "a\r\n", "a\tb", "ä", "\x7f"):
        with pytest.raises(ValueError, match="printable ASCII without spaces"):
            validation.check_stats_arguments(["items", argument])
    for wrong in (b"items", 1, None):
        with pytest.raises(TypeError, match="must be a str"):
            validation.check_stats_arguments([wrong])  # type: ignore[list-item]
