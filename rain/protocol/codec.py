"""Messages to frames and back: the only module of Rain that imports capnp.

How each field travels follows from its annotation in `rain.protocol.messages`; the schema is loaded by `prepare`, or
when the first message is encoded or decoded. pycapnp is used through prefetched schema fields (0.1 us a field instead
of 0.5).
"""

from __future__ import annotations

import inspect
import threading
from array import array
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import msgpack

from rain.common.unpacking import unpack_bounded
from rain.protocol.columns import COLUMN_CHECKS
from rain.protocol.framing import Frame, segment_table
from rain.protocol.limits import MAX_FRAME, ProtocolError
from rain.protocol.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCHEMA_PATH = Path(__file__).parent / "schema" / "rain.capnp"
MESSAGE_CLASSES: tuple[type[Any], ...] = get_args(Message)
"""Every class of messages, in no order that matters."""

_TRAVERSAL_LIMIT = 2**60  # words; frames were measured before they were buffered
_WORD = 8
_MESSAGE_WORDS = 4  # root pointer, discriminant and pointer of Message, rounding
_LONGEST_REASON = 300
_BLOB_TYPES: set[type] = {bytes, type(None)}
_BYTES_ONLY: set[type] = {bytes}
_STR_ONLY: set[type] = {str}


class _FieldKind(NamedTuple):
    """How values of one annotation become what capnp stores, and back. None = as they are."""

    pack: Callable[[Any], Any] | None
    unpack: Callable[[Any], Any] | None


def _column(typecode: str) -> _FieldKind:
    def pack(column: array[Any]) -> bytes:
        if column.typecode != typecode:
            raise TypeError(f"a column of type {column.typecode!r}, expected {typecode!r}")
        return column.tobytes()

    return _FieldKind(pack, partial(array, typecode))


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
    "U64": _column("Q"),
    "F64": _column("d"),
    "Blobs": _FieldKind(_pack_blobs, _unpack_blobs),
    "Map": _FieldKind(_pack_map, _unpack_map),
    "list[bytes]": _FieldKind(_pack_list, _unpack_bytes_list),
    "list[str]": _FieldKind(_pack_list, _unpack_str_list),
    "list[list[str]]": _FieldKind(_pack_list, _unpack_str_lists),
}


def camel_case(name: str) -> str:
    """The schema's spelling of a field or class name: `object_id` is `objectId`, `NewSession` is `newSession`."""
    head, *rest = name.split("_")
    return head[0].lower() + head[1:] + "".join(word.capitalize() for word in rest)


class _MessageCodec:
    """Everything known about one message class, fetched once."""

    __slots__ = ("check", "cls", "decoders", "encoders", "member", "values", "words")

    def __init__(self, cls: type[Any], member: Any, struct_fields: dict[str, Any]) -> None:
        fields = inspect.get_annotations(cls)
        kinds = [_KINDS[annotation] for annotation in fields.values()]
        schema_fields = [struct_fields[camel_case(name)] for name in fields]
        self.cls = cls
        self.member = member
        self.check = COLUMN_CHECKS.get(cls)
        self.encoders = [(field, kind.pack) for field, kind in zip(schema_fields, kinds, strict=True)]
        self.decoders = [(field, kind.unpack) for field, kind in zip(schema_fields, kinds, strict=True)]
        self.values = _tuple_getter(list(fields))
        self.words = _MESSAGE_WORDS + 2 * len(fields)


def _tuple_getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda message: ()
    getter = attrgetter(*names)
    return getter if len(names) > 1 else lambda message: (getter(message),)


class _Schema:
    """The loaded schema."""

    def __init__(self) -> None:
        import capnp

        module = capnp.load(str(SCHEMA_PATH), imports=[])
        self.kj_error: type[Exception] = capnp.KjException
        self.new_message: Callable[[int], Any] = module.Message.new_message
        self.read_messages: Callable[[Frame, int], Any] = module.Message.read_multiple_bytes
        members = module.Message.schema.fields
        self.by_class: dict[type[Any], _MessageCodec] = {}
        self.by_member: dict[str, _MessageCodec] = {}
        for cls in MESSAGE_CLASSES:
            name = camel_case(cls.__name__)
            struct_fields = getattr(module, cls.__name__).schema.fields
            codec = _MessageCodec(cls, members[name], struct_fields)
            self.by_class[cls] = self.by_member[name] = codec


_schema: _Schema | None = None
_schema_lock = threading.Lock()


def _loaded() -> _Schema:
    global _schema
    with _schema_lock:
        if _schema is None:
            _schema = _Schema()
        return _schema


def prepare() -> None:
    """Load the schema, which the first message would do otherwise: a good use of time in which nothing can be done."""
    _loaded()


def encode(messages: Iterable[Message]) -> bytes:
    """Make the frames of these messages, one after the other.

    Raises:
        ProtocolError: a value does not fit its field, or a message is larger than MAX_FRAME.
    """
    return b"".join(encode_parts(messages))


def encode_parts(messages: Iterable[Message]) -> list[bytes]:
    """Like `encode`, but the pieces are not joined (for large messages and gathering writes)."""
    schema = _schema or _loaded()
    parts: list[bytes] = []
    for message in messages:
        try:
            segments = _encode_one(schema, message)
        except (schema.kj_error, KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolError(f"cannot encode a {type(message).__name__} message: {_one_line(error)}") from error
        sizes = list(map(len, segments))
        table = segment_table(sizes)
        size = len(table) + sum(sizes)
        if size > MAX_FRAME:
            raise ProtocolError(f"a {type(message).__name__} message of {size} bytes, at most {MAX_FRAME} are allowed")
        parts.append(table)
        parts += segments
    return parts


def _encode_one(schema: _Schema, message: Message) -> list[bytes]:
    codec = schema.by_class[type(message)]
    words = codec.words
    stored = []
    for (field, pack), raw in zip(codec.encoders, codec.values(message), strict=True):
        value = raw if pack is None else pack(raw)
        if type(value) is bytes:
            if not value:
                continue  # an absent field reads as empty
            words += len(value) // _WORD + 1
        stored.append((field, value))
    builder = schema.new_message(words)
    set_field = builder._init_by_field(codec.member)._set_by_field
    for field, value in stored:
        set_field(field, value)
    segments: list[bytes] = builder.to_segments()
    return segments


def decode(frame: Frame) -> Message:
    """Read one frame.

    Raises:
        ProtocolError: the frame does not hold a message of Rain, whatever is wrong with it.
    """
    schema = _schema or _loaded()
    try:
        reader = next(schema.read_messages(frame, _TRAVERSAL_LIMIT))
        codec = schema.by_member[reader._which_str()]
        get_field = reader._get_by_field(codec.member)._get_by_field
        message: Message = codec.cls(
            *[get_field(field) if unpack is None else unpack(get_field(field)) for field, unpack in codec.decoders]
        )
    except StopIteration:
        raise ProtocolError("a message is shorter than its segment table says") from None
    except (
        schema.kj_error,
        msgpack.UnpackException,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ProtocolError(f"a malformed message: {_one_line(error)}") from error
    if codec.check is not None:
        codec.check(message)
    return message


def _one_line(error: Exception) -> str:
    """For the log: errors quote bytes of the message, which may not forge lines or colours there."""
    line = (str(error).splitlines() or [repr(error)])[0][:_LONGEST_REASON]
    return line if line.isprintable() else ascii(line)
