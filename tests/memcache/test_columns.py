"""Many `VALUE` lines at once: what is taken is exactly what was sent, everything doubtful is left to the parser."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from rain.memcache.columns import MAX_CAS, MAX_FLAGS, flags_and_size, mixed, number, uniform
from tests.memcache.wire import flag_numbers, keys, tokens

KEYS = (b"a", b"bc")


@pytest.mark.parametrize(
    ("text", "result"),
    [(b"0", 0), (b"007", 7), (b"99", 99), (b"100", -1), (b"", -1), (b"-1", -1), (b"+1", -1), (b" 1", -1), (b"1_0", -1)],
)
def test_number(text: bytes, result: int):
    assert number(text, 99) == result


def test_number_of_too_many_digits():
    assert number(b"0" * 19 + b"5", 9) == 5
    assert number(b"0" * 20 + b"5", 9) == -1
    assert number("\u0663".encode(), 9) == -1


def test_flags_and_size():
    assert flags_and_size(b"4294967295 1073741824") == (MAX_FLAGS, 1 << 30)
    assert flags_and_size(b"4294967296 1073741825") == (-1, -1)
    assert flags_and_size(b"1 2 3") == (1, -1)
    assert flags_and_size(b"1") == (1, -1)


def test_uniform_answers():
    found = uniform(KEYS, [b"VALUE a 7 1", b"VALUE bc 7 1"], [b"x", b"y"])
    assert found is not None
    assert list(found) == [(b"a", b"x", 7, None), (b"bc", b"y", 7, None)]


@pytest.mark.parametrize(
    ("heads", "values"),
    [
        ([b"VALUE bc 7 1", b"VALUE a 7 1"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VALUE bc 8 1"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VALUE bc 7 1"], [b"x", b"yy"]),
        ([b"VALUE a 7 1 5", b"VALUE bc 7 1 5"], [b"x", b"y"]),
        ([b"VALUE a\n7 1", b"VALUE bc\n7 1"], [b"x", b"y"]),
        ([b"VALUE a x 1", b"VALUE bc x 1"], [b"x", b"y"]),
        ([b"VALUE a 7 " + b"1" * 99, b"VALUE bc 7 " + b"1" * 99], [b"x", b"y"]),
        ([b"END", b"END"], [b"x", b"y"]),
        ([b"", b""], [b"", b""]),
    ],
)
def test_what_is_not_uniform(heads: list[bytes], values: list[bytes]):
    assert uniform(KEYS, heads, values) is None


@pytest.mark.parametrize(
    ("heads", "values"),
    [
        ([b"VALUE a 7 1", b"VALUE a 7 1"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VALUE c 7 1"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VALUE bc 7 1 1"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VALUE bc 7 2"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VALUE bc x 1"], [b"x", b"y"]),
        ([b"VALUE a 7 1 1", b"VALUE bc 7 1 x"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"ERROR"], [b"x", b"y"]),
        ([b"VALUE a 7 1", b"VELUE bc 7 1"], [b"x", b"y"]),
    ],
)
def test_what_is_left_to_the_parser(heads: list[bytes], values: list[bytes]):
    assert mixed({b"a", b"bc"}, heads, values) is None


@given(st.lists(st.tuples(keys, st.binary(max_size=9), flag_numbers, tokens), min_size=1, unique_by=lambda row: row[0]))
def test_what_was_sent_is_taken(rows: list[tuple[bytes, bytes, int, int]]):
    asked = {row[0] for row in rows} | {b"miss"}
    values = [row[1] for row in rows]
    with_tokens = mixed(
        asked, [b"VALUE %b %d %d %d" % (key, flags, len(value), cas) for key, value, flags, cas in rows], values
    )
    without = mixed(asked, [b"VALUE %b %d %d" % (key, flags, len(value)) for key, value, flags, _ in rows], values)
    assert with_tokens is not None
    assert without is not None
    assert list(with_tokens) == rows
    assert list(without) == [(*row[:3], None) for row in rows]


def test_the_largest_token():
    assert mixed({b"a"}, [b"VALUE a 0 0 %d" % MAX_CAS], [b""]) is not None
    assert mixed({b"a"}, [b"VALUE a 0 0 %d" % (MAX_CAS + 1)], [b""]) is None
