"""Arguments of delayed calls: packed, with the data objects inside as inputs, large ones as constants."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgpack

from rain.client.data import CONSTANT, DataObject, to_dataobj
from rain.client.embedding import InputCollector, collecting, reference_pickle
from rain.client.handles import CALLS, CallTask
from rain.client.shape import object_shape
from rain.client.task import Task
from rain.common.errors import RainException
from rain.common.packing import PLAIN_TYPES, PickledValue, dump_value, is_plain, pack_args
from rain.common.pickle5 import encode_pickle5_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.client.base import BaseSession

LARGE = 64 << 10
"""Bytes of a pickled argument above which it is uploaded as a constant."""

_ALWAYS_SMALL = frozenset({int, float, bool, type(None)})
_NO_KEYWORDS: dict[str, Any] = {}
_pack: Callable[[Any], bytes] = msgpack.Packer().pack  # one packer for all calls: its buffer costs more than packing


def _is_small_and_plain(value: Any, limit: int) -> bool:
    kind = type(value)
    return kind in PLAIN_TYPES and ((kind is not str and kind is not bytes) or len(value) <= limit)


def pack_plain_args(args: tuple[Any, ...], limit: int = LARGE // 4) -> bytes | None:
    """The packed arguments of a call that msgpack carries unchanged; None if there are others, or texts and bytes that
    are longer than `limit`."""
    for value in args:
        if type(value) not in _ALWAYS_SMALL and not _is_small_and_plain(value, limit):
            return None
    try:
        return _pack((args, _NO_KEYWORDS))
    except (OverflowError, UnicodeEncodeError):  # a large int, or a str with surrogates: these are pickled
        return None


@lru_cache(maxsize=64)
def _packed_references(count: int) -> bytes:
    """The packed arguments of a call that gets so many different data objects and nothing else."""
    references = [reference_pickle(f"{{{index}}}", index + 1, None, None) for index in range(count)]
    return pack_args(map(PickledValue, references), _NO_KEYWORDS)


def pack_references(args: tuple[Any, ...]) -> tuple[bytes, tuple[DataObject | CallTask, ...]] | None:
    """The packed arguments of a call that gets different data objects and nothing else, and these; None if it gets
    others. A call may stand for its only output.

    Raises:
        RainException: a task among them does not have one output.
    """
    objects: tuple[DataObject | CallTask, ...] = args
    for value in args:
        if type(value) not in CALLS or len(value._shape.outputs) != 1:
            if not all(isinstance(one, (DataObject, Task)) for one in args):
                return None
            objects = tuple(map(_source, args))
            break
    count = len(objects)
    if not count or (count == 2 and objects[0] is objects[1]) or (count > 2 and len(set(objects)) != count):
        return None
    return _packed_references(count), objects


def _source(value: DataObject | Task) -> DataObject | CallTask:
    """What stands for it; the same for a call and the handle of its output, if there is one."""
    if isinstance(value, CallTask) and value._made is None and len(value._shape.outputs) == 1:
        return value
    return to_dataobj(value)


class ArgumentPacker:
    """Packs the arguments of calls in one session.

    Args:
        session: where constants are looked up.

    Attributes:
        constants: made for large arguments, by their key in `session._static_data`; not registered yet.
    """

    def __init__(self, session: BaseSession) -> None:
        self._session = session
        self.constants: dict[Any, DataObject] = {}

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, tuple[DataObject, ...]]:
        """The packed arguments of a call, and the data objects in them: the inputs that follow the function.

        Raises:
            RainException: an argument cannot be pickled.
        """
        plain = None if kwargs else pack_plain_args(args)
        if plain is not None:
            return plain, ()
        references = None if kwargs else pack_references(args)
        if references is not None:
            return references[0], tuple(map(to_dataobj, references[1]))
        collector = InputCollector()
        with collecting(collector):
            packed = pack_args(
                [self._pack_one(value, collector) for value in args],
                {name: self._pack_one(value, collector) for name, value in kwargs.items()},
            )
        return packed, tuple(collector.inputs)

    def _pack_one(self, value: Any, collector: InputCollector) -> Any:
        kind = type(value)
        if kind in PLAIN_TYPES and is_plain(value):
            if kind is str:
                data = value.encode() if len(value) > LARGE // 4 else b""
                return value if len(data) <= LARGE else self._constant("text", [data], collector)
            return value if kind is not bytes or len(value) <= LARGE else self._constant("", [value], collector)
        if isinstance(value, (Task, DataObject)):
            return PickledValue(reference_pickle(*collector.add(to_dataobj(value))))
        parts = _pickled(value)
        if sum(map(_size, parts)) > LARGE:
            return self._constant("pickle5", parts, collector)
        if len(parts) == 2:  # no buffers beside the pickle
            return PickledValue(bytes(parts[1]))
        return PickledValue(_pickled_alone(value))

    def _constant(
        self, content_type: str, parts: list[bytes | memoryview], collector: InputCollector
    ) -> PickledValue:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        assert isinstance(data, bytes)
        key = ("argument", content_type, hashlib.blake2b(data, digest_size=20).digest())
        known = self._session._static_data.get(key) or self.constants.get(key)
        if known is None:
            known = self.constants[key] = DataObject.__new__(DataObject)
            known._fill(object_shape("argument", content_type), CONSTANT, data)
            known._keep = True
        return PickledValue(reference_pickle(*collector.add(known)))

    def register(self) -> None:
        """Make the constants part of the session."""
        if self.constants:
            self._session._register(*self.constants.values())
            self._session._static_data.update(self.constants)
            self.constants = {}


def _size(part: bytes | memoryview) -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes


def _pickled(value: Any) -> list[bytes | memoryview]:
    try:
        return encode_pickle5_parts(value)
    except RainException:
        raise
    except Exception as error:  # a value's own methods may raise anything
        raise _unpicklable(value, error) from error


def _pickled_alone(value: Any) -> bytes:
    try:
        return dump_value(value)
    except Exception as error:  # as above
        raise _unpicklable(value, error) from error


def _unpicklable(value: Any, error: Exception) -> RainException:
    return RainException(f"An argument of type {type(value).__name__} cannot be pickled: {error!r}")
