"""Reports of workers that cannot be true."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from rain.common.failure import Failure
from rain.common.task_template import read_info_map

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.protocol.messages import TasksDone, WorkerHello

_INFO_LISTS = ("tasks", "objects", "objects_to_delete")
_LONGEST_NAME = 300
_MAX_PORT = 65535
_MOST_LINES, _LONGEST_LINE = 1000, 4000
_MOST_ENTRIES, _DEEPEST = 200_000, 16
_LONGEST = 1e12
"""Seconds; longer, negative and not finite durations would spoil the averages of the scheduler."""


class ReportError(Exception):
    """A report contradicts itself or what it tells of. Raised before anything is changed for it: the worker is dropped,
    its tasks run elsewhere, and the session does not suffer."""


def check_run(message: TasksDone, position: int, at: int, outputs: int) -> None:
    """Check the report of one run: its duration, and that the columns have its outputs, which begin at `at`.

    Raises:
        ReportError: they have not.
    """
    if at + outputs > len(message.sizes) or not 0.0 <= message.durations[position] <= _LONGEST:
        raise ReportError(f"what is said of task {message.tasks[position]} cannot be true")


def reported_failure(data: dict[str, Any]) -> Failure:
    """Read the failure a worker tells of.

    Raises:
        ReportError: it is none.
    """
    try:
        return Failure.from_map(data)
    except ValueError as error:
        raise ReportError(str(error)) from error


def told_info(packed: bytes | None) -> dict[str, Any]:
    """What a worker told of a task or an object besides its result; what is no info tells nothing."""
    if packed is None:
        return {}
    try:
        return read_info_map(packed)
    except ValueError:
        return {}


def checked_info(info: dict[str, Any]) -> dict[str, Any]:
    """The part of a WorkerInfo that clients get: three lists of ids `[session, number]`, or for a dump the map `state`,
    which JSON can hold, and the lines `log`.

    Raises:
        ReportError: one of them is not that, or has no end.
    """
    if "state" in info:
        return _checked_dump(info["state"], info.get("log", []))
    for name in _INFO_LISTS:
        ids = info.get(name, [])
        if not isinstance(ids, list) or not all(map(_is_id, ids)):
            raise ReportError(f"{name!r} of its info is not a list of ids")
    return {name: info.get(name, []) for name in _INFO_LISTS}


def _checked_dump(state: Any, log: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or not isinstance(log, list) or not all(isinstance(line, str) for line in log):
        raise ReportError("its info for a dump is not well formed")
    if len(log) > _MOST_LINES or any(len(line) > _LONGEST_LINE for line in log):
        raise ReportError("its log for a dump has too many or too long lines")
    level: list[Any] = [state]
    entries = 0
    for _ in range(_DEEPEST):
        entries += len(level)
        if entries > _MOST_ENTRIES:
            break
        level = [part for value in level for part in _parts(value)]
    if level:
        raise ReportError("its state for a dump has too many entries or levels")
    return {"state": state, "log": log}


def _parts(value: Any) -> Iterable[Any]:
    """What a value of JSON consists of."""
    kind = type(value)
    if kind is dict and all(type(key) is str and len(key) <= _LONGEST_NAME for key in value):
        return cast("Iterable[Any]", value.values())
    if kind is list:
        return cast("Iterable[Any]", value)
    plain = value is None or kind is bool or kind is int or (kind is str and len(value) <= _LONGEST_LINE)
    if plain or (kind is float and isfinite(value)):
        return ()
    raise ReportError(f"its state for a dump has a {kind.__name__} that JSON does not know, or a too long text")


def _is_id(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)


def check_hello(message: WorkerHello) -> None:
    """Check the texts of a WorkerHello: they go into messages to others and into logs.

    Raises:
        ReportError: its address or a name is not one.
    """
    host, _, port = message.address.rpartition(":")
    if not host or " " in host or not (port.isascii() and port.isdigit() and int(port[:6]) <= _MAX_PORT):
        raise ReportError(f"{message.address[:_LONGEST_NAME]!r} is not the address of a data port")
    for name in (host, message.hostname, message.python):
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise ReportError(f"{name[:_LONGEST_NAME]!r} is not a name")
