"""Inputs of a call: from what the worker sent to data instances and values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rain.common.attributes import ObjectInfo, ObjectSpec
from rain.common.content_type import has_codec, is_type_instance
from rain.common.data_instance import DataInstance
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.ids import ID
from rain.common.packing import unpack
from rain.common.pickle5 import decode_pickle5
from rain.executor.results import PICKLE5_INFO

if TYPE_CHECKING:
    from collections.abc import Iterable

INFO, VALUE, LIVE = 2, 3, 4
"""Positions in the row of an object; the value is None until an earlier call of the batch has made it. Then the value
itself follows if that cannot be changed and nobody could tell it from a decoded copy."""

# The store's files are read-only, but not for root: it gets copies.
_MAY_LINK = os.geteuid() != 0


class InputObject:
    """A data object as the worker sent it: bytes, or the path of a file.

    Args:
        session: session id.
        row: `[id, packed spec or None, packed info or None, bytes or path]`.
    """

    __slots__ = ("_info", "_spec", "id", "value")

    def __init__(self, session: int, row: Iterable[Any]) -> None:
        number, self._spec, self._info, self.value = row
        self.id = ID(session, number)

    def instance(self) -> DataInstance:
        """A data instance of its own for one call, as user code may change spec and info."""
        spec_map = unpack(self._spec) if self._spec else {}
        spec_map["data_type"] = data_type = DataType(spec_map.get("data_type", "blob"))
        spec_map["id"] = self.id
        info = ObjectInfo(**(unpack(self._info) if self._info else {}))
        value = self.value
        on_disk = isinstance(value, str)
        instance = DataInstance(
            data_type,
            data=None if on_disk else value,
            path=value if on_disk else None,
            info=info,
            spec=ObjectSpec(**spec_map),
            object_id=self.id,
        )
        info.size = instance.size
        instance._linkable = on_disk and _MAY_LINK
        return instance

    def natural(self) -> Any:
        """The value as `result()` gives it: decoded, bytes where there is no decoder, directories as they are."""
        if self._info == PICKLE5_INFO and isinstance(self.value, bytes):
            return decode_pickle5(self.value)
        instance = self.instance()
        if instance.data_type is DataType.DIRECTORY:
            return instance
        if has_codec(instance.content_type):
            return instance.load()
        return instance.get_bytes()


def typed_instance(instance: DataInstance, name: str, content_type: str | None) -> DataInstance:
    """Check an input against the content type declared for the parameter `name`.

    Raises:
        RainException: the object has another type.
    """
    if content_type:
        if instance.content_type is None:
            instance.info.content_type = content_type
        elif not is_type_instance(instance.content_type, content_type):
            raise RainException(
                f"Argument {name!r} must have content type {content_type!r}, "
                f"but the data object {instance.object_id} has {instance.content_type!r}"
            )
    return instance
