"""Data objects: immutable values declared in a graph."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from rain.client.embedding import embed
from rain.client.shape import ObjectShape, object_shape
from rain.client.specs import object_info
from rain.common import fs
from rain.common.attribute_views import ObjectAttributes
from rain.common.attributes import ObjectInfo, ObjectSpec
from rain.common.content_type import check_content_type, encode_value, merge_content_types
from rain.common.data_type import DataType
from rain.common.errors import RainException
from rain.common.ids import ID
from rain.common.states import DataObjectState

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from rain.client.base import BaseSession
    from rain.client.session import Session
    from rain.common.data_instance import DataInstance

DECLARED, OUTPUT, CONSTANT = 0, 1, 2
"""What a data object is: not yet known, an output made together with its task, a constant."""


class DataObject:
    """A data object, registered in its session.

    In an AsyncSession the methods that talk to the server return coroutines.

    Args:
        label: default label of the task output it becomes.
        session: where it is made; the active session if None.
        data_type: blob or directory.
        content_type: static content type.

    Raises:
        RainException: no active session.
        SessionException: the session is closed.
        ValueError: unknown content type.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_keep",
        "_number",
        "_own_spec",
        "_own_state",
        "_role",
        "_session",
        "_shape",
        "_told",
    )

    _number: int
    _value_number: int
    """The number once more, by the name that calls which stand for their only output have for the number of that."""
    _session: BaseSession
    _shape: ObjectShape
    _own_spec: ObjectSpec | None
    _own_state: DataObjectState | None
    _told: ObjectInfo | tuple[bytes | None, int] | None
    _data: bytes | None
    _keep: bool
    _role: int

    def __init__(
        self,
        label: str | None = None,
        session: BaseSession | None = None,
        data_type: DataType = DataType.BLOB,
        content_type: str | None = None,
    ) -> None:
        if label is not None and not isinstance(label, str):
            raise TypeError(f"The label of a data object must be a str or None, not {label!r}")
        check_content_type(content_type)
        self._fill(ObjectShape(label or "", content_type or "", DataType(data_type)), DECLARED)
        _session_for(session)._register(self)

    def _fill(self, shape: ObjectShape, role: int, data: bytes | None = None) -> None:
        self._shape = shape
        self._role = role
        self._data = data
        self._keep = False
        self._own_spec = None
        self._own_state = None
        self._told = None

    @property
    def id(self) -> ID:
        """Session id and number."""
        session = self._session
        if self._number >= session._submitted:
            session._fix_id(self)
        return ID(session.session_id, self._number)

    @property
    def session(self) -> Session:
        """The session it belongs to; of an asyncio client an AsyncSession."""
        return cast("Session", self._session)

    @property
    def state(self) -> DataObjectState | None:
        """Snapshot of the state; None until submit."""
        if self._own_state is not None:
            return self._own_state
        if self._number < self._session._settled:
            return DataObjectState.finished
        return DataObjectState.unfinished if self._is_submitted else None

    @property
    def _is_submitted(self) -> bool:
        return self._number < self._session._submitted

    @property
    def spec(self) -> ObjectSpec:
        """What was asked; `spec.user` may be edited before submit."""
        spec = self._own_spec
        if spec is None:
            shape = self._shape
            spec = self._own_spec = ObjectSpec(
                id=self.id,
                label=shape.label,
                content_type=shape.content_type,
                data_type=shape.data_type,
                user=dict(shape.user),
                size_hint=shape.size_hint,
            )
        return spec

    @property
    def _spec(self) -> ObjectSpec:
        return self.spec

    @property
    def _info(self) -> ObjectInfo | None:
        """What is known of the value. What came with an answer is read only if somebody asks."""
        told = self._told
        if type(told) is tuple:
            told = self._told = object_info(*told)
        return cast("ObjectInfo | None", told)

    @_info.setter
    def _info(self, info: ObjectInfo | None) -> None:
        self._told = info

    @property
    def info(self) -> ObjectInfo | None:
        """What happened; None until update or fetch."""
        return self._info

    @property
    def label(self) -> str | None:
        """The label, None if it has none."""
        return (self._shape.label if self._own_spec is None else self._own_spec.label) or None

    @property
    def content_type(self) -> str | None:
        """The static and, once known, the dynamic content type, merged; None when nothing is known."""
        static = self._shape.content_type if self._own_spec is None else self._own_spec.content_type
        dynamic = self._info.content_type if self._info is not None else None
        return merge_content_types(static, dynamic) or None

    @property
    def data(self) -> bytes | None:
        """The bytes of a constant, else None."""
        return self._data

    @property
    def size(self) -> int | None:
        """Bytes, after update or fetch; else None."""
        return self._info.size if self._info is not None else None

    @property
    def attributes(self) -> ObjectAttributes:
        """Spec and info as one mapping."""
        return ObjectAttributes(self.spec, self._info)

    def keep(self) -> None:
        """Set the keep flag.

        Raises:
            RainException: the object is submitted.
        """
        if self._is_submitted:
            raise RainException(f"Cannot keep {self!r}: it is submitted; call keep() before submit")
        self._keep = True

    def unkeep(self) -> None:
        """Take the keep flag away; see `Session.unkeep`."""
        return self._session._run(self._session._unkeep((self,)))

    def is_kept(self) -> bool:
        """Whether the keep flag is set."""
        return self._keep

    def wait(self, timeout: float | str | None = None, *, progress: bool = False) -> None:
        """Wait until the object is finished; `progress`: with a progress bar, see `Session.progress`."""
        return self._session._run(self._session._wait((self,), timeout, progress))

    def fetch(self, *, to: str | Path | None = None, timeout: float | str | None = None) -> DataInstance:
        """The value; see `Session.fetch`."""
        return self._session._run(self._session._fetch(self, to, timeout))

    def update(self) -> None:
        """Refresh state and info."""
        return self._session._run(self._session._update((self,)))

    def result(self, timeout: float | str | None = None) -> Any:
        """The decoded value; submits the session first if needed."""
        from rain.client.results import result_of

        return self._session._run(result_of(self._session._front, self, timeout))

    def done(self) -> bool:
        """Whether the object is terminal according to the server; False when unsubmitted."""
        from rain.client.results import is_done

        return self._session._run(is_done(self._session._front, self))

    def exception(self, timeout: float | str | None = None) -> RainException | None:
        """Wait; the exception that `result()` would raise, or None."""
        from rain.client.results import exception_of

        return self._session._run(exception_of(self._session._front, self, timeout))

    def __await__(self) -> Generator[Any, None, Any]:
        from rain.client.results import result_of

        return result_of(self._session._front_in_loop, self, None).__await__()

    def is_blob(self) -> bool:
        """Whether it is a blob."""
        return self._shape.data_type is DataType.BLOB

    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self._shape.data_type is DataType.DIRECTORY

    def expect_blob(self) -> None:
        """Raises:
        TypeError: it is a directory.
        """
        if not self.is_blob():
            raise TypeError(f"A blob is expected, {self!r} is a directory")

    def expect_dir(self) -> None:
        """Raises:
        TypeError: it is a blob.
        """
        if not self.is_directory():
            raise TypeError(f"A directory is expected, {self!r} is a blob")

    def __reduce__(self) -> tuple[Any, ...]:
        return embed(self, self)

    def __repr__(self) -> str:
        kind = " [D]" if self.is_directory() else ""
        label = f" {self.label}" if self.label else ""
        return f"<DObj{label} id={self.id}{kind}>"

    def _repr_html_(self) -> str:
        from rain.client.html import object_html

        return object_html(self)


DataObject._value_number = DataObject._number  # type: ignore[misc]  # one slot, two names
_new_object = DataObject.__new__


def output_object(shape: ObjectShape) -> DataObject:
    """A data object that is made together with its task, not registered yet."""
    made: DataObject = _new_object(DataObject)
    made._shape = shape
    made._role = OUTPUT
    made._data = None
    made._keep = False
    made._own_spec = None
    made._own_state = None
    made._info = None
    return made


def declare(shape: ObjectShape, session: BaseSession | None) -> DataObject:
    """Make and register a data object that a task will be the producer of."""
    made: DataObject = _new_object(DataObject)
    made._fill(shape, DECLARED)
    _session_for(session)._register(made)
    return made


def constant(shape: ObjectShape, data: bytes, session: BaseSession | None, *, keep: bool = False) -> DataObject:
    """Make and register a constant."""
    made: DataObject = _new_object(DataObject)
    made._fill(shape, CONSTANT, data)
    made._keep = keep
    _session_for(session)._register(made)
    return made


def _session_for(session: BaseSession | None) -> BaseSession:
    if session is not None:
        return session
    from rain.client.session import get_active_session

    return get_active_session()


def blob(
    value: Any,
    label: str = "const",
    content_type: str | None = None,
    encode: str | None = None,
    session: BaseSession | None = None,
) -> DataObject:
    """A constant.

    Args:
        value: bytes, stored as they are; str without `encode`, stored as UTF-8 with type `text`; with `encode` any
            value that this content type can encode.
        label: its label.
        content_type: type of the bytes given.
        encode: content type by which the value is encoded.
        session: where it is made; the active session if None.

    Raises:
        RainException: neither bytes nor str and no `encode`; `content_type` together with `encode` or with something
            that is not bytes; the value cannot be encoded; no active session.
        ValueError: unknown content type.
        SessionException: the session is closed.
    """
    check_content_type(content_type)
    check_content_type(encode)
    if encode is not None:
        if content_type is not None:
            raise RainException("blob(): give content_type (of ready bytes) or encode (how to make bytes), not both")
        data, content_type = encode_value(value, encode), encode
    elif isinstance(value, str):
        if content_type is not None:
            raise RainException("blob(): content_type is for bytes; for a str use encode=")
        data, content_type = value.encode(), "text"
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
    else:
        raise RainException(
            f"blob() takes bytes or str, not {type(value).__name__}; use blob(value, encode=...) or pickled(value)"
        )
    return constant(object_shape(label or "", content_type or ""), data, session)


def pickled(val: Any, label: str = "pickle", session: BaseSession | None = None) -> DataObject:
    """A constant with the pickled value: `blob(val, label, encode="pickle")`.

    Raises:
        RainException: as for `blob`.
    """
    return blob(val, label, encode="pickle", session=session)


def directory(
    path: str | os.PathLike[str] | None = None, label: str = "const_dir", session: BaseSession | None = None
) -> DataObject:
    """A constant made of a local directory; it is packed now.

    Args:
        path: the directory; None = an empty one.
        label: its label.
        session: where it is made; the active session if None.

    Raises:
        RainException: it is no directory, something in it cannot be read or packed; no active session.
        SessionException: the session is closed.
    """
    try:
        data = fs.empty_directory() if path is None else fs.pack_directory(path)
    except OSError as error:
        raise RainException(f"The directory {os.fspath(path or '')!r} cannot be packed: {error}") from error
    return constant(object_shape(label or "", "", DataType.DIRECTORY), data, session)


def to_dataobj(value: Any) -> DataObject:
    """A data object as it is; a task with one output gives that output.

    Raises:
        RainException: it is something else, or a task with another number of outputs.
    """
    from rain.client.task import Task

    if isinstance(value, DataObject):
        return value
    if isinstance(value, Task):
        return value.output
    raise RainException(
        f"A data object is expected, not {type(value).__name__} {value!r:.60}; use blob() or pickled() to make one"
    )


to_data = to_dataobj


__all__ = ["DataObject", "blob", "directory", "pickled", "to_data", "to_dataobj"]
