"""Arguments of calls with one number each."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, strategies as st

from rain.common.blocks import joined
from rain.common.number_arguments import NumberArguments, number_arguments, read_marked
from rain.common.packing import pack_args

INTS = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(INTS, min_size=1) | st.lists(st.floats(allow_nan=False), min_size=1))
def test_numbers_come_back(values: list[float]) -> None:
    found = number_arguments(values)
    assert found is not None
    assert len(found) == len(values)
    assert [msgpack.unpackb(one) for one in found] == [[[value], {}] for value in values]
    assert found[-1] == pack_args([values[-1]], {})
    assert list(found.sizes) == [8] * len(values)
    assert read_marked(found.marked()) == values
    part = found[1:3]
    assert isinstance(part, NumberArguments)
    assert read_marked(part.marked()) == values[1:3]


@pytest.mark.parametrize("values", [[], [1, 2.0], [True, 2], [1, None], [1 << 63, 1], ["1", "2"], [b"1"]])
def test_other_values(values: list[object]) -> None:
    assert number_arguments(values) is None


def test_behind_the_end() -> None:
    found = NumberArguments("q", bytes(16))
    with pytest.raises(IndexError):
        found[2]
    with pytest.raises(IndexError):
        found[-3]


@pytest.mark.parametrize("args", [joined(0, b""), joined(1, b"\x92\x91\x01\x80"), b"", b"q1234567", b"x12345678"])
def test_packed_arguments_are_no_column(args: bytes) -> None:
    assert read_marked(args) is None
