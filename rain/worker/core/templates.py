"""The only place of the core that reads msgpack: templates and object specs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.links import unpack_assigned
from rain.common.task_template import read_spec_map, read_template_map
from rain.worker.core.actions import RunLink
from rain.worker.core.executors import PYTHON
from rain.worker.core.model import Template
from rain.worker.core.resources import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rain.worker.core.model import Session
    from rain.worker.core.queues import Env, ReadyQueues

BUILTIN_PREFIXES = ("buildin/", "builtin/", "!")


def read_template(session: Session, number: int, packed: bytes, queues: ReadyQueues) -> Template:
    """Unpack a template and find its queue.

    Raises:
        ValueError: it is not a template.
    """
    try:
        data = read_template_map(packed)
        task_type = data["task_type"]
        request = Request.parse(data.get("resources"))
        specs = tuple([_packed(spec) for spec in data.get("outputs") or ()])
        priority = int(data.get("priority") or 0)
        executor_type = executor_type_of(task_type)
        timeout = _time_limit(data.get("timeout"))
        env: Env = tuple(sorted((data.get("env") or {}).items())) if executor_type else ()
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"template {number} of session {session.id} is malformed: {error}") from error
    return Template(session, number, data, queues.queue(executor_type, env, request), priority, specs, timeout)


def read_link(packed: bytes, members: int, inputs: int, templates: Mapping[int, Template]) -> RunLink:
    """Unpack the link of a block of so many members and inputs.

    Raises:
        ValueError: it is malformed, or names an unknown template.
    """
    link, _ = unpack_assigned(packed, members, inputs)
    unknown = set(link.templates).difference(templates)
    if unknown:
        raise ValueError(f"unknown templates {sorted(unknown)}")
    return RunLink(packed, tuple([(number, templates[number].data) for number in link.templates]), link.which)


def executor_type_of(task_type: str) -> str:
    """Which type of executor runs tasks of this type; `""`: the worker itself."""
    if task_type.startswith(BUILTIN_PREFIXES):
        return ""
    return task_type.partition("/")[0] or PYTHON


def _time_limit(value: float | None) -> float | None:
    if value is None:
        return None
    limit = float(value)
    if not limit >= 0.0:
        raise ValueError(f"a time limit of {value!r} seconds")
    return limit


def is_directory(spec: bytes | None) -> bool:
    """Whether a packed object spec says so.

    Raises:
        ValueError: it is not a spec.
    """
    if not spec:
        return False
    return bool(read_spec_map(spec).get("data_type") == "dir")


def _packed(spec: bytes | dict[str, Any] | None) -> bytes | None:
    if not spec:
        return None
    if isinstance(spec, bytes):
        return spec
    packed: bytes = msgpack.packb(spec)
    return packed
