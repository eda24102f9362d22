"""Bodies of messages on the wire, pure: Cap'n Proto structs of numbers, texts and data, in one segment.

All structs of the schema are flat: nothing in them points to another struct. So a body is a row of numbers, a row of
pointers to bytes, and the bytes; two calls of `struct` instead of a library that is called for each field, and that
takes longer to load than a process to start. The format: https://capnproto.org/encoding.html.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.protocol.framing import Frame

_WORD = 8
_PREFIX = Struct("<IIQQQ")
"""Number of segments - 1; words of the segment; pointer to Message; its member's number; pointer to the body."""
_ROOT = (1 | 1 << 16) << 32
"""Points to the struct right behind it, which has one word of numbers and one pointer."""
_NOTHING = 0xFFFFFFFC
"""Points to a struct without fields."""
_BYTES_BEHIND = 1 | 2 << 32
"""Points to a list of bytes. From bit 2 on: words between the pointer and the list; from bit 35 on: its length."""
_KIND_OF_POINTER = 3 | 7 << 32
_OFFSET = (1 << 30) - 1
_LENGTH_SHIFT = 35
_PADDING = tuple(map(bytes, range(_WORD + 1)))
_BITS = 8
_SIZES = {"Q": 8, "d": 8, "I": 4, "B": 1}


def member_of(frame: Frame) -> tuple[int, int] | None:
    """What a frame in the usual form holds: number of the member, pointer to its body; None: it has another form."""
    if len(frame) < _PREFIX.size:
        return None
    last_segment, words, root, number, pointer = _PREFIX.unpack_from(frame)
    usual = last_segment == 0 and root == _ROOT and _WORD + _WORD * words == len(frame)
    return (number, pointer) if usual else None


class FlatStruct:
    """How the body of one kind of messages lies in a frame.

    Args:
        number: of the union's member.
        words: of numbers.
        pointers: how many there are.
        slots: where each field is, in the order of the fields: `Q` 64 bits, `I` 32, `B` 8, `d` a float, `?` one bit,
            each with its place counted in its own size; `D` data, `T` text, each with the number of its pointer.

    Attributes:
        number: of the union's member.
        pointer: to the body, in a frame in the usual form.
    """

    __slots__ = ("_behind", "_blank", "_body", "_data", "_end", "_flags", "_numbers", "_rows", "number", "pointer")

    def __init__(self, number: int, words: int, pointers: int, slots: str) -> None:
        self.number = number
        self.pointer = words << 32 | pointers << 48 if words or pointers else _NOTHING
        fields = [(slot[0], int(slot[1:])) for slot in slots.split()]
        codes = {place * _SIZES[code]: code for code, place in fields if code in _SIZES}
        codes |= {place // _BITS: "B" for code, place in fields if code == "?"}
        rows = {byte: row for row, byte in enumerate(sorted(codes))}
        self._body = Struct(f"<{_format(codes, words * _WORD)}{pointers}Q")
        self._end = _PREFIX.size + self._body.size
        self._behind = self._end - _WORD * (len(rows) + pointers - 1)  # the pointer in row 0, if there were only such
        self._blank: list[Any] = [0] * (len(rows) + pointers)
        self._rows: list[int] = []  # of each field
        self._numbers: list[tuple[int, int]] = []  # field and row
        self._flags: list[tuple[int, int, int]] = []  # field, row, bit
        self._data: list[tuple[int, int, bool]] = []  # field, row, whether it is a text
        for field, (code, place) in enumerate(fields):
            if code in _SIZES:
                row = rows[place * _SIZES[code]]
                self._numbers.append((field, row))
            elif code == "?":
                row = rows[place // _BITS]
                self._flags.append((field, row, 1 << place % _BITS))
            else:
                row = len(rows) + place
                self._data.append((field, row, code == "T"))
            self._rows.append(row)

    def write(self, values: Sequence[Any]) -> list[bytes]:
        """Make a frame; its pieces are to be joined.

        Args:
            values: of the fields; of texts their UTF-8.

        Raises:
            TypeError, struct.error: a value does not fit its field.
        """
        row = self._blank.copy()
        pieces = [b""]
        for field, place in self._numbers:
            row[place] = values[field]
        for field, place, bit in self._flags:
            if values[field]:
                row[place] |= bit
        last = len(row) - 1
        written = 0  # words of data
        for field, place, is_text in self._data:
            value = values[field]
            if type(value) is not bytes:
                raise TypeError(f"a value of type {type(value).__name__}, expected bytes")
            if value:  # else 0, which reads as empty
                size = len(value) + is_text  # a text ends with a zero
                row[place] = (last - place + written) << 2 | size << _LENGTH_SHIFT | _BYTES_BEHIND
                pieces.append(value)
                if padding := (-size & _WORD - 1) + is_text:
                    pieces.append(_PADDING[padding])
                written += (size + _WORD - 1) // _WORD
        words = self._end // _WORD - 1 + written
        pieces[0] = _PREFIX.pack(0, words, _ROOT, self.number, self.pointer) + self._body.pack(*row)
        return pieces

    def read(self, frame: Frame) -> list[Any] | None:
        """The values of the fields of a frame in the usual form, which holds this member and whose pointer to the body
        is `pointer`; None: its data lie in an unusual way.

        Raises:
            UnicodeDecodeError: a text is not UTF-8.
        """
        end_of_frame = len(frame)
        if end_of_frame < self._end:
            return None
        row = self._body.unpack_from(frame, _PREFIX.size)
        values: list[Any] = [row[place] for place in self._rows]
        for field, _, bit in self._flags:
            values[field] = values[field] & bit != 0
        for field, place, is_text in self._data:
            pointer = values[field]
            data = b""
            if pointer:
                begin = self._behind + _WORD * (place + (pointer >> 2 & _OFFSET))
                end = begin + (pointer >> _LENGTH_SHIFT)
                if pointer & _KIND_OF_POINTER != _BYTES_BEHIND or end > end_of_frame:
                    return None
                data = bytes(frame[begin:end])
                if is_text and data[-1:] != b"\0":
                    return None
            values[field] = str(data[:-1], "utf-8") if is_text else data
        return values


def _format(codes: dict[int, str], size: int) -> str:
    """Of a row of numbers: the code of each by its first byte, bytes of all."""
    pieces, at = [], 0
    for byte, code in sorted(codes.items()):
        pieces.append(f"{byte - at}x{code}" if byte > at else code)
        at = byte + _SIZES[code]
    return "".join(pieces) + (f"{size - at}x" if size > at else "")
