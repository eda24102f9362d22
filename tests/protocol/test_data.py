"""The data protocol's requests and answers."""

import random

import pytest
from hypothesis import given, strategies as st

from rain.protocol.data import (
    ANSWER_SIZE,
    OK,
    REQUEST_SIZE,
    DataAnswer,
    DataRequest,
    RequestReader,
    pack_answer,
    pack_request,
    unpack_answer,
)
from rain.protocol.limits import MAX_DATA_READ, ProtocolError

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
requests = st.builds(DataRequest, u64, u32, u32, u64, st.integers(0, MAX_DATA_READ))


@given(st.lists(requests, max_size=5), st.integers(1, 80))
def test_requests_in_any_cutting(sent: list[DataRequest], step: int):
    stream = b"".join(map(pack_request, sent))
    reader = RequestReader()
    received = [whole for at in range(0, len(stream), step) for whole in reader.feed(stream[at : at + step])]
    assert received == sent
    assert reader.pending == 0


@given(u64, st.sampled_from([0, 1, 2]), u32, st.integers(0, 2**32))
def test_answers(tag: int, status: int, flags: int, length: int):
    answer = DataAnswer(tag, status, flags, 2**33, length if status == OK else 0)
    packed = pack_answer(answer)
    assert len(packed) == ANSWER_SIZE
    assert unpack_answer(packed) == answer


def test_layout_is_as_documented():
    request = pack_request(DataRequest(1, 2, 3, 4, 5))
    assert request == bytes.fromhex("52513031 0100000000000000 02000000 03000000 0400000000000000 0500000000000000")
    answer = pack_answer(DataAnswer(1, OK, 1, 4, 3))
    assert answer == bytes.fromhex("52413031 0100000000000000 00000000 01000000 0400000000000000 0300000000000000")


@pytest.mark.parametrize("start", [b"X", b"GET / HTTP/1.1\r\n", b"RQ02"])
def test_strangers_are_refused_at_their_first_bytes(start: bytes):
    with pytest.raises(ProtocolError, match="magic"):
        RequestReader().feed(start)


def test_large_requests_are_refused():
    with pytest.raises(ProtocolError, match="at most 33554432"):
        RequestReader().feed(pack_request(DataRequest(1, 1, 1, 0, MAX_DATA_READ + 1)))


@pytest.mark.parametrize(
    "answer",
    [DataAnswer(1, 3, 0, 1, 1), DataAnswer(1, OK, 0, 1, 2)],
)
def test_senseless_answers_are_refused(answer: DataAnswer):
    with pytest.raises(ProtocolError):
        unpack_answer(pack_answer(answer))
    with pytest.raises(ProtocolError):
        unpack_answer(b"X" + pack_answer(answer)[1:])


def test_fuzz():
    source = random.Random(4)
    for _ in range(3_000):
        data = bytearray(pack_request(DataRequest(1, 2, 3, 4, 5)) * 2)
        for _ in range(source.randrange(6)):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        reader = RequestReader()
        try:
            reader.feed(bytes(data[: source.randrange(len(data) + 1)]))
        except ProtocolError:
            continue
        assert reader.pending < REQUEST_SIZE
