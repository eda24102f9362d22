"""Tasks: one operation with inputs and outputs."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rain.client.data import DataObject, output_object, to_dataobj
from rain.client.embedding import embed
from rain.client.options import DEFAULT_CPUS, read_options
from rain.client.output import OutputBase, to_output
from rain.client.shape import (
    DEFAULT_OPTIONS,
    PLAIN_BLOB,
    ObjectShape,
    TaskOptions,
    TaskShape,
    default_shape,
    object_shape,
    pack_plain,
)
from rain.client.site import here
from rain.client.specs import spec_of
from rain.common.attribute_views import TaskAttributes
from rain.common.errors import RainException
from rain.common.ids import ID
from rain.common.labeled_list import LabeledList
from rain.common.states import TaskState

if TYPE_CHECKING:
    from rain.client.base import BaseSession
    from rain.client.handles import CallTask
    from rain.client.session import Session
    from rain.client.site import Site
    from rain.common.attributes import TaskInfo, TaskSpec
    from rain.common.data_instance import DataInstance


class TaskMeta(type):
    """Records which class stands for which task type."""

    classes: ClassVar[dict[str, type]] = {}

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> TaskMeta:
        """Make the class and note its TASK_TYPE, if it has one of its own."""
        made = super().__new__(mcs, name, bases, namespace)
        task_type = namespace.get("TASK_TYPE")
        if task_type is not None:
            mcs.classes[task_type] = made
        return made


class Task(metaclass=TaskMeta):
    """A task, registered in its session. Two call forms, told apart by the first positional argument (a str or not):

        Task(task_type, config=None, inputs=(), outputs=None, session=None, cpus=1)
        Task(inputs=(), outputs=None, *, config=None, session=None, task_type=None, cpus=1, name=None, user_spec=None)

    In an AsyncSession the methods that talk to the server return coroutines.

    Args:
        task_type: `"executor/method"`; default the class attribute TASK_TYPE.
        config: any JSON-like value.
        inputs: data objects, tasks with one output, or `(label, object)` pairs.
        outputs: None = none, a number of blobs, or a sequence of labels, Output(Dir)s and data objects.
        session: where the task and its outputs are made; the active session if None.
        cpus, name, user_spec: and all other task options, see `rain.client.options.read_options`.

    Raises:
        ValueError: no task type, or a wrong option.
        TypeError: an output of a wrong type, or a wrong keyword.
        KeyError: two inputs or two outputs have the same label.
        RainException: an input that is no data object; no active session.
        SessionException: the session is closed.
    """

    TASK_TYPE: ClassVar[str | None] = None

    __slots__ = (
        "__weakref__",
        "_args",
        "_info",
        "_inputs",
        "_number",
        "_outputs",
        "_own_spec",
        "_own_state",
        "_session",
        "_shape",
        "_stack",
    )

    _number: int
    _session: BaseSession
    _shape: TaskShape
    _args: bytes | None
    _inputs: tuple[DataObject | CallTask, ...]
    """A call stands for its only output."""
    _outputs: tuple[DataObject, ...]
    _own_spec: TaskSpec | None
    _own_state: TaskState | None
    _info: TaskInfo | None
    _stack: Site

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and isinstance(args[0], str):
            self._init_typed(*args, **kwargs)
        else:
            self._init_classic(*args, **kwargs)

    def _init_typed(
        self,
        task_type: str,
        config: Any = None,
        inputs: Iterable[Any] = (),
        outputs: Any = None,
        session: BaseSession | None = None,
        cpus: int | None = DEFAULT_CPUS,
        **options: Any,
    ) -> None:
        checked = read_options(cpus=cpus, **options)
        self._build(task_type, config, inputs, outputs, session, checked, labelled=True, task_first=False)

    def _init_classic(
        self,
        inputs: Iterable[Any] = (),
        outputs: Any = None,
        *,
        config: Any = None,
        session: BaseSession | None = None,
        task_type: str | None = None,
        cpus: int | None = DEFAULT_CPUS,
        **options: Any,
    ) -> None:
        checked = read_options(cpus=cpus, **options)
        self._build(task_type, config, inputs, outputs, session, checked, labelled=False, task_first=True)

    def _build(
        self,
        task_type: str | None,
        config: Any,
        inputs: Iterable[Any],
        outputs: Any,
        session: BaseSession | None,
        options: TaskOptions,
        *,
        labelled: bool,
        task_first: bool,
    ) -> None:
        """Check everything, then register: an exception leaves nothing behind."""
        task_type = task_type if task_type is not None else type(self).TASK_TYPE
        if not task_type:
            raise ValueError(f"{type(self).__name__}: no task type; give task_type= or set TASK_TYPE in the class")
        labels, objects = _read_inputs(inputs)
        shapes, made = _read_outputs(outputs, labelled)
        new = [output for output in made if output._role and not hasattr(output, "_session")]
        if options is DEFAULT_OPTIONS:
            self._shape = default_shape(task_type, labels, tuple(shapes))
        else:
            self._shape = TaskShape(task_type, options, labels, tuple(shapes))
        self._args = None if config is None else pack_plain(config, f"config of a task of type {task_type!r}")
        self._inputs = objects
        self._outputs = tuple(made)
        self._own_spec = None
        self._own_state = None
        self._info = None
        self._stack = here()
        if session is None:
            from rain.client.session import get_active_session

            session = get_active_session()
        order: list[Task | DataObject] = [self, *new] if task_first else [*new, self]
        session._register(*order)

    # --- what it is -------------------------------------------------------------------------------

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
    def task_type(self) -> str:
        """The task type as given."""
        return self._shape.task_type

    @property
    def name(self) -> str | None:
        """The name, None if it has none."""
        return self._shape.options.name if self._own_spec is None else self._own_spec.name

    @property
    def state(self) -> TaskState | None:
        """Snapshot of the state; None until submit."""
        if self._own_state is not None:
            return self._own_state
        if self._number < self._session._settled:
            return TaskState.finished
        return TaskState.notAssigned if self._is_submitted else None

    @state.setter
    def state(self, value: TaskState | None) -> None:
        self._session._note(self)
        self._own_state = value

    @property
    def _is_submitted(self) -> bool:
        return self._number < self._session._submitted

    @property
    def spec(self) -> TaskSpec:
        """What was asked; `user`, `resources` and the options may be edited before submit."""
        if self._own_spec is None:
            self._own_spec = spec_of(self)
        return self._own_spec

    @property
    def info(self) -> TaskInfo | None:
        """What happened; None until update."""
        return self._info

    @property
    def inputs(self) -> LabeledList[DataObject]:
        """The inputs with their labels."""
        return LabeledList(self._input_objects, labels=self._shape.labels)

    @property
    def _input_objects(self) -> tuple[DataObject, ...]:
        return tuple(map(to_dataobj, self._inputs))

    @property
    def outputs(self) -> LabeledList[DataObject]:
        """The outputs with their labels."""
        return LabeledList(self._outputs, labels=[output.label for output in self._outputs])

    @property
    def output(self) -> DataObject:
        """The only output.

        Raises:
            RainException: the task has no or several outputs.
        """
        if len(self._outputs) != 1:
            raise RainException(
                f"{self!r} has {len(self._outputs)} outputs, not one; name the one meant, e.g. task.outputs[0]"
            )
        return self._outputs[0]

    @property
    def attributes(self) -> TaskAttributes:
        """Spec and info as one mapping."""
        return TaskAttributes(self.spec, self._info)

    # --- what can be done -------------------------------------------------------------------------

    def keep_outputs(self) -> None:
        """Set the keep flag of all outputs.

        Raises:
            RainException: the task is submitted.
        """
        for output in self._outputs:
            output.keep()

    def unkeep_outputs(self) -> None:
        """Take the keep flag of all outputs away; see `Session.unkeep`."""
        return self._session._run(self._session._unkeep(self._outputs))

    def fetch_outputs(self) -> list[DataInstance]:
        """The values of all outputs; see `Session.fetch`."""
        return self._session._run(self._session._fetch_each(self._outputs))

    def wait(self, timeout: float | str | None = None, *, progress: bool = False) -> None:
        """Wait until the task is finished; `progress`: with a progress bar, see `Session.progress`."""
        return self._session._run(self._session._wait((self,), timeout, progress))

    def update(self) -> None:
        """Refresh state and info."""
        return self._session._run(self._session._update((self,)))

    def result(self, timeout: float | str | None = None) -> Any:
        """The decoded value of the output, a list for several, None for none; submits the session first if needed.

        Raises:
            TaskException: the task failed.
            RainTimeoutError: `timeout` seconds are over.
            RainException: a submitted output is not kept, or cannot be decoded.
        """
        from rain.client.results import result_of

        return self._session._run(result_of(self._session._front, self, timeout))

    def done(self) -> bool:
        """Whether the task is terminal according to the server; False when unsubmitted."""
        from rain.client.results import is_done

        return self._session._run(is_done(self._session._front, self))

    def exception(self, timeout: float | str | None = None) -> RainException | None:
        """Wait; the exception that `result()` would raise, or None."""
        from rain.client.results import exception_of

        return self._session._run(exception_of(self._session._front, self, timeout))

    def cancel(self, timeout: float | str | None = None) -> bool:
        """Stop the task. True if it was stopped before its end, False if it was already terminal.

        Args:
            timeout: seconds to wait until nothing of it runs any more; None waits without limit.

        Raises:
            RainException: it is not submitted.
            RainTimeoutError: `timeout` seconds are over; it is cancelled nevertheless.
        """
        from rain.client.waiting import cancel_task

        return self._session._run(cancel_task(self, timeout))

    def explain(self) -> str:
        """Why the task is in its state, as the server knows it: the inputs or the resources that it waits for, where it
        runs, why it failed, and what happened to it. One or more lines for people.

        Raises:
            RainException: it is not submitted.
        """
        from rain.client.explaining import explain_task

        return self._session._run(explain_task(self))

    def __await__(self) -> Generator[Any, None, Any]:
        from rain.client.results import result_of

        return result_of(self._session._front_in_loop, self, None).__await__()

    def __reduce__(self) -> tuple[Any, ...]:
        return embed(self)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name is not None else ""
        return f"<{type(self).__name__} id={self.id} {self.task_type}{name}>"

    def _repr_html_(self) -> str:
        from rain.client.html import task_html

        return task_html(self)


def _read_inputs(inputs: Any) -> tuple[tuple[str | None, ...] | None, tuple[DataObject, ...]]:
    if isinstance(inputs, (str, bytes, DataObject, Task, Mapping)) or not isinstance(inputs, Iterable):
        raise RainException(
            f"The inputs of a task must be a sequence of data objects and tasks, not {type(inputs).__name__} "
            f"{inputs!r:.60}; use blob() or pickled() to make data objects of values"
        )
    pairs: LabeledList[DataObject] = LabeledList()
    items = inputs.items() if isinstance(inputs, LabeledList) else ((None, item) for item in inputs)
    for label, item in items:
        if isinstance(item, tuple) and len(item) == 2 and (item[0] is None or isinstance(item[0], str)):
            label, item = item
        pairs.append(to_dataobj(item), label)
    labels = tuple(pairs.labels) if any(label is not None for label in pairs.labels) else None
    return labels, tuple(pairs.data)


def _read_outputs(outputs: Any, labelled: bool) -> tuple[list[ObjectShape], list[DataObject]]:
    """The specs and the data objects of the outputs; objects made here are not registered yet."""
    if outputs is None:
        return [], []
    if isinstance(outputs, int):
        if outputs < 0:
            raise ValueError(f"The number of outputs cannot be negative: {outputs}")
        shapes = [object_shape(f"out{i}") if labelled else PLAIN_BLOB for i in range(outputs)]
        return shapes, [output_object(shape) for shape in shapes]
    if isinstance(outputs, (str, bytes, OutputBase, DataObject)) or not isinstance(outputs, Iterable):
        raise TypeError(f"The outputs of a task must be a number or a sequence, not {outputs!r}")
    made: LabeledList[DataObject] = LabeledList()
    for output in outputs:
        one = output if isinstance(output, DataObject) else output_object(_output_shape(output))
        if any(one is other for other in made):
            raise ValueError(f"{one!r} is given twice as output of one task")
        made.append(one, one.label)
    return [one._shape for one in made], made.data


def _output_shape(output: Any) -> ObjectShape:
    if not isinstance(output, (str, OutputBase)):
        raise TypeError(
            f"An output of a task must be a label, an Output, an OutputDir or a DataObject, not {output!r}"
        )
    return to_output(output).shape


__all__ = ["Task", "TaskMeta"]
