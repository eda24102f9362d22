"""Built-in tasks: classes (first argument is what they work on) and functions (spelling of Rain 0.1 and 0.2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from rain.client.data import DataObject, to_dataobj
from rain.client.execute import Execute, execute
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import Output, OutputBase, OutputDir, to_output
from rain.client.task import Task
from rain.common.units import parse_duration

if TYPE_CHECKING:
    from rain.client.base import BaseSession


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

    def __init__(self, inputs: Iterable[Any], *, session: BaseSession | None = None, **options: Any) -> None:
        self._build_concat(inputs, session, options, task_first=True)

    def _build_concat(
        self, inputs: Any, session: BaseSession | None, options: dict[str, Any], *, task_first: bool
    ) -> None:
        if not isinstance(inputs, (str, bytes, DataObject, Task)) and isinstance(inputs, Iterable):
            inputs = list(inputs)
            for item in inputs:
                _object_of(item).expect_blob()
        self._build(None, None, inputs, 1, session, read_options(**options), labelled=False, task_first=task_first)


class Sleep(Task):
    """Gives its input on after some time.

    Args:
        input: data object or task with one output.
        timeout: seconds to sleep, or text such as `"5 s"`; 0 is allowed.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: the arguments are in the order of `sleep`.
        ValueError: a negative time, or a text that is no duration.
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
        session: BaseSession | None = None,
        **options: Any,
    ) -> None:
        if _is_number(input) or isinstance(timeout, (DataObject, Task)):
            raise TypeError(
                "Sleep(input, timeout) takes the data object first; the other order is sleep(timeout, dataobj)"
            )
        self._build_sleep(input, timeout, session, {"cpus": cpus, **options}, task_first=True)

    def _build_sleep(
        self,
        input: Any,
        timeout: float | str,
        session: BaseSession | None,
        options: dict[str, Any],
        *,
        task_first: bool,
    ) -> None:
        source = to_dataobj(input)
        if not (isinstance(timeout, str) or _is_number(timeout)):
            raise TypeError(f"The time to sleep must be a number of seconds or a str such as '5 s', not {timeout!r}")
        seconds = parse_duration(timeout) if isinstance(timeout, str) else float(timeout)
        if not 0 <= seconds < math.inf:
            raise ValueError(f"The time to sleep must be a number of seconds from 0 on, not {timeout!r}")
        output: OutputBase = (OutputDir if source.is_directory() else Output)(
            content_type=source.spec.content_type or None
        )
        self._build(
            None, seconds, (source,), (output,), session, read_options(**options), labelled=False, task_first=task_first
        )


class Load(Task):
    """A file on the worker that runs the task; it should exist on all.

    Args:
        path: absolute path.
        output: label or Output.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: the path is no path, or the output is a directory.
    """

    TASK_TYPE = "buildin/open"

    __slots__ = ()

    def __init__(self, path: Any, output: Any = None, *, session: BaseSession | None = None, **options: Any) -> None:
        self._build_load(path, output, session, options, task_first=True)

    def _build_load(
        self, path: Any, output: Any, session: BaseSession | None, options: dict[str, Any], *, task_first: bool
    ) -> None:
        made = to_output(Output() if output is None else output)
        made.expect_blob()
        _build_with_path(self, path, (), (made,), session, options, task_first)


class LoadDir(Task):
    """A directory on the worker that runs the task; it should exist on all.

    Args:
        path: absolute path.
        output: label or OutputDir.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: the path is no path, or the output is a blob.
    """

    TASK_TYPE = "buildin/open_dir"

    __slots__ = ()

    def __init__(self, path: Any, output: Any = None, *, session: BaseSession | None = None, **options: Any) -> None:
        self._build_load(path, output, session, options, task_first=True)

    def _build_load(
        self, path: Any, output: Any, session: BaseSession | None, options: dict[str, Any], *, task_first: bool
    ) -> None:
        _build_with_path(self, path, (), (_directory_output(output),), session, options, task_first)


class Store(Task):
    """Writes a blob or a directory to the file system of the worker that runs the task. No outputs.

    Args:
        input: data object or task with one output.
        path: absolute path.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: the path is no path.
        RainException: the input is no data object.
    """

    TASK_TYPE = "buildin/export"

    __slots__ = ()

    def __init__(self, input: Any, path: Any, *, session: BaseSession | None = None, **options: Any) -> None:
        _build_with_path(self, path, (to_dataobj(input),), (), session, options, task_first=True)


class MakeDirectory(Task):
    """A directory made of values.

    Args:
        paths_objects: pairs of a relative path and a data object, or a dict of these. Parents are made; directories
            become subtrees.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: something else than pairs or a dict.
        RainException: a value is no data object.
    """

    TASK_TYPE = "buildin/make_directory"

    __slots__ = ()

    def __init__(self, paths_objects: Any, *, session: BaseSession | None = None, **options: Any) -> None:
        self._build_directory(paths_objects, session, options, task_first=True)

    def _build_directory(
        self, paths_objects: Any, session: BaseSession | None, options: dict[str, Any], *, task_first: bool
    ) -> None:
        paths, objects = _read_pairs(paths_objects)
        self._build(
            None,
            {"paths": paths},
            objects,
            (OutputDir(),),
            session,
            read_options(**options),
            labelled=False,
            task_first=task_first,
        )


class SliceDirectory(Task):
    """A file or a directory out of a directory.

    Args:
        input: directory, or task whose output is one.
        path: in the directory; with `/` at its end it is a directory, else a blob.
        output: label, or Output or OutputDir as the path wants it; default label is the path.
        session: where it is made; the active session if None.
        options: task options.

    Raises:
        TypeError: the input is a blob, or the output does not fit the path.
        RainException: the input is no data object.
    """

    TASK_TYPE = "buildin/slice_directory"

    __slots__ = ()

    def __init__(
        self, input: Any, path: Any, output: Any = None, *, session: BaseSession | None = None, **options: Any
    ) -> None:
        self._build_slice(input, path, output, session, options, task_first=True)

    def _build_slice(
        self,
        input: Any,
        path: Any,
        output: Any,
        session: BaseSession | None,
        options: dict[str, Any],
        *,
        task_first: bool,
    ) -> None:
        source = to_dataobj(input)
        source.expect_dir()
        name = _path(path)
        if name.endswith("/"):
            made = _directory_output(output)
        else:
            made = to_output(Output() if output is None else output)
            made.expect_blob()
        _build_with_path(self, name, (source,), (made.with_label(name),), session, options, task_first)


def concat(objs: Iterable[Any], *, session: BaseSession | None = None, **options: Any) -> Concat:
    """As `Concat`, with the output registered before the task."""
    task = Concat.__new__(Concat)
    task._build_concat(objs, session, options, task_first=False)
    return task


def sleep(
    timeout: Any,
    dataobj: Any,
    cpus: int | None = DEFAULT_CPUS,
    *,
    session: BaseSession | None = None,
    **options: Any,
) -> Sleep:
    """As `Sleep`, with the time first, and the output registered before the task."""
    if _is_number(dataobj) or isinstance(timeout, (DataObject, Task)):
        raise TypeError("sleep(timeout, dataobj) takes the time first; the other order is Sleep(input, timeout)")
    task = Sleep.__new__(Sleep)
    task._build_sleep(dataobj, timeout, session, {"cpus": cpus, **options}, task_first=False)
    return task


def open(filename: Any, *, session: BaseSession | None = None, **options: Any) -> Load:
    """As `Load`, with the output registered before the task."""
    task = Load.__new__(Load)
    task._build_load(filename, None, session, options, task_first=False)
    return task


def open_dir(path: Any, *, session: BaseSession | None = None, **options: Any) -> LoadDir:
    """As `LoadDir`, with the output registered before the task."""
    task = LoadDir.__new__(LoadDir)
    task._build_load(path, None, session, options, task_first=False)
    return task


def export(dataobj: Any, filename: Any, *, session: BaseSession | None = None, **options: Any) -> Store:
    """As `Store`."""
    return Store(dataobj, filename, session=session, **options)


def make_directory(pairs: Any, *, session: BaseSession | None = None, **options: Any) -> MakeDirectory:
    """As `MakeDirectory`, with the output registered before the task."""
    task = MakeDirectory.__new__(MakeDirectory)
    task._build_directory(pairs, session, options, task_first=False)
    return task


def slice_directory(
    obj: Any, path: Any, content_type: str | None = None, *, session: BaseSession | None = None, **options: Any
) -> SliceDirectory:
    """As `SliceDirectory`, with the content type of the output, which is registered before the task."""
    output = (OutputDir if _path(path).endswith("/") else Output)(content_type=content_type)
    task = SliceDirectory.__new__(SliceDirectory)
    task._build_slice(obj, path, output, session, options, task_first=False)
    return task


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _object_of(item: Any) -> DataObject:
    if isinstance(item, tuple) and len(item) == 2 and not isinstance(item[1], tuple):
        item = item[1]
    return to_dataobj(item)


def _path(path: Any) -> str:
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"A path must be a str, not {path!r}")
    return name


def _directory_output(output: Any) -> OutputBase:
    if output is None or isinstance(output, str):
        return OutputDir(output)
    made = to_output(output)
    made.expect_dir()
    return made


def _read_pairs(given: Any) -> tuple[list[str], list[DataObject]]:
    pairs = given.items() if isinstance(given, Mapping) else given
    if isinstance(pairs, (str, bytes, DataObject, Task)) or not isinstance(pairs, Iterable):
        raise TypeError(f"Pairs of a path and a data object, or a dict of these, are expected, not {given!r}")
    paths: list[str] = []
    objects: list[DataObject] = []
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], (str, os.PathLike)):
            raise TypeError(f"A pair of a path and a data object is expected, not {pair!r}")
        paths.append(_path(pair[0]))
        objects.append(to_dataobj(pair[1]))
    return paths, objects


def _build_with_path(
    task: Task,
    path: Any,
    inputs: Iterable[DataObject],
    outputs: Iterable[OutputBase],
    session: BaseSession | None,
    options: dict[str, Any],
    task_first: bool,
) -> None:
    task._build(
        None,
        {"path": _path(path)},
        inputs,
        outputs,
        session,
        read_options(**options),
        labelled=False,
        task_first=task_first,
    )


__all__ = [
    "Concat",
    "Execute",
    "Load",
    "LoadDir",
    "MakeDirectory",
    "Sleep",
    "SliceDirectory",
    "Store",
    "Task",
    "concat",
    "execute",
    "export",
    "make_directory",
    "open",
    "open_dir",
    "sleep",
    "slice_directory",
]
