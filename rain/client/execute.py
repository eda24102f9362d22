"""`Execute`: a task that runs a program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from rain.client.data import DataObject, to_dataobj
from rain.client.input import Input, InputBase, InputDir
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import OutputBase, to_output
from rain.client.task import Task
from rain.common.labeled_list import LabeledList

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.client.base import BaseSession
    from rain.client.shape import TaskOptions

STDIN, STDOUT = "+in", "+out"
RESERVED = frozenset({STDIN, STDOUT, "+err"})
"""Names in the sandbox that only Rain uses."""


class _Place(NamedTuple):
    """In the command line: the path of an input, or of an output."""

    is_input: bool
    position: int


class Command:
    """What a program is given and what it makes. Immutable; shared by all calls of a `Program`.

    Args:
        args: a str, split as a shell does, or a sequence.
        stdout: True, a label, or an Output; None = not taken.
        stdin: as it is given; None = empty.
        input_paths: as they are given.
        output_paths: labels and Outputs.
        shell: let a shell run it.
        read_input: makes an Input of something in `args`, with its position, or returns None if it is no input.
        read_mapped: makes an Input of what is given as `stdin` or in `input_paths`.

    Attributes:
        inputs: in the order of the task's inputs.
        outputs: in the order of the task's outputs, each with its label and its path.

    Raises:
        ValueError: see `Execute`.
        TypeError: likewise.
        KeyError: two outputs have the same label.
    """

    def __init__(
        self,
        args: Any,
        stdout: Any,
        stdin: Any,
        input_paths: Any,
        output_paths: Any,
        shell: bool,
        *,
        read_input: Callable[[int, Any], InputBase | None],
        read_mapped: Callable[[Any], InputBase],
    ) -> None:
        self._shell = bool(shell)
        self._has_stdout = stdout is not None and stdout is not False
        inputs = [] if stdin is None else [_standard_input(read_mapped(stdin))]
        inputs += [read_mapped(one) for one in _sequence("input_paths", input_paths)]
        outputs = [_stdout(stdout)] if self._has_stdout else []
        outputs += [_mapped_output(one) for one in _sequence("output_paths", output_paths)]
        self._args: list[str | _Place] = []
        for position, arg in enumerate(_split(args, self._shell)):
            if isinstance(arg, str):
                self._args.append(arg)
            elif isinstance(arg, OutputBase):
                self._args.append(_Place(False, len(outputs)))
                outputs.append(_argument_output(position, arg))
            else:
                source = read_input(position, arg)
                if source is None:
                    raise TypeError(
                        f"An argument of a program must be a str, an input or an output, not {arg!r}; "
                        "numbers and paths are given as str"
                    )
                self._args.append(_Place(True, len(inputs)))
                inputs.append(source)
        if not self._args:
            raise ValueError("args are empty: there is no program to run")
        self.inputs: list[InputBase] = inputs
        self._in_paths = _input_paths(inputs, has_stdin=stdin is not None)
        self.outputs: list[OutputBase] = LabeledList(outputs, labels=[one.label for one in outputs]).data
        self._out_paths = self._paths_of(self.outputs)

    def _paths_of(self, outputs: list[OutputBase]) -> list[str]:
        paths = []
        for position, one in enumerate(outputs):
            if one.encode is not None:
                raise ValueError(f"{one!r}: encode= is for Python functions; say content_type= for programs")
            if position == 0 and self._has_stdout:
                one.expect_blob()
                paths.append(STDOUT)
            else:
                paths.append(check_path(one, one.path))
        _check_distinct("outputs", paths)
        return paths

    def config(self, outputs: list[OutputBase]) -> dict[str, Any]:
        """The config of a task with these outputs, which are `self.outputs` or ones merged with them.

        Raises:
            ValueError: an output that was put in has a wrong path, or `encode`.
        """
        in_paths = self._in_paths
        out_paths = self._out_paths if outputs == self.outputs else self._paths_of(outputs)
        args = [
            arg if isinstance(arg, str) else (in_paths if arg.is_input else out_paths)[arg.position]
            for arg in self._args
        ]
        mappings = [{"path": path, "write": bool(one.write)} for path, one in zip(in_paths, self.inputs, strict=True)]
        return {"args": args, "in_paths": mappings, "out_paths": list(out_paths), "shell": self._shell}


class Execute(Task):
    """Runs a program on a worker.

    The inputs are stdin, then `input_paths`, then those in `args`; the outputs are stdout, then `output_paths`, then
    those in `args`.

    Args:
        args: a str, split as a shell does, or a sequence of str, data objects, tasks, Input(Dir)s with a data object
            and Output(Dir)s. Inputs and outputs put their paths into the command line.
        stdout: True (label "stdout"), a label, or an Output: take the standard output of the program.
        stdin: data object, task or Input; None = empty.
        input_paths: Input(Dir)s with data objects. `input_files` is the same parameter.
        output_paths: labels and Output(Dir)s. `output_files` is the same parameter.
        shell: `/bin/sh -c` runs it; a str is passed unchanged, a sequence is joined by spaces without quoting.
        session: where it is made; the active session if None.
        cpus: and all other task options, see `rain.client.options.read_options`.

    Raises:
        ValueError: an Output with `encode`, an Input with `load` or without data object, a missing label, two inputs
            or two outputs at one path, a path that is absolute, leaves the sandbox or is reserved.
        TypeError: something else in `args`, or both spellings of a parameter.
        KeyError: two outputs have the same label.
        RainException: no data object where one is needed; no active session.
    """

    TASK_TYPE = "buildin/run"

    __slots__ = ()

    def __init__(
        self,
        args: Any,
        stdout: Any = None,
        stdin: Any = None,
        input_paths: Iterable[Any] = (),
        output_paths: Iterable[Any] = (),
        shell: bool = False,
        *,
        cpus: int | None = DEFAULT_CPUS,
        session: BaseSession | None = None,
        input_files: Iterable[Any] | None = None,
        output_files: Iterable[Any] | None = None,
        **options: Any,
    ) -> None:
        command = Command(
            args,
            stdout,
            stdin,
            one_spelling("input", input_paths, input_files),
            one_spelling("output", output_paths, output_files),
            shell,
            read_input=_read_argument,
            read_mapped=_read_mapped,
        )
        objects = [one.dataobj for one in command.inputs]
        checked = read_options(cpus=cpus, **options)
        self._build_command(command, [one for one in objects if one is not None], command.outputs, session, checked)

    def _build_command(
        self,
        command: Command,
        objects: list[DataObject],
        outputs: list[OutputBase],
        session: BaseSession | None,
        options: TaskOptions,
    ) -> None:
        self._build(
            None,
            command.config(outputs),
            _labelled(command.inputs, objects),
            outputs,
            session,
            options,
            labelled=True,
            task_first=False,
        )


def one_spelling(kind: str, paths: Any, files: Any) -> Any:
    """What is given as `input_paths` or `input_files`; TypeError if both are."""
    if files is None:
        return paths
    if paths != ():
        raise TypeError(f"{kind}_paths and {kind}_files are one parameter; give one of them")
    return files


def check_mapped(one: InputBase) -> InputBase:
    """An Input for a program as it is.

    Raises:
        ValueError: it has `load`.
    """
    if one.load is not None:
        raise ValueError(f"{one!r}: load= is for Python functions; a program gets files")
    return one


def check_path(one: InputBase | OutputBase, path: str | None) -> str:
    """A path inside of the sandbox as it is.

    Raises:
        ValueError: it is empty, absolute, leads out of the sandbox, or is reserved.
        TypeError: it is no str.
    """
    if path is None:
        raise ValueError(f"{one!r} needs a label")
    if not isinstance(path, str):
        raise TypeError(f"{one!r}: the path must be a str")
    if not path or "\0" in path:
        raise ValueError(f"{one!r}: {path!r} is not a path")
    if os.path.isabs(path):
        raise ValueError(f"{one!r}: the path {path!r} must be relative to the sandbox")
    head = os.path.normpath(path).split(os.sep, 1)[0]
    if head == os.pardir:
        raise ValueError(f"{one!r}: the path {path!r} leads out of the sandbox")
    if head in RESERVED:
        raise ValueError(f"{one!r}: the path {path!r} is reserved")
    return path


def _split(args: Any, shell: bool) -> Sequence[Any]:
    if isinstance(args, str):
        if shell:
            return [args] if args else []
        return shlex.split(args)
    if isinstance(args, (bytes, DataObject, Task)) or not isinstance(args, Sequence):
        raise TypeError(f"args must be a str or a sequence of arguments, not {args!r}")
    return args


def _sequence(name: str, given: Any) -> list[Any]:
    if isinstance(given, (str, bytes, InputBase, OutputBase, DataObject, Task)) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a sequence, not {given!r}")
    return list(given)


def _stdout(given: Any) -> OutputBase:
    output = to_output("stdout" if given is True else given)
    output.expect_blob()
    return output.with_label("stdout")


def _mapped_output(given: Any) -> OutputBase:
    output = to_output(given)
    if output.label is None:
        raise ValueError(f"{output!r} in output_paths needs a label")
    return output.with_path(output.label)


def _argument_output(position: int, output: OutputBase) -> OutputBase:
    labelled = output.with_label(f"arg{position}")
    return labelled.with_path(f"out_{labelled.label}")


def _read_argument(position: int, arg: Any) -> InputBase | None:
    return _read_mapped(arg) if isinstance(arg, (DataObject, Task, InputBase)) else None


def _read_mapped(given: Any) -> InputBase:
    if isinstance(given, InputBase):
        if given.dataobj is None:
            raise ValueError(f"{given!r} needs a data object: dataobj=")
        return check_mapped(given)
    dataobj = to_dataobj(given)
    return (InputDir if dataobj.is_directory() else Input)(dataobj=dataobj)


def _standard_input(source: InputBase) -> InputBase:
    if isinstance(source, InputDir):
        raise TypeError(f"The standard input of a program must be a blob, not {source!r}")
    return source


def _input_paths(inputs: list[InputBase], *, has_stdin: bool) -> list[str]:
    """The paths of the inputs; those without one get `input-K`, stepping over paths that are taken."""
    paths = [one.path for one in inputs]
    if has_stdin:
        paths[0] = STDIN
    for position, path in enumerate(paths):
        if path is not None and not (has_stdin and position == 0):
            check_path(inputs[position], path)
            if os.path.normpath(path) == os.curdir:
                raise ValueError(f"{inputs[position]!r}: an input cannot take the place of the sandbox itself")
    _check_distinct("inputs", [path for path in paths if path is not None])
    taken = {os.path.normpath(path) for path in paths if path is not None}
    named = []
    for position, path in enumerate(paths):
        if path is None:
            path = next(name for name in (f"input-{k}" for k in count(position)) if name not in taken)
            taken.add(path)
        named.append(path)
    return named


def _check_distinct(what: str, paths: list[str]) -> None:
    seen: set[str] = set()
    for path in map(os.path.normpath, paths):
        if path in seen:
            raise ValueError(f"Two {what} of the program have the path {path!r}; give them different ones by path=")
        seen.add(path)


def _labelled(inputs: list[InputBase], objects: list[DataObject]) -> list[tuple[str | None, DataObject]]:
    """Inputs with their labels; an object mapped twice under one label has it the first time only."""
    seen: set[tuple[str, int]] = set()
    labelled: list[tuple[str | None, DataObject]] = []
    for one, dataobj in zip(inputs, objects, strict=True):
        label = one.label
        if label is not None:
            key = label, id(dataobj)
            label = None if key in seen else label
            seen.add(key)
        labelled.append((label, dataobj))
    return labelled


def execute(
    args: Any,
    stdout: Any = None,
    stdin: Any = None,
    input_paths: Iterable[Any] = (),
    output_paths: Iterable[Any] = (),
    shell: bool = False,
    **options: Any,
) -> Execute:
    """As `Execute`."""
    return Execute(args, stdout, stdin, input_paths, output_paths, shell, **options)


__all__ = ["Command", "Execute", "execute"]
