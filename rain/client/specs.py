"""Between the compact form in which tasks are kept and sent, and the specs and infos that users see."""

from __future__ import annotations

import base64
import pickle
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgpack

from rain.client.shape import ObjectShape, TaskOptions, TaskShape, pack_plain
from rain.common.attributes import ObjectInfo, TaskInfo, TaskSpec, TaskSpecInput
from rain.common.fs import packed_size
from rain.common.packing import pack, unpack

if TYPE_CHECKING:
    from rain.client.data import DataObject
    from rain.client.task import Task
    from rain.common.attributes import ObjectSpec


def spec_of(task: Task) -> TaskSpec:
    """A spec of its own for a task that had only its shape so far."""
    shape, options = task._shape, task._shape.options
    labels = shape.labels or (None,) * len(task._inputs)
    return TaskSpec(
        id=task.id,
        task_type=shape.task_type,
        config=config_of(task),
        inputs=[
            TaskSpecInput(id=dataobj.id, label=label or "")
            for dataobj, label in zip(task._input_objects, labels, strict=True)
        ],
        outputs=[output.id for output in task._outputs],
        resources=dict(options.resources),
        name=options.name,
        user=dict(options.user),
        retries=options.retries,
        timeout=options.timeout,
        priority=options.priority,
        cache=options.cache,
        env=dict(options.env),
    )


def config_of(task: Task) -> Any:
    """The config as users see it; arguments of Python calls are base64-encoded pickles in it."""
    if not task._shape.has_config:
        return None if task._args is None else unpack(task._args)
    config = task._shape.config
    if task._args is None:
        return config
    args, kwargs = msgpack.unpackb(task._args, ext_hook=msgpack.ExtType, strict_map_key=False)
    return {
        "args": [_encoded(value) for value in args],
        "kwargs": {name: _encoded(value) for name, value in kwargs.items()},
        **config,
    }


def _encoded(value: Any) -> str:
    blob = value.data if isinstance(value, msgpack.ExtType) else pickle.dumps(value, 5)
    return base64.b64encode(blob).decode()


def edited_task(task: Task) -> tuple[TaskShape, bytes | None]:
    """Shape and arguments of a task as its spec, which may have been edited, asks for them.

    Raises:
        ValueError, TypeError: an option in the spec is not allowed.
        RainException: config or user data are no plain data.
    """
    from rain.client.options import read_options

    spec, shape = task._own_spec, task._shape
    assert spec is not None
    options: TaskOptions = read_options(
        name=spec.name,
        cpus=None,
        resources=spec.resources,
        retries=spec.retries,
        timeout=spec.timeout,
        priority=spec.priority,
        cache=spec.cache,
        env=spec.env,
        user_spec=spec.user,
    )
    new = TaskShape(spec.task_type, options, shape.labels, shape.outputs, shape.has_config, shape.config)
    if shape.has_config:
        return new, task._args
    return new, None if spec.config is None else pack_plain(spec.config, f"config of {task!r}")


def edited_object(spec: ObjectSpec) -> ObjectShape:
    """The shape that a spec, which may have been edited, asks for."""
    return ObjectShape(spec.label, spec.content_type or "", spec.data_type, spec.size_hint, spec.user)


def task_info(packed: bytes) -> TaskInfo:
    """Read the info of a task as the server sends it."""
    fields: dict[str, Any] = unpack(packed)
    start = fields.get("start_time")
    if isinstance(start, (int, float)):
        fields["start_time"] = _timestamp(start) if start else ""
    exception = fields.get("exception")
    if isinstance(exception, bytes):
        fields["exception"] = base64.b64encode(exception).decode()
    return TaskInfo(**fields)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


PICKLE5_INFO = pack({"content_type": "pickle5"})
"""The packed info of nearly all values."""


def object_info(packed: bytes | None, size: int | None = None) -> ObjectInfo:
    """Read the info of an object as the server sends it; `size` where it travels beside it."""
    fields: dict[str, Any] = unpack(packed) if packed else {}
    info = ObjectInfo(**fields)
    if size is not None:
        info.size = size
    return info


def size_of(dataobj: DataObject, told: int) -> int:
    """The size of an object: as told by the server, but of a constant directory the sum of its file sizes."""
    if dataobj._data is None or dataobj.is_blob():
        return told
    return packed_size(dataobj._data)


def object_shape(dataobj: DataObject) -> ObjectShape:
    """The shape of an object, as its spec asks for it if somebody looked at that."""
    return dataobj._shape if dataobj._own_spec is None else edited_object(dataobj._own_spec)
