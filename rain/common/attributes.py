"""Specs (what was asked) and infos (what happened) of tasks, data objects and sessions."""

from __future__ import annotations

import copy
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

from rain.common.data_type import DataType
from rain.common.ids import ID

_NO_ID = ID(0, 0)


@dataclass(kw_only=True)
class AttributeBase:
    """Base of specs and infos: typed fields, made from keywords, with a JSON form."""

    _always: ClassVar[frozenset[str]] = frozenset()
    """Fields omitted from the JSON form only when None."""

    def _to_json(self) -> dict[str, Any]:
        """The JSON form; fields that are None or equal to their default are omitted."""
        result: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            if item.name not in self._always and _is_default(value, item):
                continue
            result[item.name] = _value_to_json(value)
        return result

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> Self:
        """Read the JSON form.

        Raises:
            AttributeError: an unknown key.
        """
        known = {item.name for item in fields(cls)}
        for name in data:
            if name not in known:
                raise AttributeError(f"{cls.__name__} has no field {name!r}")
        return cls(**{name: cls._field_from_json(name, value) for name, value in data.items()})

    @classmethod
    def _field_from_json(cls, name: str, value: Any) -> Any:
        if name == "id" and value is not None:
            return ID._from_json(value)
        return value

    def _copy(self) -> Self:
        return copy.deepcopy(self)


def _is_default(value: Any, item: Any) -> bool:
    if item.default_factory is not MISSING:
        return bool(value == item.default_factory())
    return bool(value == item.default)


def _value_to_json(value: Any) -> Any:
    if isinstance(value, AttributeBase | ID | DataType):
        return value._to_json()
    if isinstance(value, list):
        return [_value_to_json(item) for item in value]
    return value


@dataclass(kw_only=True)
class TaskSpecInput(AttributeBase):
    """One input of a task.

    Attributes:
        id: the data object.
        label: `""` when it has none.
    """

    id: ID = _NO_ID
    label: str = ""


@dataclass(kw_only=True)
class TaskSpec(AttributeBase):
    """What was asked of a task.

    Attributes:
        id: None until the task is registered.
        task_type: `"<executor>/<method>"`.
        config: any JSON value, None when the task has none.
        inputs: in order.
        outputs: ids, in order.
        resources: `cpus` (int), `gpus` (int), `memory` (bytes or text), custom numbers.
        name: shown in the dashboard; None when not given.
        user: the user's own data.
        retries: further runs after a failure.
        timeout: seconds (or text) for one run, None = no limit.
        priority: larger first.
        cache: None, True or a text.
        env: environment variables; a value None removes one.
    """

    _always: ClassVar[frozenset[str]] = frozenset({"config"})

    id: ID | None = None
    task_type: str = ""
    config: Any = None
    inputs: list[TaskSpecInput] = field(default_factory=list)
    outputs: list[ID] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    user: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    timeout: float | str | None = None
    priority: int = 0
    cache: bool | str | None = None
    env: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def _field_from_json(cls, name: str, value: Any) -> Any:
        if name == "inputs":
            return [TaskSpecInput._from_json(item) for item in value]
        if name == "outputs":
            return [ID._from_json(item) for item in value]
        return super()._field_from_json(name, value)


@dataclass(kw_only=True)
class TaskInfo(AttributeBase):
    """What happened to a task.

    Attributes:
        error: None or `""` unless it failed.
        start_time: RFC 3339, start of the last run on the worker; `""` if it never ran.
        duration: wall seconds of the last run, None if it never ran.
        governor: id of the worker of the last run.
        user: data of the user's code.
        debug: the debug stream.
        attempts: runs started.
        cached: the result came from the result cache.
        exception: base64 pickle of the original exception, or None.
    """

    error: str | None = None
    start_time: str = ""
    duration: float | None = None
    governor: str = ""
    user: dict[str, Any] = field(default_factory=dict)
    debug: str = ""
    attempts: int = 0
    cached: bool = False
    exception: str | None = None

    @property
    def worker(self) -> str:
        """Id of the worker of the last run."""
        return self.governor


@dataclass(kw_only=True)
class ObjectSpec(AttributeBase):
    """What was asked of a data object.

    Attributes:
        id: None until the object is registered.
        label: `""` when it has none.
        content_type: static type, `""` when not given.
        data_type: blob or directory.
        user: the user's own data.
        size_hint: expected size in MB, None when not given.
    """

    id: ID | None = None
    label: str = ""
    content_type: str = ""
    data_type: DataType = DataType.BLOB
    user: dict[str, Any] = field(default_factory=dict)
    size_hint: float | None = None

    @classmethod
    def _field_from_json(cls, name: str, value: Any) -> Any:
        if name == "data_type":
            return DataType(value)
        return super()._field_from_json(name, value)


@dataclass(kw_only=True)
class ObjectInfo(AttributeBase):
    """What happened to a data object.

    Attributes:
        error: `""` unless it could not be made.
        size: bytes.
        content_type: dynamic type, `""` when the producer gave none.
        user: data of the user's code.
        debug: the debug stream.
    """

    error: str = ""
    size: int = 0
    content_type: str = ""
    user: dict[str, Any] = field(default_factory=dict)
    debug: str = ""


@dataclass(kw_only=True)
class SessionSpec(AttributeBase):
    """What was asked of a session.

    Attributes:
        name: shown in the dashboard.
        user: the user's own data.
        on_failure: `"fail"` or `"continue"`.
        persistent: survives its client and a restart of the server.
    """

    name: str = ""
    user: dict[str, Any] = field(default_factory=dict)
    on_failure: str = "fail"
    persistent: bool = False
