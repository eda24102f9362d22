"""Built-in tasks: classes (first argument is what they work on) and functions (spelling of Rain 0.1 and 0.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any

from rain.client.data import DataObject, to_dataobj
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import Output, OutputBase, OutputDir
from rain.client.task import Task

if TYPE_CHECKING:
    from rain.client.session import Session


class Concat(Task):
    """The blobs one after the other; of no blobs an empty one.

    Args:
        inputs: data objects and tasks with one output.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: an input is a directory.
        RainException: an input is no data object.
    """

    TASK_TYPE = "buildin/concat"

    __slots__ = ()

    def __init__(self, inputs: Iterable[Any], *, session: Session | None = None, **options: Any) -> None:
        self._build_concat(inputs, session, options, task_first=True)

    def _build_concat(self, inputs: Any, session: Session | None, options: dict[str, Any], *, task_first: bool) -> None:
        if not isinstance(inputs, (str, bytes, DataObject, Task)) and isinstance(inputs, Iterable):
            inputs = list(inputs)
            for item in inputs:
                _object_of(item).expect_blob()
        self._build(None, None, inputs, 1, session, read_options(**options), labelled=False, task_first=task_first)


class Sleep(Task):
    """Gives its input on after some time.

    Args:
        input: data object or task with one output.
        timeout: seconds to sleep; 0 is allowed.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: the arguments are in the order of `sleep`.
        ValueError: a negative time.
        RainException: the input is no data object.
    """

    TASK_TYPE = "buildin/sleep"

    __slots__ = ()

    def __init__(
        self,
        input: Any,
        timeout: Any,
        *,
        cpus: int | None = DEFAULT_CPUS,
        session: Session | None = None,
        **options: Any,
    ) -> None:
        if _is_number(input) or isinstance(timeout, (DataObject, Task)):
            raise TypeError(
                "Sleep(input, timeout) takes the data object first; the other order is sleep(timeout, dataobj)"
            )
        self._build_sleep(input, timeout, session, {"cpus": cpus, **options}, task_first=True)

    def _build_sleep(
        self, input: Any, timeout: float, session: Session | None, options: dict[str, Any], *, task_first: bool
    ) -> None:
        source = to_dataobj(input)
        if not _is_number(timeout):
            raise TypeError(f"The time to sleep must be a number of seconds, not {timeout!r}")
        seconds = float(timeout)
        if not 0 <= seconds < math.inf:
            raise ValueError(f"The time to sleep must be a number of seconds from 0 on, not {timeout!r}")
        output: OutputBase = (OutputDir if source.is_directory() else Output)(
            content_type=source.spec.content_type or None
        )
        self._build(
            None, seconds, (source,), (output,), session, read_options(**options), labelled=False, task_first=task_first
        )


def concat(objs: Iterable[Any], *, session: Session | None = None, **options: Any) -> Concat:
    """As `Concat`, with the output registered before the task."""
    task = Concat.__new__(Concat)
    task._build_concat(objs, session, options, task_first=False)
    return task


def sleep(
    timeout: Any,
    dataobj: Any,
    cpus: int | None = DEFAULT_CPUS,
    *,
    session: Session | None = None,
    **options: Any,
) -> Sleep:
    """As `Sleep`, with the time first, and the output registered before the task."""
    if _is_number(dataobj) or isinstance(timeout, (DataObject, Task)):
        raise TypeError("sleep(timeout, dataobj) takes the time first; the other order is Sleep(input, timeout)")
    task = Sleep.__new__(Sleep)
    task._build_sleep(dataobj, timeout, session, {"cpus": cpus, **options}, task_first=False)
    return task


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _object_of(item: Any) -> DataObject:
    if isinstance(item, tuple) and len(item) == 2 and not isinstance(item[1], tuple):
        item = item[1]
    return to_dataobj(item)


__all__ = ["Concat", "Sleep", "Task", "concat", "sleep"]
