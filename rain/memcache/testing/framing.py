"""Where the requests of a stream end; and packets of the binary protocol, for the fake server and tests."""

from __future__ import annotations

import struct

HEADER = struct.Struct("!BBHBBHIIQ")
REQUEST, REPLY = 0x80, 0x81
WITH_DATA = {b"set": 4, b"add": 4, b"replace": 4, b"append": 4, b"prepend": 4, b"cas": 4, b"ms": 2}
"""Commands with a data block; the place of its length in the line."""


def next_request(data: bytes) -> int:
    """How many bytes of the data are the first request, text or binary; 0: it is not complete."""
    if data[:1] == b"\x80":
        if len(data) < HEADER.size:
            return 0
        size: int = HEADER.size + HEADER.unpack_from(data)[6]
        return size if len(data) >= size else 0
    line, found, _ = data.partition(b"\r\n")
    if not found:
        return 0
    size = len(line) + 2
    words = line.split()
    place = WITH_DATA.get(words[0]) if words else None
    if place is not None and len(words) > place and words[place].isdigit():
        size += int(words[place]) + 2
    return size if len(data) >= size else 0


def packet(
    opcode: int,
    *,
    key: bytes = b"",
    value: bytes = b"",
    extras: bytes = b"",
    status: int = 0,
    opaque: int = 0,
    cas: int = 0,
    magic: int = REPLY,
) -> bytes:
    """A packet of the binary protocol; `status` is the virtual bucket in requests."""
    size = len(extras) + len(key) + len(value)
    return HEADER.pack(magic, opcode, len(key), len(extras), 0, status, size, opaque, cas) + extras + key + value
