"""Content type `pickle5`: a pickle of protocol 5 whose buffers lie beside it.

Little endian: 8 bytes `RAINPK5\\0`, u32 number of buffers N, u32 zero, u64 length of the pickle, N x (u64 offset,
u64 length), the pickle, then the buffers, each at a multiple of 64 bytes from the start. Loading copies no buffer.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

from rain.common.errors import RainException
from rain.common.packing import cloudpickle

MAGIC = b"RAINPK5\0"
_HEADER = struct.Struct("<8sIIQ")
_ENTRY = struct.Struct("<QQ")
_ALIGNMENT = 64

_bare_headers = [_HEADER.pack(MAGIC, 0, 0, length) for length in range(256)]


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
