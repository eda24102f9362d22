"""Messages to frames and back.

How each field travels follows from its annotation in `rain.protocol.messages`, and where it lies from the schema
(`rain.protocol.layout`). Frames of an unusual form are read by pycapnp (`rain.protocol.stock`).
"""

from __future__ import annotations

import inspect
import struct
from array import array
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import msgpack

from rain.common.unpacking import unpack_bounded
from rain.protocol import stock
from rain.protocol.columns import COLUMN_CHECKS
from rain.protocol.flat import FlatStruct, member_of
from rain.protocol.layout import LAYOUTS
from rain.protocol.limits import MAX_FRAME, ProtocolError
from rain.protocol.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.protocol.framing import Frame

MESSAGE_CLASSES: tuple[type[Any], ...] = get_args(Message)
"""Every class of messages, in no order that matters."""

_LONGEST_REASON = 300
_STRETCH = struct.Struct("<IIx")
"""Of ids that follow one another the first, and how many; no column of numbers has as many bytes."""
_ALL_IDS = 1 << 32
_BLOB_TYPES: set[type] = {bytes, type(None)}
_BYTES_ONLY: set[type] = {bytes}
_STR_ONLY: set[type] = {str}


class _FieldKind(NamedTuple):
    """How values of one annotation become numbers or bytes, and back. None = as they are."""

    pack: Callable[[Any], Any] | None
    unpack: Callable[[Any], Any] | None


def _column(typecode: str) -> _FieldKind:
    return _FieldKind(partial(_pack_column, typecode), partial(array, typecode))


def _pack_column(typecode: str, column: array[Any]) -> bytes:
    if column.typecode != typecode:
        raise TypeError(f"a column of type {column.typecode!r}, expected {typecode!r}")
    return column.tobytes()


def _pack_ids(ids: array[int] | range) -> bytes:
    if not isinstance(ids, range):
        return _pack_column("I", ids)
    if ids.step != 1 or ids.start < 0 or ids.stop > _ALL_IDS:
        raise ValueError(f"ids are {ids}, expected a range of step 1 from 0 to {_ALL_IDS}")
    return _STRETCH.pack(ids.start, len(ids))


def _unpack_ids(data: bytes) -> array[int] | range:
    if len(data) != _STRETCH.size:
        return array("I", data)
    first, count = _STRETCH.unpack(data)
    if first + count > _ALL_IDS:
        raise ValueError("a stretch of ids ends behind the largest one")
    return range(first, first + count)


def _pack_list(values: list[Any]) -> bytes:
    if not values:
        return b""
    packed: bytes = msgpack.packb(values)
    return packed


def _pack_blobs(blobs: list[bytes | None]) -> bytes:
    return b"" if blobs.count(None) == len(blobs) else _pack_list(blobs)


def _pack_map(value: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _unpack_list(data: bytes, types: set[type]) -> list[Any]:
    if not data:
        return []
    values = unpack_bounded(data)
    if type(values) is not list or not set(map(type, values)) <= types:
        raise ValueError("a packed list holds values of a wrong type")
    return values


def _unpack_blobs(data: bytes) -> list[bytes | None]:
    return _unpack_list(data, _BLOB_TYPES)


def _unpack_bytes_list(data: bytes) -> list[bytes]:
    return _unpack_list(data, _BYTES_ONLY)


def _unpack_str_list(data: bytes) -> list[str]:
    return _unpack_list(data, _STR_ONLY)


def _unpack_str_lists(data: bytes) -> list[list[str]]:
    lists = _unpack_list(data, {list})
    for strings in lists:
        if not set(map(type, strings)) <= _STR_ONLY:
            raise ValueError("a packed list holds values of a wrong type")
    return lists


def _unpack_map(data: bytes) -> dict[str, Any]:
    value = unpack_bounded(data)
    if type(value) is not dict or not set(map(type, value)) <= _STR_ONLY:
        raise ValueError("a packed map is not a map with str keys")
    return value


_KINDS: dict[str, _FieldKind] = {
    "int": _FieldKind(None, None),
    "float": _FieldKind(None, None),
    "bool": _FieldKind(None, None),
    "bytes": _FieldKind(None, None),
    "str": _FieldKind(str.encode, None),
    "U32": _column("I"),
    "Ids": _FieldKind(_pack_ids, _unpack_ids),
    "U64": _column("Q"),
    "F64": _column("d"),
    "Blobs": _FieldKind(_pack_blobs, _unpack_blobs),
    "Map": _FieldKind(_pack_map, _unpack_map),
    "list[bytes]": _FieldKind(_pack_list, _unpack_bytes_list),
    "list[str]": _FieldKind(_pack_list, _unpack_str_list),
    "list[list[str]]": _FieldKind(_pack_list, _unpack_str_lists),
}


class _MessageCodec:
    """Everything known about one message class, made once."""

    __slots__ = ("check", "cls", "flat", "packers", "unpackers", "values")

    def __init__(self, cls: type[Any]) -> None:
        fields = inspect.get_annotations(cls)
        kinds = [_KINDS[annotation] for annotation in fields.values()]
        self.cls = cls
        self.check = COLUMN_CHECKS.get(cls)
        self.flat = FlatStruct(*LAYOUTS[cls.__name__])
        self.packers = [kind.pack for kind in kinds]
        self.unpackers = [kind.unpack for kind in kinds]
        self.values = _tuple_getter(list(fields))


def _tuple_getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda message: ()
    getter = attrgetter(*names)
    return getter if len(names) > 1 else lambda message: (getter(message),)


_by_class: dict[type[Any], _MessageCodec] = {}
_by_number: dict[int, _MessageCodec] = {}
_CLASSES = {LAYOUTS[cls.__name__][0]: cls for cls in MESSAGE_CLASSES}


def _codec_of(cls: type[Any]) -> _MessageCodec:
    codec = _by_class[cls] = _by_number[LAYOUTS[cls.__name__][0]] = _MessageCodec(cls)
    return codec


def encode(messages: Iterable[Message]) -> bytes:
    """Make the frames of these messages, one after the other.

    Raises:
        ProtocolError: a value does not fit its field, or a message is larger than MAX_FRAME.
    """
    pieces: list[bytes] = []
    for message in messages:
        try:
            cls = type(message)
            codec = _by_class.get(cls) or _codec_of(cls)
            values = codec.values(message)
            packed = codec.flat.write(
                [value if pack is None else pack(value) for pack, value in zip(codec.packers, values, strict=True)]
            )
        except (struct.error, KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolError(f"cannot encode a {type(message).__name__} message: {_one_line(error)}") from error
        size = sum(map(len, packed))
        if size > MAX_FRAME:
            raise ProtocolError(f"a {type(message).__name__} message of {size} bytes, at most {MAX_FRAME} are allowed")
        pieces += packed
    return b"".join(pieces)


def decode(frame: Frame) -> Message:
    """Read one frame.

    Raises:
        ProtocolError: the frame does not hold a message of Rain, whatever is wrong with it.
    """
    try:
        found = member_of(frame)
        values = None
        if found is not None:
            codec = _by_number.get(found[0]) or _known(found[0])
            if codec is not None and codec.flat.pointer == found[1]:
                values = codec.flat.read(frame)
        if values is None:
            number, values = stock.read(frame)
            codec = _known(number)
        assert codec is not None
        message: Message = codec.cls(
            *[value if unpack is None else unpack(value) for unpack, value in zip(codec.unpackers, values, strict=True)]
        )
    except (msgpack.UnpackException, KeyError, TypeError, ValueError, ProtocolError) as error:
        raise ProtocolError(f"a malformed message: {_one_line(error)}") from error
    if codec.check is not None:
        codec.check(message)
    return message


def _known(number: int) -> _MessageCodec | None:
    cls = _CLASSES.get(number)
    return None if cls is None else _codec_of(cls)


def _one_line(error: Exception) -> str:
    """For the log: errors quote bytes of the message, which may not forge lines or colours there."""
    line = (str(error).splitlines() or [repr(error)])[0][:_LONGEST_REASON]
    return line if line.isprintable() else ascii(line)
