"""Cap'n Proto's standard stream framing, pure.

A frame is a segment table (u32 number of segments - 1, a u32 length in words per segment, padded to 8 bytes) and
then the segments. Sizes are checked against the limit as soon as the table is there, before anything is buffered.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from rain.protocol.limits import MAX_FRAME, MAX_SEGMENTS, ProtocolError

Frame: TypeAlias = "bytes | bytearray"
"""One whole frame, segment table included; its memory starts at a multiple of 8."""

_WORD = 8
_U32 = struct.Struct("<I")
_PAIR = struct.Struct("<II")


def segment_table(sizes: list[int]) -> bytes:
    """Make the table of a frame from the lengths of its segments in bytes (multiples of 8)."""
    if len(sizes) == 1:
        return _PAIR.pack(0, sizes[0] // _WORD)
    table = struct.pack(f"<{1 + len(sizes)}I", len(sizes) - 1, *(size // _WORD for size in sizes))
    return table if len(table) % _WORD == 0 else table + bytes(4)


def table_size(segments: int) -> int:
    """Length in bytes of the table of a frame with this many segments."""
    return (4 + 4 * segments + _WORD - 1) // _WORD * _WORD


class FrameReader:
    """Cuts a stream of bytes into frames.

    After a ProtocolError the stream is out of step and the reader must not be used again.

    Args:
        limit: longest frame in bytes, its table included.
    """

    __slots__ = ("_filled", "_frame", "_limit", "_table")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._table = bytearray()  # the beginning of a table, shorter than the table
        self._frame: bytearray | None = None  # a frame whose table is known, `_filled` bytes of it are there
        self._filled = 0

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame that are buffered."""
        return len(self._table) if self._frame is None else self._filled

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes of the stream.

        Returns:
            The frames that are now complete, in order.

        Raises:
            ProtocolError: too many segments, or a frame beyond the limit.
        """
        view = memoryview(data)
        frames: list[Frame] = []
        position = 0
        end = len(view)
        while position < end:
            if self._frame is not None:
                position = self._fill(view, position, frames)
            elif self._table:
                position = self._extend_table(view, position, frames)
            else:
                position = self._cut(view, position, frames)
        return frames

    def _cut(self, view: memoryview, position: int, frames: list[Frame]) -> int:
        """Take whole frames straight out of `view`; begin to buffer the one that is not whole."""
        end = len(view)
        while end - position >= _WORD:
            last_segment, words = _PAIR.unpack_from(view, position)
            if last_segment == 0:
                size = _WORD + words * _WORD
            else:
                table = self._checked_table_size(last_segment)
                if end - position < table:
                    break
                size = self._total(view[position : position + table], last_segment + 1)
            if size > self._limit:
                raise self._too_large(size)
            if end - position < size:
                self._begin(size)
                return self._fill(view, position, frames)
            frames.append(view[position : position + size].tobytes())
            position += size
        self._table += view[position:end]
        return end

    def _extend_table(self, view: memoryview, position: int, frames: list[Frame]) -> int:
        """Complete the buffered beginning of a table; the frame begins when it is whole."""
        table = self._table
        wanted = _WORD if len(table) < _WORD else self._checked_table_size(_U32.unpack_from(table)[0])
        taken = view[position : position + wanted - len(table)]
        table += taken
        if len(table) >= _WORD:
            segments = _U32.unpack_from(table)[0] + 1
            if len(table) == self._checked_table_size(segments - 1):
                size = self._total(memoryview(table), segments)
                if size > self._limit:
                    raise self._too_large(size)
                self._table = bytearray()
                self._begin(size)
                self._fill(memoryview(table), 0, frames)
        return position + len(taken)

    def _begin(self, size: int) -> None:
        self._frame = bytearray(size)
        self._filled = 0

    def _fill(self, view: memoryview, position: int, frames: list[Frame]) -> int:
        frame = self._frame
        assert frame is not None
        taken = min(len(view) - position, len(frame) - self._filled)
        frame[self._filled : self._filled + taken] = view[position : position + taken]
        self._filled += taken
        if self._filled == len(frame):
            frames.append(frame)
            self._frame = None
        return position + taken

    def _checked_table_size(self, last_segment: int) -> int:
        if last_segment >= MAX_SEGMENTS:
            raise ProtocolError(f"a message of {last_segment + 1} segments, at most {MAX_SEGMENTS} are allowed")
        return table_size(last_segment + 1)

    def _total(self, table: memoryview, segments: int) -> int:
        words: tuple[int, ...] = struct.unpack_from(f"<{segments}I", table, 4)
        return len(table) + _WORD * sum(words)

    def _too_large(self, size: int) -> ProtocolError:
        return ProtocolError(f"a message of {size} bytes, at most {self._limit} are allowed")
