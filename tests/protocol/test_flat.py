"""Frames as Rain writes and reads them itself, against pycapnp: both agree on every frame that Rain's reader takes."""

from __future__ import annotations

import dataclasses
import random
import struct
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import rain
from rain.protocol import messages as m
from rain.protocol.codec import MESSAGE_CLASSES, decode, encode
from rain.protocol.flat import FlatStruct, member_of
from rain.protocol.layout import LAYOUTS
from rain.protocol.limits import ProtocolError
from rain.protocol.make_layout import text
from rain.protocol.stock import layouts, read, schema
from tests.protocol.strategies import messages, normal

FLAT = {layout[0]: FlatStruct(*layout) for layout in LAYOUTS.values()}
FEW = settings(max_examples=8, deadline=None, database=None)
every_class = pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)


def read_flat(frame: bytes) -> tuple[int, list[Any]] | None:
    """What Rain's own reader makes of a frame; None: it leaves it to pycapnp."""
    found = member_of(frame)
    if found is None or found[0] not in FLAT or FLAT[found[0]].pointer != found[1]:
        return None
    values = FLAT[found[0]].read(frame)
    return None if values is None else (found[0], values)


def written_by_pycapnp(frame: bytes, first_words: int) -> bytes:
    """The same message in a frame that pycapnp makes."""
    (message,) = schema().Message.read_multiple_bytes(frame)
    builder = schema().Message.new_message(first_words)
    name = str(message.which())
    body = builder.init(name)
    for field in getattr(message, name).schema.fieldnames:
        setattr(body, field, getattr(getattr(message, name), field))
    return bytes(builder.to_bytes())


def test_the_layout_is_that_of_the_schema() -> None:
    assert layouts() == LAYOUTS, "run `python -m rain.protocol.make_layout > rain/protocol/layout.py`"
    assert (Path(rain.__file__).parent / "protocol/layout.py").read_text("utf-8") == text()
    root = schema().Message.schema.node.struct
    assert (root.dataWordCount, root.pointerCount, root.discriminantOffset) == (1, 1, 0)


@every_class
def test_pycapnp_reads_what_rain_writes(cls: type[Any]) -> None:
    @FEW
    @given(messages(cls))
    def check(message: Any) -> None:
        frame = encode([message])
        assert read_flat(frame) == read(frame)

    check()


@every_class
def test_rain_reads_what_pycapnp_writes(cls: type[Any]) -> None:
    @FEW
    @given(messages(cls))
    def check(message: Any) -> None:
        for first_words in (1000, 1):  # in one segment, and in several
            frame = written_by_pycapnp(encode([message]), first_words)
            found = read_flat(frame)
            assert found is None or found == read(frame)
            assert decode(frame) == normal(message)
            assert found is not None or first_words == 1 or not dataclasses.fields(cls)

    check()


def test_the_bytes_of_a_frame() -> None:
    """By hand, from the description of the format."""
    assert encode([m.CloseSession(258, 7)]) == struct.pack(
        "<II QQQ QII", 0, 5, 0x0001_0001_0000_0000, 2, 0x0000_0002_0000_0000, 258, 7, 0
    )
    ids = array("I", [5, 6, 7])
    data = 1 | 0 << 2 | 2 << 32 | 12 << 35  # a list of 12 bytes right behind the pointer
    assert encode([m.UnkeepObjects(1, 2, ids)]) == struct.pack(
        "<II QQQ QII Q 3I4x", 0, 8, 0x0001_0001_0000_0000, 9, 0x0001_0002_0000_0000, 1, 2, 0, data, 5, 6, 7
    )


def test_where_bits_and_bytes_are() -> None:
    flat = FlatStruct(3, 2, 2, "?1 B1 ?64 T1 ?0 I1 D0 ?65")
    values = [True, 200, True, b"abcdefgh", False, 70_000, b"x", False]
    frame = b"".join(flat.write(values))
    assert member_of(frame) == (3, flat.pointer)
    assert frame[32:48] == bytes([2, 200, 0, 0]) + struct.pack("<I", 70_000) + bytes([1]) + bytes(7)
    assert frame[64:72] == b"abcdefgh"
    assert flat.read(frame) == [True, 200, True, "abcdefgh", False, 70_000, b"x", False]
    assert flat.read(bytearray(frame)) == flat.read(frame)


@pytest.mark.parametrize("values", [[-1, b""], [2**64, b""], ["1", b""], [1.5, b""], [None, b""], [1, "x"], [1, None]])
def test_values_that_do_not_fit(values: list[Any]) -> None:
    with pytest.raises((TypeError, struct.error)):
        FlatStruct(1, 1, 1, "Q0 D0").write(values)


def test_unusual_frames_are_left_to_pycapnp() -> None:
    flat = FlatStruct(1, 1, 2, "Q0 D0 T1")
    frame = b"".join(flat.write([1, b"data", b"text"]))
    pointers = 40
    for at, word in (
        (pointers, 2 | 1 << 3),  # a pointer into another segment
        (pointers, 1 | 3 << 32 | 1 << 35),  # a list of something else
        (pointers, 1 | 2 << 32 | (2**29 - 1) << 35),  # too long
        (pointers, 1 | (2**30 - 1) << 2 | 2 << 32 | 8 << 35),  # before its pointer
        (pointers + 8, 1 | 1 << 2 | 2 << 32 | 4 << 35),  # a text without its end
        (pointers + 8, 1 | 1 << 2 | 2 << 32),  # or without anything
    ):
        changed = bytearray(frame)
        struct.pack_into("<Q", changed, at, word)
        assert flat.read(changed) is None
    for pointer in (0x0002_0001_0000_0004, 0x0002_0002_0000_0000):  # the body lies elsewhere, or is larger
        changed = bytearray(frame)
        struct.pack_into("<Q", changed, 24, pointer)
        assert member_of(changed) == (1, pointer)
        assert pointer != flat.pointer
    for changed in (frame[:24], frame[:-8], frame + bytes(8), b"\1" + frame[1:], frame[:8] + b"\4" + frame[9:]):
        assert member_of(changed) is None
    assert flat.read(frame[:48]) is None


def test_both_readers_agree_about_damaged_frames() -> None:
    source = random.Random(7)
    samples = [
        encode([message])
        for message in (
            m.NewSession(1, "a name", "fail", True),
            m.SubmitCommit(3, 4, True),
            m.ConstantPiece(1, 2, 3, 4, b"some bytes"),
            m.Wait(1, 1, 2, array("I", range(5))),
            m.SessionWarning(1, "text"),
            m.ObjectsFetched(1, array("Q", [1]), [b"s"], [None], [b"value"], [["a:1"]]),
        )
    ]
    taken = 0
    for _ in range(10_000):
        frame = bytearray(source.choice(samples))
        for _ in range(source.randrange(1, 4)):
            frame[source.randrange(8, len(frame))] ^= 1 << source.randrange(8)
        damaged = bytes(frame)
        try:
            found = read_flat(damaged)
        except ValueError:  # a text that is not UTF-8
            with pytest.raises(ProtocolError):
                read(damaged)
            continue
        if found is not None:
            taken += 1
            number, values = read(damaged)
            assert found[0] == number
            assert list(map(repr, found[1])) == list(map(repr, values))  # NaN is not itself
    assert taken > 2_000
