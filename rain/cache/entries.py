"""Entries of the cache: the outputs of a task as bytes that cannot be mistaken for anything else.

An entry is a head, a packed list of outputs, and a code over both and the entry's key: HMAC-SHA256 with the cache's key
file where strangers could write to the cache, else with an empty key, as a checksum. Nothing of an entry is looked at
before its code is found to be right.
"""

from __future__ import annotations

import hmac
import struct
from typing import Any

import msgpack

from rain.common.structs import dataclass

MAX_OUTPUT = 64 << 20
"""Bytes; results with a larger output are not stored."""

_MAGIC = b"RAINRES\0"
_VERSION = 1
_HEAD = struct.Struct("<8sI32s")
_FIELDS = 4


class EntryError(Exception):
    """An entry is damaged, of another version, or not by somebody who has the key; the text says which."""


@dataclass(frozen=True, slots=True)
class CachedOutput:
    """One output.

    Attributes:
        data: the value, of a directory its tar.
        size: as the worker reported it, bytes.
        info: packed object info, None if there is none.
        directory: whether it is one.
    """

    data: bytes
    size: int
    info: bytes | None
    directory: bool


def encode(key: bytes, outputs: list[CachedOutput], secret: bytes) -> bytes:
    """Make an entry.

    Args:
        key: under which it will be found.
        outputs: of the task.
        secret: of the cache, empty where it has none.
    """
    body: bytes = msgpack.packb([(out.data, out.size, out.info, out.directory) for out in outputs])
    return _HEAD.pack(_MAGIC, _VERSION, _code(key, body, secret)) + body


def decode(key: bytes, entry: bytes, secret: bytes) -> list[CachedOutput]:
    """Read an entry.

    Raises:
        EntryError: it is not what `encode` made for this key with this secret.
    """
    if len(entry) < _HEAD.size:
        raise EntryError(f"it has only {len(entry)} bytes")
    magic, version, code = _HEAD.unpack_from(entry)
    if magic != _MAGIC:
        raise EntryError("it is not a result of Rain")
    if version != _VERSION:
        raise EntryError(f"its format has version {version}, this is version {_VERSION}")
    body = memoryview(entry)[_HEAD.size :]
    if not hmac.compare_digest(code, _code(key, body, secret)):
        raise EntryError("its code is wrong: it is damaged, or was written with another key")
    try:
        rows = msgpack.unpackb(body)
        return [_output(row) for row in rows]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise EntryError(f"its content is malformed: {error}") from error


def _output(row: Any) -> CachedOutput:
    if type(row) is not list or len(row) != _FIELDS:
        raise ValueError("an output does not have its fields")
    data, size, info, directory = row
    if type(data) is not bytes or type(size) is not int or type(directory) is not bool:
        raise ValueError("a field of an output has a wrong type")
    if info is not None and type(info) is not bytes:
        raise ValueError("the info of an output has a wrong type")
    return CachedOutput(data, size, info, directory)


def _code(key: bytes, body: bytes | memoryview, secret: bytes) -> bytes:
    code = hmac.new(secret, digestmod="sha256")
    code.update(_MAGIC + _VERSION.to_bytes(4, "little") + key)
    code.update(body)
    return code.digest()
