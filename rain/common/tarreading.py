"""Reading tars of strangers: strict, without recursion, in memory that does not depend on what they claim.

Understood are files, directories and symbolic links in the forms ustar, pax and GNU, long names included. Everything
else (devices, hard links, sparse files ...) is an error, and so is an archive without an end mark: it was cut.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Literal, TypeAlias

from rain.common.errors import RainException
from rain.common.structs import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal["file", "directory", "link"]

_BLOCK = 512
_COPY_AT_ONCE = 1 << 20
_MAX_EXTENSION = 1 << 20
"""Longest extended header, bytes; those of real archives are far below."""
_CHECKSUM = slice(148, 156)
_KINDS: dict[bytes, Kind] = {b"0": "file", b"\0": "file", b"7": "file", b"5": "directory", b"2": "link"}
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry.

    Attributes:
        name: its path as the archive has it.
        kind: what it is.
        size: bytes of a file, else 0.
        executable: the owner may execute the file.
        link: target of a link, else `""`.
    """

    name: str
    kind: Kind
    size: int
    executable: bool
    link: str


class TarReader:
    """Goes through an archive from the beginning to the end.

    Args:
        source: open for reading and seekable, at the beginning of the archive, which reaches to its end.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._start = self._position = source.tell()
        self._end = source.seek(0, os.SEEK_END)
        self._extension: dict[str, str] = {}
        self._content = 0, 0  # position and size of the file the last member was

    def members(self) -> Iterator[Member]:
        """The entries, in order. The content of a file can be copied until the next one is asked for.

        Raises:
            RainException: the archive is damaged, or has what is not understood.
        """
        while any(header := self._take(_BLOCK)):
            if sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ") != _number(header[_CHECKSUM]):
                raise _damaged("a header has a wrong checksum")
            kind = header[156:157]
            size = _number(header[124:136])
            if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
                self._extend(kind, size)
            else:
                yield self._member(header, kind, size)
        if self._extension:
            raise _damaged("it ends with an extended header")

    def copy_to(self, target: IO[bytes]) -> None:
        """Copy the content of the last member."""
        position, size = self._content
        self._source.seek(position)
        while size:
            piece = self._source.read(min(size, _COPY_AT_ONCE))
            if not piece:
                raise _damaged("it was cut while it was read")
            target.write(piece)
            size -= len(piece)

    def _take(self, size: int) -> bytes:
        self._source.seek(self._position)
        self._skip(size)
        return self._source.read(size)

    def _skip(self, size: int) -> None:
        padded = -(-size // _BLOCK) * _BLOCK
        if size > self._end - self._position:
            raise _damaged(f"it ends at {self._end - self._start} bytes, within a member or without an end mark")
        self._position += padded

    def _extend(self, kind: bytes, size: int) -> None:
        """Take a header that only says something of the next one."""
        if size > _MAX_EXTENSION:
            raise _damaged(f"an extended header of {size} bytes")
        data = self._take(size)
        if kind == _LONG_NAME:
            self._extension["path"] = _text(data)
        elif kind == _LONG_LINK:
            self._extension["linkpath"] = _text(data)
        elif kind == _PAX:
            self._extension.update(_pax_records(data))

    def _member(self, header: bytes, type_code: bytes, size: int) -> Member:
        extension, self._extension = self._extension, {}
        name, link = _text(header[:100]), _text(header[157:257])
        if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
            name = f"{prefix}/{name}"
        name, link = extension.get("path", name), extension.get("linkpath", link)
        kind = _KINDS.get(type_code)
        if kind is None or any(key.startswith("GNU.sparse.") for key in extension):
            raise RainException(f"Archive member {name[:1000]!r} is neither file, directory nor symlink")
        if kind == "file" and type_code == b"\0" and name.endswith("/"):
            kind = "directory"
        if kind == "file":
            if "size" in extension:
                size = _decimal(extension["size"])
            self._content = self._position, size
            self._skip(size)
        executable = bool(_number(header[100:108]) & 0o100)
        return Member(name, kind, size if kind == "file" else 0, executable, link if kind == "link" else "")


def _damaged(how: str) -> RainException:
    return RainException(f"Damaged archive: {how}")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """A number in a header: octal digits, or binary after a byte 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.translate(None, b"01234567"):
        raise _damaged("a header has a malformed number")
    return int(digits or b"0", 8)


def _decimal(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise _damaged("an extended header has a malformed number")
    return int(digits)


def _pax_records(data: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n`, the length counting the whole record."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        digits = data[position : position + 20].partition(b" ")[0]
        length = _decimal(digits.decode("ascii", "replace"))
        record = data[position + len(digits) + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if len(digits) + 1 + len(record) != length or not equals or not value.endswith(b"\n"):
            raise _damaged("a malformed extended header")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        position += length
    return records
