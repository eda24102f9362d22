"""Builders for tests of the worker core: a core with a clock, short ways to say what the server and the shell say."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from rain.common.blocks import STORED, BlockResult, joined
from rain.common.failure import Failure
from rain.common.packing import pack_args
from rain.protocol.messages import (
    AssignTasks,
    CancelTasks,
    DeleteObjects,
    EndSession,
    GetWorkerInfo,
    ServerToWorker,
    StopWorker,
    TasksDone,
    TasksReturned,
    TasksStarted,
    TasksStopped,
    WithdrawTasks,
    WorkerDigest,
    WorkerWelcome,
)
from rain.worker.core.actions import CallExecutor, Run, TellServer, WorkerAction
from rain.worker.core.core import WorkerCore
from rain.worker.core.events import (
    BlockEnd,
    ExecutorLost,
    ExecutorReady,
    ObjectArrived,
    ObjectKey,
    RunFailed,
    RunResult,
    RunsEnded,
    ServerSaid,
    TaskKey,
    Tick,
    WorkerEvent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

WORKER_ID = "10.0.0.1:7000"

_Action = TypeVar("_Action")


def packed_template(task_type: str = "py/f", **fields: Any) -> bytes:
    """A packed template; `fields` as in the schema (resources, priority, env, outputs ...)."""
    packed: bytes = msgpack.packb({"task_type": task_type, **fields})
    return packed


@dataclass
class TaskOf:
    """One task of an assignment."""

    id: int
    inputs: Sequence[int] = ()
    outputs: Sequence[int] = ()
    template: int = 0
    run: int = 1
    args: bytes | None = None
    specs: Sequence[bytes | None] = ()


@dataclass
class BlockOf(TaskOf):
    """One block of an assignment, by the task id of its first member and the id of that one's output."""

    members: int = 1
    link: bytes | None = None

    def __post_init__(self) -> None:
        if self.args is None:
            self.args = joined(self.members, pack_args([], {}) * self.members)


@dataclass
class InputOf:
    """One entry of an assignment's `objects`: inline if it has a value, else at the holders."""

    id: int
    value: bytes | None = None
    holders: Sequence[str] = ("10.0.0.2:7000",)
    size: int = 1
    spec: bytes | None = None


def assign_tasks(
    tasks: Iterable[TaskOf],
    *,
    session: int = 1,
    templates: dict[int, bytes] | None = None,
    objects: Iterable[InputOf] = (),
    solo: Iterable[int] = (),
) -> AssignTasks:
    """An AssignTasks message in columns."""
    tasks, objects, templates = list(tasks), list(objects), templates or {}
    links = [task.link if isinstance(task, BlockOf) else None for task in tasks]
    return AssignTasks(
        session,
        array("I", templates),
        list(templates.values()),
        array("I", [task.id for task in tasks]),
        array("I", [task.run for task in tasks]),
        array("I", [task.template for task in tasks]),
        [task.args for task in tasks] if any(task.args is not None for task in tasks) else [],
        array("I", [len(task.inputs) for task in tasks]),
        array("I", [number for task in tasks for number in task.inputs]),
        array("I", [len(task.outputs) for task in tasks]),
        array("I", [number for task in tasks for number in task.outputs]),
        array("I", solo),
        array("I", [obj.id for obj in objects]),
        array("Q", [obj.size if obj.value is None else len(obj.value) for obj in objects]),
        [obj.spec for obj in objects],
        [None for obj in objects],
        [obj.value for obj in objects],
        [list(obj.holders) if obj.value is None else [] for obj in objects],
        array("I", [task.members if isinstance(task, BlockOf) else 0 for task in tasks]),
        _own_specs(tasks),
        links if any(links) else [],
    )


def _own_specs(tasks: list[TaskOf]) -> list[bytes | None]:
    specs = [spec for task in tasks for spec in (task.specs or [None] * len(task.outputs))]
    return specs if any(specs) else []


def block_end(
    run: Run, *, done: int | None = None, end: str | None = None, duration: float = 0.1, size: int = 100_000
) -> RunResult:
    """What an executor tells at the end of a block: `done` members (None: all) gave a value each.

    With the end STORED the next member gave one of `size` bytes.
    """
    count = run.members if done is None else done
    result = BlockResult(array("f", [0.0] * count), array("I", [1] * count), b"v" * count, [None], end=end)
    if end != STORED:
        return RunResult(run.key, 1.0, duration, None, [], BlockEnd(result.pack(), count))
    outputs: list[tuple[int, bytes | None, bytes | None]] = [(size, None, None)]
    return RunResult(run.key, 1.0, duration, None, outputs, BlockEnd(result.pack(), count + 1, run.outputs[0] + count))


def success(run: Run, *, duration: float = 0.1, size: int = 1, value: bytes | None = b"v") -> RunResult:
    """The result of a run that succeeded, of a block: of all its members."""
    if run.members:
        return block_end(run, duration=duration)
    return RunResult(run.key, 1.0, duration, None, [(size, None, value) for _ in run.outputs])


def failure_of(key: TaskKey, message: str = "broken") -> RunFailed:
    """The result of a run that failed."""
    return RunFailed(key, Failure("task", message, key[0], key[1]), 1.0, 0.1)


class WorkerStory:
    """A worker core, its clock, and everything it said since the last look.

    Every step ends with a `sanity_check`. Attributes: `core`; `now` (seconds); `actions`, those of the last step, but
    for `digests`, which come from time to time.
    """

    def __init__(self, *, cpus: int = 1, spare_executors: int = 0, delete_timeout: float = 1.0, **more: Any) -> None:
        resources = {"cpus": cpus, **more.pop("resources", {})}
        self.core = WorkerCore(
            resources=resources, spare_executors=spare_executors, delete_timeout=delete_timeout, **more
        )
        self.now = 100.0
        self.actions: list[WorkerAction] = []
        self.digests: list[WorkerDigest] = []
        self.say(WorkerWelcome(1, WORKER_ID))

    # --- steps ---

    def happens(self, *events: WorkerEvent, after: float = 0.0) -> list[WorkerAction]:
        """Hand events to the core, `after` seconds later; returns the actions."""
        self.now += after
        actions = self.core.handle(list(events), self.now)
        self.core.sanity_check()
        told = [a.message if isinstance(a, TellServer) else None for a in actions]
        self.digests += [message for message in told if isinstance(message, WorkerDigest)]
        self.actions = [a for a, m in zip(actions, told, strict=True) if not isinstance(m, WorkerDigest)]
        return self.actions

    def say(self, *messages: ServerToWorker) -> list[WorkerAction]:
        """The server sends messages."""
        return self.happens(*map(ServerSaid, messages))

    def assign(self, *tasks: TaskOf, **more: Any) -> list[WorkerAction]:
        """The server assigns tasks."""
        return self.say(assign_tasks(tasks, **more))

    def tick(self, after: float = 0.5) -> list[WorkerAction]:
        """Time passes."""
        return self.happens(Tick(), after=after)

    def ready(self, *executors: int) -> list[WorkerAction]:
        """Executors register."""
        return self.happens(*map(ExecutorReady, executors))

    def succeed(
        self, executor: int, *runs: Run, duration: float = 0.1, cached: Sequence[ObjectKey] = ()
    ) -> list[WorkerAction]:
        """Runs succeed (executor 0: built-in ones), of blocks all members."""
        return self.happens(RunsEnded(executor, [success(run, duration=duration) for run in runs], list(cached)))

    def end_block(self, executor: int, run: Run, **more: Any) -> list[WorkerAction]:
        """A block ends; `more` as in `block_end`."""
        return self.happens(RunsEnded(executor, [block_end(run, **more)], []))

    def fail(self, executor: int, *runs: Run) -> list[WorkerAction]:
        """Runs fail."""
        return self.happens(RunsEnded(executor, [failure_of(run.key) for run in runs], []))

    def lose(self, executor: int, running: TaskKey | None = None) -> list[WorkerAction]:
        """An executor dies."""
        return self.happens(ExecutorLost(executor, running, Failure("task", "Lost connection to executor")))

    def arrive(self, *objects: int, session: int = 1, size: int = 5) -> list[WorkerAction]:
        """Transfers are complete."""
        return self.happens(*(ObjectArrived((session, number), size) for number in objects))

    def withdraw(self, *tasks: int, session: int = 1, run: int = 1) -> list[WorkerAction]:
        """The server takes tasks back."""
        return self.say(WithdrawTasks(session, array("I", tasks), array("I", [run] * len(tasks))))

    def cancel(self, *tasks: int, session: int = 1, run: int = 1, grace: float = 0.0) -> list[WorkerAction]:
        """The server cancels tasks; grace: seconds."""
        return self.say(CancelTasks(session, array("I", tasks), array("I", [run] * len(tasks)), grace))

    def delete(self, *objects: int, session: int = 1) -> list[WorkerAction]:
        """The server needs objects no more."""
        return self.say(DeleteObjects(session, array("I", objects)))

    def end(self, session: int = 1) -> list[WorkerAction]:
        """The session ends."""
        return self.say(EndSession(session))

    def stop(self) -> list[WorkerAction]:
        """The server stops the worker."""
        return self.say(StopWorker())

    # --- looks at the last step ---

    def all(self, kind: type[_Action]) -> list[_Action]:
        """Actions of one class."""
        return [action for action in self.actions if isinstance(action, kind)]

    def messages(self, kind: type[_Action]) -> list[_Action]:
        """Messages of one class to the server."""
        return [tell.message for tell in self.all(TellServer) if isinstance(tell.message, kind)]

    def runs(self, executor: int | None = None) -> list[Run]:
        """The runs sent to an executor, or to all."""
        calls = self.all(CallExecutor)
        return [run for call in calls if executor in (None, call.executor) for run in call.runs]

    def called(self) -> dict[int, list[int]]:
        """Task ids sent, by executor."""
        sent: dict[int, list[int]] = {}
        for call in self.all(CallExecutor):
            sent.setdefault(call.executor, []).extend(run.key[1] for run in call.runs)
        return sent

    def done(self) -> list[int]:
        """Ids of tasks reported as done."""
        return [number for message in self.messages(TasksDone) for number in message.tasks]

    def started(self) -> list[int]:
        """Ids of tasks reported as started."""
        return [number for message in self.messages(TasksStarted) for number in message.tasks]

    def returned(self) -> list[int]:
        """Ids of tasks given back."""
        return [number for message in self.messages(TasksReturned) for number in message.tasks]

    def stopped(self) -> list[int]:
        """Ids of cancelled tasks of which nothing is left."""
        return [number for message in self.messages(TasksStopped) for number in message.tasks]

    def told(self) -> list[str]:
        """Names of the classes of messages to the server, in order."""
        return [type(tell.message).__name__ for tell in self.all(TellServer)]

    # --- looks at the state ---

    def state(self, task: int, session: int = 1) -> str:
        """State of a task, `gone` if it is not known."""
        known = self.core.sessions.get(session)
        found = known.tasks.get(task) if known else None
        return found.state if found else "gone"

    def run_of(self, task: int, session: int = 1) -> Run:
        """The run of a task that is here, good for `succeed` and `fail`."""
        found = self.core.sessions[session].tasks[task]
        outputs = (found.first_output,) if found.members else tuple(obj.key[1] for obj in found.outputs)
        return Run(found.key, 0, {}, None, (), outputs, members=found.members)

    def object_state(self, number: int, session: int = 1) -> str:
        """State of an object, `gone` if it is not known."""
        known = self.core.sessions.get(session)
        found = known.objects.get(number) if known else None
        return found.state if found else "gone"

    def info(self) -> dict[str, list[list[int]]]:
        """What the core answers to GetWorkerInfo."""
        self.say(GetWorkerInfo(1))
        return self.core.info()
