"""Chunked values: how a large value is cut into parts, the manifest that tells of them, and putting them together."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST_FLAGS = 0xC4A17E55
"""Item flags of a manifest."""

MAX_PARTS = 4096

IDENTITY_SIZE = 16
"""Length of the random id that the parts of one value have in common, in bytes."""

_DIGEST_SIZE = 16
_MAGIC = b"RMC1"
_LAYOUT = struct.Struct("<4sIQII16s16s")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands under the user's key in place of a value that was stored in parts.

    Attributes:
        flags: the user's flags.
        length: length of the value in bytes.
        part_size: length of each part but the last, which holds the rest.
        parts: number of parts.
        identity: random id in the keys of the parts.
        digest: blake2b of the value.
    """

    flags: int
    length: int
    part_size: int
    parts: int
    identity: bytes
    digest: bytes

    def encode(self) -> bytes:
        """The value of the item."""
        return _LAYOUT.pack(_MAGIC, self.flags, self.length, self.part_size, self.parts, self.identity, self.digest)

    def part_keys(self) -> list[bytes]:
        """The keys of the parts."""
        return [part_key(self.identity, index) for index in range(self.parts)]

    def part_length(self, index: int) -> int:
        """How long a part must be."""
        return min(self.part_size, self.length - index * self.part_size)


def part_key(identity: bytes, index: int) -> bytes:
    """The key of part number `index` of the value with this id."""
    return b"rmc1:%s:%d" % (identity.hex().encode(), index)


def count_parts(length: int, part_size: int) -> int:
    """Into how many parts a value of `length` bytes is cut.

    Raises:
        ValueError: more than 4096.
    """
    parts = -(-length // part_size)
    if parts > MAX_PARTS:
        raise ValueError(
            f"a value of {length} bytes needs {parts} parts of {part_size} bytes, and {MAX_PARTS} are allowed; "
            "store less in one value, or give create_client a larger chunk_size"
        )
    return parts


def decode(data: bytes) -> Manifest | None:
    """Read the value of an item whose flags are those of a manifest; None if it is broken."""
    if len(data) != _LAYOUT.size:
        return None
    magic, flags, length, part_size, parts, identity, digest = _LAYOUT.unpack(data)
    if magic != _MAGIC or not part_size or not 0 < parts <= MAX_PARTS or -(-length // part_size) != parts:
        return None
    return Manifest(flags, length, part_size, parts, identity, digest)


class Cutting:
    """A value on its way into parts: gives them in order, and the manifest at last.

    The digest grows with the parts, so that no single turn of the loop pays for the whole of a large value.
    """

    def __init__(self, value: bytes | memoryview, flags: int, part_size: int, identity: bytes) -> None:
        self.parts = count_parts(len(value), part_size)
        self._value = memoryview(value)
        self._flags = flags
        self._part_size = part_size
        self._identity = identity
        self._digest = blake2b(digest_size=_DIGEST_SIZE)
        self._given = 0

    def __iter__(self) -> Iterator[tuple[bytes, memoryview]]:
        while self._given < self.parts:
            start = self._given * self._part_size
            data = self._value[start : start + self._part_size]
            self._digest.update(data)
            self._given += 1
            yield part_key(self._identity, self._given - 1), data

    def given(self) -> list[bytes]:
        """The keys of the parts given so far."""
        return [part_key(self._identity, index) for index in range(self._given)]

    def manifest(self) -> Manifest:
        """The manifest, when all parts were given."""
        return Manifest(
            self._flags, len(self._value), self._part_size, self.parts, self._identity, self._digest.digest()
        )


class Assembly:
    """The parts of a value that have come so far, in order."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._parts: list[bytes] = []
        self._digest = blake2b(digest_size=_DIGEST_SIZE)

    def add(self, data: bytes) -> bool:
        """Take the next part; False if it is not as long as it must be."""
        if len(data) != self._manifest.part_length(len(self._parts)):
            return False
        self._digest.update(data)
        self._parts.append(data)
        return True

    def value(self) -> bytes | None:
        """The value when all parts have come; None if it is not the one that was stored."""
        return b"".join(self._parts) if self._digest.digest() == self._manifest.digest else None
