"""Content type `pickle5`: a pickle of protocol 5 whose buffers lie beside it.

Little endian: 8 bytes `RAINPK5\\0`, u32 number of buffers N, u32 zero, u64 length of the pickle, N x (u64 offset,
u64 length), the pickle, then the buffers, each at a multiple of 64 bytes from the start. Loading copies no buffer, but
for a value that is itself bytes.
"""

from __future__ import annotations

import os
import pickle
import struct
from itertools import accumulate, pairwise, starmap
from typing import TYPE_CHECKING, Any, SupportsIndex

from rain.common.errors import RainException
from rain.common.packing import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"RAINPK5\0"
_HEADER = struct.Struct("<8sIIQ")
_ENTRY = struct.Struct("<QQ")
_ALIGNMENT = 64
_BESIDE = 64 << 10
"""Bytes from which a value that is bytes lies beside the pickle: it is neither copied nor searched then."""

_PLAIN_BYTES = (bytes, bytearray)
_bare_headers = [_HEADER.pack(MAGIC, 0, 0, length) for length in range(256)]


class _Beside:
    """Pickles bytes or a bytearray as a call of its type with a buffer that is not in the pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = value

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type, tuple[pickle.PickleBuffer]]:
        return type(self._value), (pickle.PickleBuffer(self._value),)


def encode_pickle5(value: Any) -> bytes:
    """Encode a value.

    Raises:
        Exception: whatever pickling raises.
    """
    buffers: list[pickle.PickleBuffer] = []
    blob = _dump(value, buffers)
    if not buffers:
        length = len(blob)
        return (_bare_headers[length] if length < 256 else _HEADER.pack(MAGIC, 0, 0, length)) + blob
    return b"".join(_layout(blob, buffers))


def encode_pickle5_parts(value: Any) -> list[bytes | memoryview]:
    """Encode a value without joining: the parts, written one after the other, are the encoded value.

    Raises:
        Exception: whatever pickling raises.
    """
    buffers: list[pickle.PickleBuffer] = []
    return _layout(_dump(value, buffers), buffers)


def _dump(value: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    if type(value) in _PLAIN_BYTES and len(value) >= _BESIDE:
        value = _Beside(value)
    try:
        blob = pickle.dumps(value, 5, buffer_callback=buffers.append)
    except Exception:  # a value's own methods may raise anything; cloudpickle has the last word
        blob = b"__main__"
    if b"__main__" in blob:  # cannot be loaded elsewhere by plain pickle
        buffers.clear()
        blob = bytes(cloudpickle().dumps(value, protocol=5, buffer_callback=buffers.append))
    return blob


def _layout(blob: bytes, buffers: list[pickle.PickleBuffer]) -> list[bytes | memoryview]:
    views = [buffer.raw() for buffer in buffers]
    position = _HEADER.size + len(views) * _ENTRY.size + len(blob)
    parts: list[bytes | memoryview] = [_HEADER.pack(MAGIC, len(views), 0, len(blob))]
    entries = []
    tail: list[bytes | memoryview] = []
    for view in views:
        padding = -position % _ALIGNMENT
        if padding:
            tail.append(bytes(padding))
        position += padding
        entries.append(_ENTRY.pack(position, view.nbytes))
        tail.append(view)
        position += view.nbytes
    return [*parts, *entries, blob, *tail]


_BYTES_HEAD, _BYTES_BLOB = _HEADER.pack(MAGIC, 1, 0, len(_dump(bytes(_BESIDE), []))), _dump(bytes(_BESIDE), [])
_BYTES_BEGIN = len(_BYTES_HEAD) + _ENTRY.size + len(_BYTES_BLOB)
_BYTES_START = _BYTES_BEGIN + -_BYTES_BEGIN % _ALIGNMENT
_READ_AT_MOST = 1 << 30


def read_plain_bytes(path: str) -> bytes | None:
    """The value in a file, if it is bytes that lie beside their pickle: read right into their own memory, which is
    quicker than copying them out of a mapping. None if it is anything else, or damaged: it is to be decoded.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        begin = os.pread(descriptor, _BYTES_BEGIN, 0)
        if not (begin.startswith(_BYTES_HEAD) and begin.endswith(_BYTES_BLOB)):
            return None
        offset, size = _ENTRY.unpack_from(begin, len(_BYTES_HEAD))
        if size > _READ_AT_MOST or offset != _BYTES_START or os.fstat(descriptor).st_size != offset + size:
            return None
        value = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    return value if len(value) == size else None


def decode_pickle5(data: bytes | bytearray | memoryview) -> Any:
    """Decode a value; its buffers share the memory of `data` and are read-only.

    Raises:
        RainException: the layout is damaged.
        Exception: whatever unpickling raises.
    """
    length = len(data) - _HEADER.size
    if 0 <= length < len(_bare_headers) and data[: _HEADER.size] == _bare_headers[length]:
        return pickle.loads(data[_HEADER.size :])
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise RainException(f"Damaged pickle5 value: {len(view)} bytes are too few")
    magic, count, _, length = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise RainException("Damaged pickle5 value: it does not start with RAINPK5")
    start = _HEADER.size + count * _ENTRY.size
    if start + length > len(view):
        raise RainException(f"Damaged pickle5 value: {start + length} bytes expected, {len(view)} found")
    if not count:
        return pickle.loads(view[start : start + length])
    frozen = view.toreadonly()
    buffers = []
    for offset, size in _ENTRY.iter_unpack(view[_HEADER.size : start]):
        if offset + size > len(view):
            raise RainException(f"Damaged pickle5 value: a buffer ends at {offset + size} of {len(view)} bytes")
        buffers.append(frozen[offset : offset + size])
    return pickle.loads(view[start : start + length], buffers=buffers)


def decode_pickle5_all(data: bytes, sizes: Sequence[int]) -> list[Any]:
    """Decode values that lie one after the other, which is quick if they are small.

    Raises:
        RainException, Exception: as for one.
    """
    ends = list(accumulate(sizes, initial=0))
    heads = {(data[start : start + _HEADER.size], end - start) for start, end in pairwise(ends)}
    if all(starmap(_is_bare, heads)):
        return [pickle.loads(data[start + _HEADER.size : end]) for start, end in pairwise(ends)]
    return [decode_pickle5(data[start:end]) for start, end in pairwise(ends)]


def _is_bare(header: bytes, size: int) -> bool:
    """A value of this size that begins like this is a short pickle without buffers."""
    length = size - _HEADER.size
    return 0 <= length < len(_bare_headers) and header == _bare_headers[length]
