"""Fuzzers of what stands between a socket and a message: frames, handshake, data requests and answers."""

from __future__ import annotations

import random
import struct

import pytest

from rain.common.comm import FrameError, FrameReader as ExecutorFrameReader, pack_frame
from rain.common.errors import AuthenticationError, RainConnectionError
from rain.protocol.codec import encode
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
from rain.protocol.framing import FrameReader, segment_table
from rain.protocol.handshake import ClientHandshake, Secret, ServerHandshake
from rain.protocol.limits import MAX_DATA_READ, MAX_HANDSHAKE, ProtocolError
from rain.protocol.messages import Accepted, ConstantPiece, Heartbeat, NewSession
from tests.fuzz.fuzzing import cpu_limit, fuzz

SECRET = Secret("a" * 64, "test")
NO_SECRET = Secret(None, "test")
LIMIT = 1 << 16


def pieces(data: bytes) -> list[bytes]:
    """The same bytes cut differently, always alike for equal bytes."""
    source = random.Random(len(data))
    cut, position = [], 0
    while position < len(data):
        size = source.choice((1, 3, 8, 100, 1 << 20))
        cut.append(data[position : position + size])
        position += size
    return cut


# --- frames -----------------------------------------------------------------------------------------

FRAMES = [
    encode([Heartbeat()]),
    encode([Accepted(1), NewSession(2, "name", "fail", False), Heartbeat()]),
    encode([ConstantPiece(1, 2, 0, 500, bytes(500))]),
    segment_table([8, 16, 0, 8]) + bytes(32),
    segment_table([0] * 512),
    struct.pack("<II", 0, 0xFFFFFFFF),
    struct.pack("<II", 0xFFFFFFFF, 1),
]


def read_frames(data: bytes) -> None:
    """Whole and in pieces a stream gives the same frames, or fails in both ways."""
    results = []
    for parts in ([data], pieces(data)):
        reader = FrameReader(LIMIT)
        frames: list[bytes] = []
        try:
            for part in parts:
                frames += map(bytes, reader.feed(part))
                assert reader.pending < LIMIT
        except ProtocolError:
            frames = [b"refused"]
        else:
            assert sum(map(len, frames)) + reader.pending == len(data)
        results.append(frames)
    assert results[0] == results[1] or [b"refused"] in results


def test_frames(inputs: int) -> None:
    fuzz("frames", read_frames, FRAMES, inputs, growth=(2 * LIMIT + (1 << 18), 20))


EXECUTOR_FRAMES = [pack_frame(b""), pack_frame(b"abc") * 3, pack_frame(bytes(1000)), struct.pack("<I", 0xFFFFFFFF)]


def read_executor_frames(data: bytes) -> None:
    reader = ExecutorFrameReader(LIMIT)
    frames: list[bytes] = []
    try:
        for part in pieces(data):
            frames += reader.feed(part)
            assert reader.pending <= LIMIT + 4 + len(part)
    except FrameError:
        return
    assert sum(map(len, frames)) + 4 * len(frames) + reader.pending == len(data)


def test_executor_frames(inputs: int) -> None:
    fuzz("executor-frames", read_executor_frames, EXECUTOR_FRAMES, inputs)


# --- handshake --------------------------------------------------------------------------------------


def server(secret: Secret = SECRET) -> ServerHandshake:
    return ServerHandshake(secret, ("client", "worker"), nonce=b"s" * 32)


def client(secret: Secret = SECRET) -> ClientHandshake:
    return ClientHandshake("client", secret, nonce=b"c" * 32)


def conversation(secret: Secret = SECRET) -> tuple[bytes, bytes]:
    """What each side of a proper handshake says; the nonces are fixed, so that it succeeds when it is replayed."""
    one, other = client(secret), server(secret)
    said = to_server = one.start()
    heard = b""
    while to_server:
        to_client = other.feed(to_server)
        heard += to_client
        to_server = one.feed(to_client)
        said += to_server
    assert one.done
    assert other.done
    return said, heard


SAID, HEARD = conversation()
OPEN_SAID, OPEN_HEARD = conversation(NO_SECRET)


def shake(machine: ClientHandshake | ServerHandshake, data: bytes, proper: bytes, secret: Secret) -> None:
    """No exception; a secret demanded is passed with the proper proof alone; what is kept is bounded."""
    for part in pieces(data):
        machine.feed(part)
        assert machine.done or machine.error is not None or len(machine._buffer) <= MAX_HANDSHAKE
    if machine.error is not None:
        assert isinstance(machine.error, ProtocolError | RainConnectionError | AuthenticationError)
        assert len(str(machine.error)) < 1000
        assert str(machine.error).isprintable()
        assert machine.leftover == b""
    if machine.done and secret.token is not None:
        assert data.startswith(proper)
        assert machine.leftover == data[len(proper) :]


@pytest.mark.parametrize("secret", [SECRET, NO_SECRET], ids=["secret", "insecure"])
def test_handshake_of_the_listening_side(inputs: int, secret: Secret) -> None:
    corpus = [SAID, SAID[:-32], SAID + b"more", OPEN_SAID, HEARD]
    fuzz("handshake", lambda data: shake(server(secret), data, SAID, secret), corpus, inputs // 2)


@pytest.mark.parametrize("secret", [SECRET, NO_SECRET], ids=["secret", "insecure"])
def test_handshake_of_the_connecting_side(inputs: int, secret: Secret) -> None:
    corpus = [HEARD, HEARD[:-33], HEARD + b"more", OPEN_HEARD, SAID]
    fuzz("handshake", lambda data: shake(client(secret), data, HEARD, secret), corpus, inputs // 2)


def test_handshake_of_single_bytes() -> None:
    """However slowly it comes, each byte is looked at a bounded number of times."""
    machine = server()
    with cpu_limit():
        for byte in SAID + bytes(100_000):
            machine.feed(bytes([byte]))
            if machine.done:
                break
    assert machine.done


# --- data connections -------------------------------------------------------------------------------

REQUESTS = [
    pack_request(DataRequest(1, 2, 3, 0, 0)),
    pack_request(DataRequest(1, 2, 3, 4, 5)) * 70,
    pack_request(DataRequest((1 << 64) - 1, (1 << 32) - 1, (1 << 32) - 1, (1 << 64) - 1, MAX_DATA_READ)),
]


def read_requests(data: bytes) -> None:
    reader = RequestReader()
    requests = []
    try:
        for part in pieces(data):
            requests += reader.feed(part)
            assert reader.pending < REQUEST_SIZE
    except ProtocolError:
        return
    assert len(requests) * REQUEST_SIZE + reader.pending == len(data)
    assert all(request.length <= MAX_DATA_READ for request in requests)


def test_data_requests(inputs: int) -> None:
    fuzz("data-requests", read_requests, REQUESTS, inputs)


def read_answer(data: bytes) -> None:
    header = data[:ANSWER_SIZE].ljust(ANSWER_SIZE, b"\0")
    try:
        answer = unpack_answer(header)
    except ProtocolError:
        return
    assert answer.length <= answer.total
    assert answer.length == 0 or answer.status == OK


def test_data_answers(inputs: int) -> None:
    corpus = [pack_answer(DataAnswer(1, status, flags, 100, 0)) for status in (0, 1, 2) for flags in (0, 1)]
    fuzz("data-answers", read_answer, [*corpus, pack_answer(DataAnswer(1, OK, 0, 100, 50))], inputs)
