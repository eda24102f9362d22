"""Frames between worker and executor: a u32 little-endian payload length and the payload."""

from __future__ import annotations

import struct

from rain.common.errors import RainException

MAX_FRAME = 128 << 20
"""Largest payload in bytes."""

_LENGTH = struct.Struct("<I")
HEADER_SIZE = _LENGTH.size


class FrameError(RainException):
    """The stream of frames is malformed."""


def pack_frame(payload: bytes) -> bytes:
    """Put the length before a payload.

    Raises:
        FrameError: the payload is too large.
    """
    if len(payload) > MAX_FRAME:
        raise FrameError(f"A frame of {len(payload)} bytes exceeds the limit of {MAX_FRAME} bytes")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into payloads. Pure: it is fed, and gives what is complete."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take bytes from the stream; return the payloads that are complete now.

        Raises:
            FrameError: a frame announces more than the limit.
        """
        buffer = self._buffer
        buffer += data
        payloads: list[bytes] = []
        position, available = 0, len(buffer)
        while available - position >= HEADER_SIZE:
            (length,) = _LENGTH.unpack_from(buffer, position)
            if length > self._limit:
                raise FrameError(f"A frame of {length} bytes exceeds the limit of {self._limit} bytes")
            end = position + HEADER_SIZE + length
            if end > available:
                break
            payloads.append(bytes(memoryview(buffer)[position + HEADER_SIZE : end]))
            position = end
        if position:
            del buffer[:position]
        return payloads
