"""The worker's decisions: events in, actions out. Pure: no socket, clock, process or disk.

States, transitions and events: docs/design/worker-core.md.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from rain.common.failure import Failure
from rain.common.units import format_duration
from rain.protocol.messages import (
    AssignTasks,
    CancelTasks,
    DeleteObjects,
    EndSession,
    GetWorkerInfo,
    ListRuns,
    ProbePeers,
    ReadTaskLog,
    StopWorker,
    TaskFailed,
    WithdrawTasks,
    WorkerDigest,
    WorkerInfo,
    WorkerRuns,
    WorkerWelcome,
)
from rain.protocol.worker_messages import run_digest
from rain.worker.core.actions import Exit, Probe, ReadLog
from rain.worker.core.assignment import Assigner
from rain.worker.core.check import check
from rain.worker.core.dispatch import Dispatcher
from rain.worker.core.events import (
    BuiltinStopped,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    LimitExceeded,
    LookedUp,
    ObjectArrived,
    ObjectUnreachable,
    RunKept,
    RunsEnded,
    ServerLost,
    ServerSaid,
    StoreFailed,
    Tick,
)
from rain.worker.core.executors import STOPPING, ExecutorTable
from rain.worker.core.inspection import full_state
from rain.worker.core.lifecycle import UNSENT, Lifecycle
from rain.worker.core.model import EXPECTED, FETCHING, LOOKING, PRESENT, RUNNING
from rain.worker.core.objects import ObjectTable
from rain.worker.core.outbox import Outbox
from rain.worker.core.resources import ResourcePool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rain.worker.core.actions import WorkerAction
    from rain.worker.core.events import TaskKey, WorkerEvent
    from rain.worker.core.executors import Executor
    from rain.worker.core.model import Session, Task

DIGEST_SECONDS = 5.0
"""Seconds between two digests for the server."""

HELD_SECONDS = 0.005
"""How long the ends of short built-in tasks may wait, so that they are told together, while others are ready."""

LIMIT_GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL for a run whose time is over."""


class WorkerCore:
    """All state of a worker."""

    def __init__(
        self,
        *,
        resources: Mapping[str, Any],
        delete_timeout: float = 1.0,
        spare_executors: int = 1,
        inline_limit: int = 65536,
    ) -> None:
        """Start with nothing.

        Args:
            resources: as announced to the server, `{"cpus": int, "gpus": [int], "memory": bytes, NAME: number}`.
            delete_timeout: seconds an unneeded object stays usable, 0 = none.
            spare_executors: how many unused Python executors to keep ready.
            inline_limit: values of this many bytes and more do not travel with completions.
        """
        self.sessions: dict[int, Session] = {}
        self._outbox = Outbox(inline_limit)
        self._objects = ObjectTable(self.sessions, self._outbox, delete_timeout)
        pool = ResourcePool(resources)
        executors = ExecutorTable(self._objects, self._outbox, cpus=pool.cpus, spares=spare_executors)
        self._dispatcher = Dispatcher(self._outbox, pool, executors)
        self._lifecycle = Lifecycle(self._objects, self._dispatcher, self._outbox)
        self._assigner = Assigner(self._objects, self._dispatcher, self._lifecycle, self._outbox)
        #: messages of the server taken in
        self._heard = 0
        self._next_digest: float | None = None
        self._digest_is_due = False
        #: until when ends of built-in tasks wait to be told, None while none does
        self._held_until: float | None = None
        self._stopped = False

    def handle(self, events: Iterable[WorkerEvent], now: float) -> list[WorkerAction]:
        """Take in what happened, in order, then start what can start.

        Args:
            events: facts.
            now: unix seconds.

        Returns:
            What the shell shall do, in order.
        """
        handlers = _HANDLERS
        self._digest_is_due = False
        only_builtins = True
        for event in events:
            if self._stopped:
                break
            only_builtins = only_builtins and type(event) is RunsEnded and not event.executor
            handlers[type(event)](self, event, now)
        if not self._stopped:
            innocent = self._dispatcher.take_gone_heads()
            if innocent:
                self._lifecycle.requeue(innocent, now)
            self._dispatcher.run(now)
            if self._digest_is_due:
                self._outbox.info(self._digest())
            if only_builtins and self._holds(now):
                return self._outbox.take_actions()
        self._held_until = None
        return self._outbox.take()

    def _holds(self, now: float) -> bool:
        """Whether the ends that are to be told may wait for others to come soon."""
        if self._held_until is None:
            self._held_until = now + HELD_SECONDS
        return now < self._held_until and self._outbox.has_only_ends() and self._dispatcher.short_builtin_is_ready()

    def next_deadline(self) -> float | None:
        """When a Tick is acted on at once, unix seconds: at a time limit, when a brief run lasts, or when ends have
        waited to be told. None: never."""
        times = (self._dispatcher.announcer.next(), self._dispatcher.deadlines.next(), self._held_until)
        return min((time for time in times if time is not None), default=None)

    # --- messages of the server ---

    def _on_server_said(self, event: ServerSaid, now: float) -> None:
        self._heard += 1
        _MESSAGE_HANDLERS[type(event.message)](self, event.message, now)

    def _on_worker_welcome(self, message: WorkerWelcome, now: float) -> None:
        self._assigner.worker_id = message.worker_id
        self._dispatcher.executors.keep_spares()
        self._heard = 1
        self._next_digest = now + DIGEST_SECONDS

    def _on_assign_tasks(self, message: AssignTasks, now: float) -> None:
        try:
            self._assigner.assign(message, now)
        except ValueError as error:
            text = f"Worker {self._assigner.worker_id} cannot read its assignment: {error}"
            for number, run in zip(message.tasks, message.runs, strict=False):
                failure = Failure("internal", text, message.session, number, retriable=False)
                self._outbox.failed(TaskFailed(message.session, number, run, failure.to_map(), 0.0, 0.0))

    def _known(self, message: WithdrawTasks | CancelTasks) -> list[Task]:
        session = self.sessions.get(message.session)
        if session is None:
            return []
        found = []
        for number, run in zip(message.tasks, message.runs, strict=True):
            task = session.tasks.get(number)
            if task is not None and task.key[2] == run:
                found.append(task)
        return found

    def _task(self, key: TaskKey) -> Task | None:
        session = self.sessions.get(key[0])
        task = session.tasks.get(key[1]) if session is not None else None
        return task if task is not None and task.key == key else None

    def _on_withdraw_tasks(self, message: WithdrawTasks, now: float) -> None:
        tasks = [task for task in self._known(message) if task.state in UNSENT]
        self._lifecycle.give_back(tasks, now)

    def _on_cancel_tasks(self, message: CancelTasks, now: float) -> None:
        tasks = self._known(message)
        known = {task.key for task in tasks}
        stops = self._dispatcher.stops
        for number, run in zip(message.tasks, message.runs, strict=True):
            key = (message.session, number, run)
            under_way = key in stops.pending
            stops.expect(key, message.grace)
            if not under_way and key not in known:
                stops.over((key,))
        self._lifecycle.drop(tasks, now)

    def _on_delete_objects(self, message: DeleteObjects, now: float) -> None:
        session = self.sessions.get(message.session)
        if session is not None:
            for number in message.objects:
                obj = session.objects.get(number)
                if obj is not None:
                    self._objects.not_needed(obj, now)

    def _on_end_session(self, message: EndSession, now: float) -> None:
        session = self.sessions.get(message.session)
        if session is not None:
            self._lifecycle.end_session(session)

    def _on_get_worker_info(self, message: GetWorkerInfo, now: float) -> None:
        state = {"state": self.full_state(now)} if message.full else self.info()
        self._outbox.info(WorkerInfo(message.seq, state))

    def _on_list_runs(self, message: ListRuns, now: float) -> None:
        columns = [array("I", column) for column in zip(*sorted(self._runs()), strict=True)]
        sessions, tasks, runs = columns or (array("I"), array("I"), array("I"))
        self._outbox.info(WorkerRuns(self._heard, sessions, tasks, runs))

    def _on_read_task_log(self, message: ReadTaskLog, now: float) -> None:
        self._outbox.act(ReadLog(message))

    def _on_probe_peers(self, message: ProbePeers, now: float) -> None:
        self._outbox.act(Probe(message))

    def _runs(self) -> set[TaskKey]:
        """Runs that were given to this worker and are not reported as over."""
        held = {task.key for session in self.sessions.values() for task in session.tasks.values()}
        return held | self._dispatcher.stops.pending.keys()

    def _digest(self) -> WorkerDigest:
        runs, digest = self._runs(), 0
        for key in runs:
            digest ^= run_digest(*key)
        return WorkerDigest(self._heard, len(runs), digest)

    def _on_stop_worker(self, message: StopWorker, now: float) -> None:
        self._drop_everything()
        self._dispatcher.kill_all()
        self._outbox.act(Exit(0))
        self._stopped = True

    # --- the connection, time ---

    def _on_server_lost(self, event: ServerLost, now: float) -> None:
        self._heard = 0
        self._next_digest = None  # the next server counts anew, from its welcome on
        self._drop_everything()
        self._outbox.forget_answers()

    def _drop_everything(self) -> None:
        for session in list(self.sessions.values()):
            self._lifecycle.end_session(session)

    def _on_tick(self, event: Tick, now: float) -> None:
        self._objects.expire(now)
        if self._next_digest is not None and now >= self._next_digest:
            self._next_digest = now + DIGEST_SECONDS
            self._digest_is_due = True
        for task in self._dispatcher.deadlines.due(now):
            text = f"Time limit of {format_duration(task.template.timeout or 0.0)} exceeded"
            self._lifecycle.exceed(task, text, LIMIT_GRACE, now)

    # --- executors ---

    def _executor(self, number: int) -> Executor | None:
        """The executor, unless it is gone or was told to end."""
        executor = self._dispatcher.executors.all.get(number)
        return None if executor is None or executor.state == STOPPING else executor

    def _on_executor_ready(self, event: ExecutorReady, now: float) -> None:
        executor = self._executor(event.executor)
        if executor is not None:
            self._dispatcher.executor_ready(executor, now)

    def _on_looked_up(self, event: LookedUp, now: float) -> None:
        session, number, _ = event.key
        known = self.sessions.get(session)
        task = known.tasks.get(number) if known is not None else None
        if task is None or task.key != event.key or task.state != LOOKING:
            return
        if event.result is None:
            self._dispatcher.looking_to_ready(task)
        else:
            self._lifecycle.looking_to_finished(task, event.result, now)

    def _on_executor_lost(self, event: ExecutorLost, now: float) -> None:
        executor = self._executor(event.executor)
        if executor is not None:
            self._lifecycle.executor_lost(executor, event.running, event.failure, now)

    def _on_executor_stopped(self, event: ExecutorStopped, now: float) -> None:
        executor = self._dispatcher.executors.all.get(event.executor)
        if executor is not None and executor.state == STOPPING:
            self._dispatcher.executor_stopped(executor)

    def _on_builtin_stopped(self, event: BuiltinStopped, now: float) -> None:
        self._dispatcher.builtin_stopped(event.key)

    def _on_run_kept(self, event: RunKept, now: float) -> None:
        self._dispatcher.stops.over((event.key,))

    def _on_limit_exceeded(self, event: LimitExceeded, now: float) -> None:
        task = self._task(event.key)
        if task is not None and task.state == RUNNING:
            self._lifecycle.exceed(task, event.text, 0.0, now)

    def _on_runs_ended(self, event: RunsEnded, now: float) -> None:
        if event.executor == 0:
            self._lifecycle.builtins_ended(event.results, now)
            return
        executor = self._executor(event.executor)
        if executor is not None:
            if event.cached:
                self._dispatcher.executors.now_cached(executor, event.cached)
            self._lifecycle.runs_ended(executor, event.results, now)

    # --- objects ---

    def _on_object_arrived(self, event: ObjectArrived, now: float) -> None:
        obj = self._objects.find(event.object)
        if obj is None:  # it crossed our StopFetch
            self._outbox.delete(event.object)
        elif obj.state != PRESENT:
            self._lifecycle.object_arrived(obj, event.size)

    def _on_object_unreachable(self, event: ObjectUnreachable, now: float) -> None:
        obj = self._objects.find(event.object)
        if obj is not None and obj.state == FETCHING:
            self._lifecycle.object_lost(obj, event.holders, now)

    def _on_store_failed(self, event: StoreFailed, now: float) -> None:
        obj = self._objects.find(event.object)
        if obj is None or obj.state == EXPECTED:
            return
        if obj.state == FETCHING:
            self._lifecycle.no_room(obj, event.reason, now)
        elif event.refused and obj.producer is None:
            self._lifecycle.refused(obj, event.reason, self._assigner.worker_id, now)
        else:
            self._lifecycle.copy_lost(obj, self._assigner.worker_id, now)

    # --- looking in ---

    def info(self) -> dict[str, list[list[int]]]:
        """What GetWorkerInfo is answered: `[session, id]` of tasks (of a block all members), objects (unfinished ones
        and those on the delete list too) and of the delete list."""
        sessions = self.sessions.values()
        return {
            "tasks": [[session.id, number] for session in sessions for number in _task_ids(session)],
            "objects": [[session.id, number] for session in sessions for number in session.objects],
            "objects_to_delete": [list(obj.key) for obj in self._objects.delete_list],
        }

    def full_state(self, now: float) -> dict[str, Any]:
        """What a dump tells of the core, see `inspection.full_state`."""
        return full_state(self.sessions, self._dispatcher, self._objects.delete_list, now)

    def sanity_check(self) -> None:
        """Walk every invariant of the state.

        Raises:
            AssertionError: one does not hold.
        """
        check(self._objects, self._dispatcher)


def _task_ids(session: Session) -> Iterator[int]:
    for number, task in session.tasks.items():
        yield from range(number, number + max(task.members, 1))


_HANDLERS: Final[dict[type, Callable[[WorkerCore, Any, float], None]]] = {
    ServerSaid: WorkerCore._on_server_said,
    ServerLost: WorkerCore._on_server_lost,
    RunsEnded: WorkerCore._on_runs_ended,
    LookedUp: WorkerCore._on_looked_up,
    ExecutorReady: WorkerCore._on_executor_ready,
    ExecutorLost: WorkerCore._on_executor_lost,
    ExecutorStopped: WorkerCore._on_executor_stopped,
    BuiltinStopped: WorkerCore._on_builtin_stopped,
    RunKept: WorkerCore._on_run_kept,
    LimitExceeded: WorkerCore._on_limit_exceeded,
    ObjectArrived: WorkerCore._on_object_arrived,
    ObjectUnreachable: WorkerCore._on_object_unreachable,
    StoreFailed: WorkerCore._on_store_failed,
    Tick: WorkerCore._on_tick,
}

_MESSAGE_HANDLERS: Final[dict[type, Callable[[WorkerCore, Any, float], None]]] = {
    WorkerWelcome: WorkerCore._on_worker_welcome,
    AssignTasks: WorkerCore._on_assign_tasks,
    WithdrawTasks: WorkerCore._on_withdraw_tasks,
    CancelTasks: WorkerCore._on_cancel_tasks,
    DeleteObjects: WorkerCore._on_delete_objects,
    EndSession: WorkerCore._on_end_session,
    GetWorkerInfo: WorkerCore._on_get_worker_info,
    ListRuns: WorkerCore._on_list_runs,
    ReadTaskLog: WorkerCore._on_read_task_log,
    ProbePeers: WorkerCore._on_probe_peers,
    StopWorker: WorkerCore._on_stop_worker,
}
