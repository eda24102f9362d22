"""What many tasks, or many objects, have in common: immutable, shared between them and sent once.

A task carries a shape and what is its own (ids, inputs, arguments). Only when somebody looks at `task.spec`, which may
be edited, does the task get a spec of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import msgpack

from rain.common.data_type import DataType
from rain.common.errors import RainException


@dataclass(frozen=True, eq=False)
class ObjectShape:
    """The spec of a data object without its id. label and content_type: `""` = none; size_hint: MB or None."""

    label: str = ""
    content_type: str = ""
    data_type: DataType = DataType.BLOB
    size_hint: float | None = None
    user: Mapping[str, Any] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """The form in messages: defaults are absent."""
        fields: dict[str, Any] = {}
        if self.label:
            fields["label"] = self.label
        if self.content_type:
            fields["content_type"] = self.content_type
        if self.data_type is not DataType.BLOB:
            fields["data_type"] = self.data_type.value
        if self.user:
            fields["user"] = dict(self.user)
        if self.size_hint is not None:
            fields["size_hint"] = self.size_hint
        return fields

    @cached_property
    def packed(self) -> bytes:
        """The form in messages, packed."""
        return pack_plain(self.to_map(), f"spec of data object {self.label!r}")


PLAIN_BLOB = ObjectShape()


@lru_cache(maxsize=1024)
def object_shape(
    label: str = "", content_type: str = "", data_type: DataType = DataType.BLOB, size_hint: float | None = None
) -> ObjectShape:
    """A shape without user data; the same object for equal arguments."""
    return ObjectShape(label, content_type, data_type, size_hint)


@dataclass(frozen=True, eq=False)
class TaskOptions:
    """Task options in their final form; see the parameters of `read_options`."""

    name: str | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0
    timeout: float | None = None
    priority: int = 0
    cache: bool | str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    user: Mapping[str, Any] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """The form in messages: defaults are absent."""
        fields: dict[str, Any] = {}
        for name in ("resources", "name", "user", "retries", "timeout", "priority", "cache", "env"):
            value = getattr(self, name)
            if value or (name in ("name", "timeout", "cache") and value is not None):
                fields[name] = value
        return fields


@dataclass(frozen=True, eq=False)
class TaskShape:
    """A template of tasks.

    Attributes:
        task_type: as given by the user.
        options: the task options.
        labels: of the inputs; None when no input has one.
        outputs: specs of the outputs made with the task.
        has_config: whether `config` is the config of all tasks of this shape, and the bytes of each task are arguments
            of a Python call; otherwise the bytes of each task are its packed config.
        config: see above.
        code: digest of the function, where results may be cached by it.
    """

    task_type: str
    options: TaskOptions
    labels: tuple[str | None, ...] | None
    outputs: tuple[ObjectShape, ...]
    has_config: bool = False
    config: Any = None
    code: bytes = b""

    def __post_init__(self) -> None:
        """Raises:
        ValueError: results of such tasks may not be cached.
        """
        if self.options.cache is not None:
            _check_cache(self)

    @cached_property
    def in_blocks(self) -> bool:
        """Whether the server may run such tasks in blocks: nothing must be watched for a single one."""
        options = self.options
        return (
            self.has_config
            and len(self.outputs) == 1
            and options.timeout is None
            and not options.cache
            and options.resources == {"cpus": 1}
        )

    @cached_property
    def packed(self) -> bytes:
        """The template as sent; equal shapes give equal bytes."""
        fields: dict[str, Any] = {"task_type": self.task_type}
        if self.has_config:
            fields["config"] = self.config
        fields |= self.options.to_map()
        if self.code:
            fields["cache_code"] = self.code
        if self.labels is not None:
            fields["labels"] = self.labels
        fields["outputs"] = [shape.to_map() for shape in self.outputs]
        return pack_plain(fields, f"spec of a task of type {self.task_type!r}")


_NEVER_CACHED = frozenset(
    f"{prefix}{method}"
    for method in ("open", "open_dir", "export")
    for prefix in ("buildin/", "builtin/", "!")
)


def _check_cache(shape: TaskShape) -> None:
    if shape.task_type in _NEVER_CACHED:
        raise ValueError(f"cache= is not allowed for tasks of type {shape.task_type!r}: files outside may change")
    if not shape.outputs:
        raise ValueError("cache= is not allowed for tasks without outputs")


DEFAULT_OPTIONS = TaskOptions(resources={"cpus": 1})
"""Of tasks made without any option."""


@lru_cache(maxsize=1024)
def default_shape(task_type: str, labels: tuple[str | None, ...] | None, outputs: tuple[ObjectShape, ...]) -> TaskShape:
    """The shape of tasks made without any option; the same object for equal arguments."""
    return TaskShape(task_type, DEFAULT_OPTIONS, labels, outputs)


def pack_plain(value: Any, what: str) -> bytes:
    """Pack JSON-like data.

    Raises:
        RainException: it holds something else; `what` names it.
    """
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RainException(f"The {what} must be plain data (numbers, strings, lists, dicts): {error}") from error
    return packed
