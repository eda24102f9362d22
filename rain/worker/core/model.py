"""What the worker core keeps: sessions, templates, tasks and data objects, as plain slotted classes.

The states are those of docs/design/worker-core.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from rain.worker.core.actions import RunLink
    from rain.worker.core.events import ObjectKey, TaskKey
    from rain.worker.core.executors import Executor
    from rain.worker.core.queues import ReadyQueue

TaskState: TypeAlias = Literal["waiting", "looking", "ready", "starting", "running", "in_batch", "gone"]
WAITING: Final = "waiting"
LOOKING: Final = "looking"
READY: Final = "ready"
STARTING: Final = "starting"
RUNNING: Final = "running"
IN_BATCH: Final = "in_batch"
GONE: Final = "gone"
TASK_STATES: Final[tuple[TaskState, ...]] = (WAITING, LOOKING, READY, STARTING, RUNNING, IN_BATCH, GONE)

ObjectState: TypeAlias = Literal["expected", "fetching", "present", "gone"]
EXPECTED: Final = "expected"
FETCHING: Final = "fetching"
PRESENT: Final = "present"
OBJECT_STATES: Final[tuple[ObjectState, ...]] = (EXPECTED, FETCHING, PRESENT, GONE)

UNKNOWN: Final = -1.0
"""Average duration of a template none of whose runs ended here."""

_RISE: Final = 0.5
_DECAY: Final = 0.25


class Session:
    """Everything of one session on this worker."""

    __slots__ = ("id", "objects", "solo", "tasks", "templates")

    def __init__(self, number: int) -> None:
        self.id = number
        self.templates: dict[int, Template] = {}
        self.tasks: dict[int, Task] = {}
        self.objects: dict[int, DataObject] = {}
        #: ids of tasks that must not share an executor batch
        self.solo: set[int] = set()


class Template:
    """What many tasks of a session have in common, unpacked once."""

    __slots__ = ("average", "cached", "data", "first_order", "number", "output_specs", "queue", "session", "timeout")

    def __init__(
        self,
        session: Session,
        number: int,
        data: dict[str, Any],
        queue: ReadyQueue,
        priority: int,
        output_specs: tuple[bytes | None, ...],
        timeout: float | None = None,
    ) -> None:
        self.session = session
        self.number = number
        self.data = data
        self.queue = queue
        #: order of a task that arrives at time zero; a larger priority gives a smaller order
        self.first_order = -priority << 48
        #: packed specs of the outputs, None = all default
        self.output_specs = output_specs
        #: seconds a run may take, None = any; such runs never share a batch
        self.timeout = timeout
        #: whether results may come from the result cache
        self.cached = bool(data.get("cache"))
        #: moving average of the seconds a run takes, UNKNOWN before the first
        self.average = UNKNOWN

    def measured(self, duration: float) -> None:
        """Take a run of `duration` seconds into the average, which rises faster than it falls."""
        average = self.average
        if average < 0.0:
            self.average = duration
        else:
            self.average = average + (duration - average) * (_RISE if duration > average else _DECAY)


class DataObject:
    """One data object: a replica here, or one to come."""

    __slots__ = ("cached_by", "consumers", "info", "key", "producer", "refusal", "size", "spec", "state", "unneeded",
                 "users")  # fmt: skip

    def __init__(self, key: ObjectKey, state: ObjectState, spec: bytes | None, info: bytes | None, size: int) -> None:
        self.key = key
        self.state: ObjectState = state
        self.spec = spec
        self.info = info
        self.size = size
        #: how often unfinished tasks here name it as input or output
        self.users = 0
        #: the server said that nobody needs it (any more)
        self.unneeded = False
        #: the unfinished task here that will produce it, or None
        self.producer: Task | None = None
        #: waiting tasks, once per occurrence among their inputs; tasks gone since are skipped. None: nobody ever waited
        self.consumers: list[Task] | None = None
        #: executors that hold it decoded; None: none ever did
        self.cached_by: set[Executor] | None = None
        #: why the store did not take it; empty: it did, or has not been asked
        self.refusal = ""

    def awaited_by(self, task: Task) -> None:
        """The task waits for it, once more."""
        if self.consumers is None:
            self.consumers = [task]
            if self.producer is not None:
                self.producer.awaited = True
        else:
            self.consumers.append(task)


class Task:
    """One run of a task, or of a block: that has no outputs here, as they travel in its result."""

    __slots__ = ("args", "awaited", "executor", "first_output", "inputs", "key", "link", "looked", "members", "missing",
                 "order", "outputs", "own_specs", "state", "template")  # fmt: skip

    def __init__(self, key: TaskKey, template: Template, args: bytes | None, order: int) -> None:
        self.key = key
        self.template = template
        self.args = args
        #: smaller is better: priority, then arrival
        self.order = order
        self.inputs: tuple[DataObject, ...] = ()
        self.outputs: tuple[DataObject, ...] = ()
        #: packed specs of the outputs where they are not the template's, else None; empty: all are
        self.own_specs: tuple[bytes | None, ...] = ()
        #: whether a task here waited for one of its outputs
        self.awaited = False
        #: of a block: the number of its members, and the id of the first one's output
        self.members = 0
        self.first_output = 0
        #: of a linked block
        self.link: RunLink | None = None
        #: whether its result was looked up, in vain
        self.looked = False
        #: inputs not present, counted with repetitions
        self.missing = 0
        self.state: TaskState = WAITING
        #: the executor it waits for or was sent to; None in the other states and for built-in tasks
        self.executor: Executor | None = None
