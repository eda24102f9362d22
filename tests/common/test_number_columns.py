"""Columns of numbers stand for the numbers encoded one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rain.common.number_columns import (
    column_sizes,
    column_value,
    column_values,
    is_column,
    pack_column,
    sizes_in_column,
)
from rain.common.pickle5 import encode_pickle5

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(INT64, min_size=1) | st.lists(st.integers(0, 1 << 40), min_size=1) | st.lists(st.floats(), min_size=1))
@example([number for bits in range(64) for number in ((1 << bits) - 1, 1 << max(0, bits - 1))])
@example([-(1 << 63), -1, 0, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 63) - 1])
@example([0, 0])
@example([1, 127, 128, 255])
@example([256, 65535])
@example([65536, (1 << 24) - 1])
@example([1 << 24, (1 << 31) - 1])
@example([1 << 24, 1 << 31])
@example([1 << 31, (1 << 32) - 1])
@example([1 << 56, (1 << 63) - 1])
@example([-1, -2])
def test_each_number_is_there_as_pickle5(numbers: list[Any]) -> None:
    packed = pack_column(numbers)
    assert packed is not None
    code, data = packed
    assert is_column(code, data)
    encoded = [encode_pickle5(number) for number in numbers]
    assert [column_value(code, data, position) for position in range(len(numbers))] == encoded
    assert list(column_sizes(code, data)) == list(map(len, encoded))
    assert [(type(value), repr(value)) for value in column_values(code, data)] == [
        (type(value), repr(value)) for value in numbers
    ]


@pytest.mark.parametrize("values", [[], [True], [1, 2.0], [None], [b"x"], [1 << 63], [1, b"x"], ["a"]])
def test_what_makes_no_column(values: list[Any]) -> None:
    assert pack_column(values) is None


@pytest.mark.parametrize(
    "numbers",
    [
        range(5),
        range(16 * 1024 - 1),
        range(16 * 1024),
        range(5, 50_000),
        range(0, 1 << 62, 1 << 47),
        range(0, (1 << 63) - 1024 * (1 << 47), 1 << 47),
        range((1 << 63) - 50_000, 1 << 63),
        range((1 << 63) - 50_000, (1 << 63) - 1023),
        range(-1, 50_000),
        range(-90_000, 90_000, 3),
        range(50_000, -50_000, -2),
    ],
)
def test_ranges(numbers: range) -> None:
    packed = pack_column(numbers)
    assert packed == pack_column(list(numbers))
    assert packed is not None
    assert column_values(*packed) == list(numbers)


@pytest.mark.parametrize(
    "numbers", [range(0), range((1 << 63) - 50_000, (1 << 63) + 1), range(-(1 << 63) - 1, 0, 1 << 47)]
)
def test_ranges_that_make_no_column(numbers: range) -> None:
    assert pack_column(numbers) is None


def test_kinds_that_are_known() -> None:
    assert pack_column([1, 2], {int}) == pack_column([1, 2])
    assert pack_column([1, 2.0], {int, float}) is None
    assert pack_column([None], {type(None)}) is None
    assert pack_column([], set()) is None


def test_sizes_in_a_column() -> None:
    assert list(sizes_in_column(bytes(24))) == [8, 8, 8]
    assert list(sizes_in_column(b"")) == []


def test_empty_columns_have_no_sizes() -> None:
    assert list(column_sizes("q", b"")) == list(column_sizes("d", b"")) == []


@pytest.mark.parametrize(("code", "data"), [("q", bytes(7)), ("", bytes(8)), ("I", bytes(8)), (None, b""), ([], b"")])
def test_what_is_no_column(code: Any, data: bytes) -> None:
    assert not is_column(code, data)
