"""Pickling of single values, and the packed arguments of Python calls.

Packed arguments are msgpack `[args, kwargs]`. Values of exact type int (64 bit), float, str, bytes, bool and
None are msgpack; every other value is `ExtType(1, pickle)`, so that equal types come out.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

import msgpack

PICKLED = 1
"""Code of the msgpack extension type which holds a pickle."""

PLAIN_TYPES = frozenset({int, float, str, bytes, bool, type(None)})
"""Exact types which travel as msgpack."""

_LARGEST_INT = (1 << 64) - 1
_SMALLEST_INT = -(1 << 63)

Pickler: TypeAlias = Callable[[Any], bytes]
"""Serialises one value; the result must be readable by `pickle.loads`."""


class PickledValue(msgpack.ExtType):  # type: ignore[misc]
    """An argument that is a pickle already: `pack_args` takes it as it is."""

    __slots__ = ()

    def __new__(cls, blob: bytes) -> PickledValue:
        """Wrap a pickle."""
        return cast("PickledValue", super().__new__(cls, PICKLED, blob))


def dump_value(value: Any) -> bytes:
    """Pickle one value so that another process can load it.

    Plain pickle first, as it is ten times faster. cloudpickle where that fails, and where the pickle names
    `__main__`: pickle stores things of `__main__` by reference without an error, and no other process has them.

    Raises:
        Exception: whatever cloudpickle or the value's own methods raise.
    """
    try:
        blob = pickle.dumps(value, 5)
    except Exception:  # a value's own methods may raise anything; cloudpickle has the last word
        return cloud_dump(value)
    if b"__main__" in blob:
        return cloud_dump(value)
    return blob


def cloudpickle() -> Any:
    """The cloudpickle module, imported when first needed."""
    return importlib.import_module("cloudpickle")


def cloud_dump(value: Any) -> bytes:
    """Pickle one value by cloudpickle: functions and classes of `__main__` by value."""
    return bytes(cloudpickle().dumps(value, protocol=5))


def is_plain(value: Any) -> bool:
    """Tell whether msgpack carries the value unchanged."""
    kind = type(value)
    if kind is int:
        return bool(_SMALLEST_INT <= value <= _LARGEST_INT)
    if kind is str:
        return not _has_surrogates(value)
    return kind in PLAIN_TYPES


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def pack_args(args: Iterable[Any], kwargs: Mapping[str, Any], pickler: Pickler = dump_value) -> bytes:
    """Pack the arguments of a call.

    Args:
        args: positional arguments. An item that is a `PickledValue` is taken as it is.
        kwargs: keyword arguments, likewise.
        pickler: called for each value that msgpack cannot carry unchanged; gets the value, returns a pickle.

    Raises:
        Exception: whatever the pickler raises.
    """
    positional = [_packable(value, pickler) for value in args]
    keywords = {name: _packable(value, pickler) for name, value in kwargs.items()}
    try:
        return cast("bytes", msgpack.packb([positional, keywords]))
    except (OverflowError, UnicodeEncodeError):  # rare: a large int, or a str with surrogates
        positional = [_packable_checked(value, pickler) for value in positional]
        keywords = {name: _packable_checked(value, pickler) for name, value in keywords.items()}
        return cast("bytes", msgpack.packb([positional, keywords]))


def _packable(value: Any, pickler: Pickler) -> Any:
    kind = type(value)
    if kind in PLAIN_TYPES or kind is PickledValue:
        return value
    return PickledValue(pickler(value))


def _packable_checked(value: Any, pickler: Pickler) -> Any:
    if type(value) is PickledValue or is_plain(value):
        return value
    return PickledValue(pickler(value))


def load_extension(code: int, data: bytes) -> Any:
    """Decode an extension value of packed arguments."""
    if code == PICKLED:
        return pickle.loads(data)
    raise ValueError(f"unknown extension type {code} in packed arguments")


def unpack_args(data: bytes | None) -> tuple[list[Any], dict[str, Any]]:
    """Inverse of `pack_args`; no data means no arguments.

    Raises:
        Exception: whatever unpickling a value raises.
    """
    if not data:
        return [], {}
    args, kwargs = msgpack.unpackb(data, ext_hook=load_extension, strict_map_key=False)
    return args, kwargs


def pack(value: Any) -> bytes:
    """Pack plain data (dicts, lists, numbers, str, bytes) by msgpack."""
    return cast("bytes", msgpack.packb(value))


def unpack(data: bytes) -> Any:
    """Inverse of `pack`."""
    return msgpack.unpackb(data, strict_map_key=False)
