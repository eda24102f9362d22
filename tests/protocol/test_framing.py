"""FrameReader: any cutting of a stream gives the same frames; sizes are checked before anything is buffered."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from rain.protocol.framing import FrameReader, segment_table
from rain.protocol.limits import MAX_SEGMENTS, ProtocolError

words = st.integers(0, 30)
frames = st.lists(words, min_size=1, max_size=5).flatmap(
    lambda sizes: st.integers(0, 255).map(
        lambda filler: segment_table([8 * size for size in sizes]) + bytes([filler]) * 8 * sum(sizes)
    )
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 5000), max_size=10))
def test_any_cutting_gives_the_same_frames(sent: list[bytes], places: list[int]):
    reader = FrameReader()
    received = [bytes(frame) for piece in cut(b"".join(sent), places) for frame in reader.feed(piece)]
    assert received == sent
    assert reader.pending == 0


@given(frames)
def test_byte_by_byte(frame: bytes):
    reader = FrameReader()
    received = [bytes(whole) for position in range(len(frame)) for whole in reader.feed(frame[position : position + 1])]
    assert received == [frame]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_random_bytes_are_buffered_within_the_limit_or_refused(pieces: list[bytes]):
    reader = FrameReader(limit=4096)
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                assert len(frame) <= 4096
            assert reader.pending <= 4096
    except ProtocolError:
        pass


def test_reads_from_a_buffer_that_is_used_again():
    frame = segment_table([16]) + b"0123456789abcdef"
    buffer = bytearray(frame)
    reader = FrameReader()
    (received,) = reader.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert received == frame


@pytest.mark.parametrize("segments", [1, 2, 7])
def test_limit_counts_table_and_segments(segments: int):
    frame = segment_table([8] * segments) + bytes(8 * segments)
    assert [bytes(whole) for whole in FrameReader(len(frame)).feed(frame)] == [frame]
    with pytest.raises(ProtocolError, match=f"{len(frame)} bytes, at most {len(frame) - 1}"):
        FrameReader(len(frame) - 1).feed(frame)


def test_a_huge_length_is_refused_when_the_table_is_there():
    reader = FrameReader()
    assert reader.feed(struct.pack("<I", 0)) == []
    with pytest.raises(ProtocolError, match="34359738368 bytes"):
        reader.feed(struct.pack("<I", 0xFFFFFFFF))


def test_too_many_segments_are_refused_before_their_table():
    assert FrameReader().feed(struct.pack("<II", MAX_SEGMENTS - 1, 0)) == []
    with pytest.raises(ProtocolError, match="segments"):
        FrameReader().feed(struct.pack("<II", MAX_SEGMENTS, 0))
    reader = FrameReader()
    reader.feed(struct.pack("<I", 2**32 - 1))
    with pytest.raises(ProtocolError, match="segments"):
        reader.feed(bytes(8))


def test_a_large_frame_is_filled_in_place():
    frame = segment_table([1 << 20]) + bytes(1 << 20)
    reader = FrameReader()
    pieces = [frame[start : start + 65536] for start in range(0, len(frame), 65536)]
    received = [whole for piece in pieces for whole in reader.feed(piece)]
    assert len(received) == 1
    assert isinstance(received[0], bytearray)
    assert received[0] == frame
