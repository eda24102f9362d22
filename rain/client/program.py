"""`Program`: a description of a program, from which tasks are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.client.data import to_dataobj
from rain.client.execute import Command, Execute, check_mapped, one_spelling
from rain.client.input import Input, InputBase
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import OutputSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.base import BaseSession


class Program:
    """Makes tasks that run one program on various data; independent of sessions.

    Wherever `Execute` takes a data object, a Program takes a labelled Input or InputDir without one.

    Args:
        args: a str, split as a shell does, or a sequence of str, Input(Dir)s and Output(Dir)s. An Input without label
            gets the label `argI`, I being its position.
        stdout: True (label "stdout"), a label, or an Output.
        stdin: a label or an Input; None = empty.
        input_paths: labels and Input(Dir)s. `input_files` is the same parameter.
        output_paths: labels and Output(Dir)s. `output_files` is the same parameter.
        shell: see `Execute`.
        name: default name of the tasks.
        cpus: and all other task options, see `rain.client.options.read_options`; `session` included.

    Raises:
        ValueError, TypeError, KeyError: see `Execute`; an Input has a data object or needs a label.
    """

    def __init__(
        self,
        args: Any,
        stdout: Any = None,
        stdin: Any = None,
        input_paths: Iterable[Any] = (),
        output_paths: Iterable[Any] = (),
        shell: bool = False,
        name: str | None = None,
        cpus: int | None = DEFAULT_CPUS,
        *,
        input_files: Iterable[Any] | None = None,
        output_files: Iterable[Any] | None = None,
        **task_options: Any,
    ) -> None:
        self._command = Command(
            args,
            stdout,
            stdin,
            one_spelling("input", input_paths, input_files),
            one_spelling("output", output_paths, output_files),
            shell,
            read_input=_read_argument,
            read_mapped=_read_mapped,
        )
        self._outputs = OutputSpec(self._command.outputs)
        self._labels = frozenset(one.label for one in self._command.inputs)
        self._session: BaseSession | None = None
        self._options: dict[str, Any] = {}
        self._change({"name": name, "cpus": cpus, **task_options})

    def _change(self, task_options: dict[str, Any]) -> None:
        changes = dict(task_options)
        if "session" in changes:
            self._session = changes.pop("session")
        self._options = {**self._options, **changes}
        self._task_options = read_options(**self._options)
        self.name: str | None = self._task_options.name

    def options(self, **task_options: Any) -> Program:
        """A copy with these task options changed; `name` and `session` included.

        Raises:
            ValueError, TypeError: a wrong option.
        """
        copy = Program.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._change(task_options)
        return copy

    def __call__(self, **kwargs: Any) -> Execute:
        """Make a task: `program(*, name=None, session=None, output=None, outputs=None, **objects_by_label)`.

        Values are data objects and tasks with one output; unknown keywords are ignored. `outputs` overrides the
        declared outputs: per output None, a label, or an Output; `output=X` equals `outputs=[X]`. An input with the
        label of one of the four keywords takes precedence over the keyword.

        Raises:
            KeyError: the object of an input is not given, or two outputs have the same label.
            TypeError: a directory where a blob is needed, or the reverse.
            RainException: a value is no data object; another number of outputs; no active session.
            SessionException: the session is closed.
        """
        output, outputs, name, session = (
            None if keyword in self._labels else kwargs.get(keyword)
            for keyword in ("output", "outputs", "name", "session")
        )
        objects = []
        for one in self._command.inputs:
            if one.label not in kwargs:
                raise KeyError(f"{self!r} needs the input {one.label!r}; give it as keyword argument")
            dataobj = to_dataobj(kwargs[one.label])
            one.check_type(dataobj)
            objects.append(dataobj)
        options = self._task_options if name is None else read_options(**{**self._options, "name": name})
        task = Execute.__new__(Execute)
        task._build_command(
            self._command,
            objects,
            self._outputs.instantiate(output, outputs),
            session if session is not None else self._session,
            options,
        )
        return task

    def __repr__(self) -> str:
        return f"<Program {self.name}>" if self.name is not None else "<Program>"


def _read_argument(position: int, arg: Any) -> InputBase | None:
    return _unbound(arg.with_label(f"arg{position}")) if isinstance(arg, InputBase) else None


def _read_mapped(given: Any) -> InputBase:
    if isinstance(given, str):
        return Input(given)
    if not isinstance(given, InputBase):
        raise TypeError(f"An input of a Program must be a label, an Input or an InputDir, not {given!r}")
    return _unbound(given)


def _unbound(given: InputBase) -> InputBase:
    if given.dataobj is not None:
        raise ValueError(f"{given!r} has a data object; a Program gets its data objects when it is called")
    if given.label is None:
        raise ValueError(f"{given!r} needs a label, by which a Program gets its data object")
    return check_mapped(given)


__all__ = ["Program"]
