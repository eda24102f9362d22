"""What a run of a block reports, and the packed arguments of a block."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import msgpack
import pytest
from hypothesis import given, strategies as st

from rain.common.blocks import FULL, LATE, STORED, BlockResult, joined
from rain.common.packing import pack_args
from rain.common.pickle5 import encode_pickle5

FAILURE = {"kind": "task", "message": "boom", "exception": b"\x80"}
RESULT = BlockResult(
    durations=array("f", [0.5, 0.25]),
    sizes=array("I", [2, 3]),
    values=b"aabbb",
    infos=[None, b"info"],
    kinds=b"\x00\x01",
    end=FAILURE,
    start=7.0,
    duration=0.125,
)


@st.composite
def results(draw: st.DrawFn) -> BlockResult:
    values = draw(st.lists(st.binary(max_size=9), max_size=6))
    infos = draw(st.lists(st.none() | st.binary(max_size=5), min_size=1, max_size=4, unique=True))
    same = draw(st.booleans())
    kinds = b"" if same else bytes(draw(st.integers(0, len(infos) - 1)) for _ in values)
    return BlockResult(
        durations=array("f", [draw(st.floats(0, 1, width=32)) for _ in values]),
        sizes=array("I", map(len, values)),
        values=b"".join(values),
        infos=infos,
        kinds=kinds,
        end=draw(st.sampled_from([None, LATE, FULL, STORED, FAILURE])),
        start=draw(st.floats(0, 2e9)),
        duration=draw(st.floats(0, 1e6)),
        seconds=draw(st.floats(0, 1e6)),
    )


@given(results())
def test_round_trip(result: BlockResult):
    again = BlockResult.unpack(result.pack())
    assert again == result
    assert again.done == len(result.sizes)


def test_nothing_at_all():
    assert BlockResult.unpack(BlockResult().pack()) == BlockResult()
    assert BlockResult().done == 0


def test_the_total_is_the_sum_unless_it_is_told():
    assert RESULT.total() == 0.75
    assert dataclasses.replace(RESULT, seconds=0.5).total() == 0.5


def damaged(**fields: Any) -> bytes:
    columns = [RESULT.durations.tobytes(), RESULT.sizes.tobytes()]
    rest = [getattr(RESULT, field.name) for field in dataclasses.fields(RESULT)[2:]]
    names = [field.name for field in dataclasses.fields(RESULT)]
    packed: bytes = msgpack.packb([fields.get(n, v) for n, v in zip(names, [*columns, *rest], strict=True)])
    return packed


def test_the_result_before_its_damage_is_sound():
    assert BlockResult.unpack(damaged()) == RESULT


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        RESULT.pack()[:-1],
        RESULT.pack() + b"\x00",
        msgpack.packb(5),
        msgpack.packb([1, 2, 3]),
        damaged(durations=b"abc"),
        damaged(durations=5),
        damaged(durations=bytes(4)),
        damaged(sizes=bytes(4)),
        damaged(values=b"aabb"),
        damaged(values=None),
        damaged(infos=None),
        damaged(infos=["text", None]),
        damaged(infos=[]),
        damaged(infos=[b"one"]),
        damaged(kinds=b"\x00"),
        damaged(kinds=[0, 1]),
        damaged(end="soon"),
        damaged(end=5),
        damaged(start=7),
        damaged(duration=None),
        damaged(seconds=1),
        damaged(seconds=-0.5),
        damaged(seconds=float("inf")),
        damaged(seconds=float("nan")),
    ],
)
def test_malformed_results_are_refused(packed: bytes):
    with pytest.raises(ValueError, match="malformed result of a block"):
        BlockResult.unpack(packed)


COLUMN = BlockResult(array("f", [0.5, 0.25]), array("I", [29, 39]), array("q", [7, 300]).tobytes(), [b"i"], column="q")


def test_columns_of_numbers():
    again = BlockResult.unpack(COLUMN.pack())
    assert again == COLUMN
    assert [again.value(position, 0) for position in (0, 1)] == [encode_pickle5(7), encode_pickle5(300)]
    assert [RESULT.value(0, 0), RESULT.value(1, 2)] == [b"aa", b"bbb"]


@pytest.mark.parametrize(
    "fields",
    [{"column": "I"}, {"column": None}, {"values": COLUMN.values[:-1]}, {"values": COLUMN.values[:-8]}, {"column": ""}],
)
def test_damaged_columns_are_refused(fields: dict[str, Any]):
    columns = dataclasses.asdict(COLUMN) | {"durations": COLUMN.durations.tobytes(), "sizes": b""} | fields
    with pytest.raises(ValueError, match="malformed result of a block"):
        BlockResult.unpack(msgpack.packb(list(columns.values())))


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(packed: bytes):
    with pytest.raises(ValueError, match="malformed result of a block"):
        BlockResult.unpack(packed)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_joined_arguments_are_a_list(count: int):
    members = [pack_args([n, "x"], {"k": n}) for n in range(count)]
    assert msgpack.unpackb(joined(count, b"".join(members))) == [[[n, "x"], {"k": n}] for n in range(count)]
