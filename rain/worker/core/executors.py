"""Executor processes of a worker: which are idle, which start, which are spare."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from rain.worker.core.actions import KillExecutor, StartExecutor
from rain.worker.core.model import PRESENT, UNKNOWN

if TYPE_CHECKING:
    from rain.worker.core.events import ObjectKey, TaskKey
    from rain.worker.core.model import Task
    from rain.worker.core.objects import ObjectTable
    from rain.worker.core.outbox import Outbox
    from rain.worker.core.queues import Env, ReadyQueue
    from rain.worker.core.resources import Request

PYTHON: Final = "py"

ExecutorState: TypeAlias = Literal["coming", "idle", "busy", "stopping", "lost"]
COMING: Final = "coming"
IDLE: Final = "idle"
BUSY: Final = "busy"
STOPPING: Final = "stopping"
LOST: Final = "lost"
EXECUTOR_STATES: Final[tuple[ExecutorState, ...]] = (COMING, IDLE, BUSY, STOPPING, LOST)

Kind: TypeAlias = "tuple[str, Env]"


class Executor:
    """One executor process."""

    __slots__ = ("announced", "batches", "bound", "cached", "gpus", "head_since", "held", "id", "kind", "line", "pace",
                 "queue", "spare", "started_for", "state", "unconfirmed")  # fmt: skip

    def __init__(self, number: int, kind: Kind, spare: bool) -> None:
        self.id = number
        self.kind = kind
        self.state: ExecutorState = COMING
        #: never taken so far and kept for a Python task to come
        self.spare = spare
        #: while coming: the task it is started for, if that still waits
        self.bound: Task | None = None
        #: when it was started for a task, until that task's run ended; 0.0: it was not
        self.started_for = 0.0
        #: the queue whose request it occupies (bound or busy), else None
        self.queue: ReadyQueue | None = None
        self.gpus: tuple[int, ...] = ()
        #: runs sent and not ended; gone tasks among them are run, or killed, unheard
        self.line: deque[Task] = deque()
        #: how many runs are left of each batch in flight
        self.batches: deque[int] = deque()
        #: seconds a run in flight is expected to take, UNKNOWN if that is not known
        self.pace = UNKNOWN
        #: when the first of the line became the first
        self.head_since = 0.0
        #: the run reported as started last
        self.announced: Task | None = None
        #: objects it holds decoded
        self.cached: set[ObjectKey] = set()
        #: while stopping: what it occupies till its end, else None
        self.held: tuple[Request, tuple[int, ...]] | None = None
        #: while stopping: the gone runs that were in its line, the one that ran first
        self.unconfirmed: list[TaskKey] = []


class ExecutorTable:
    """Starts, hands out, takes back and stops executors."""

    __slots__ = ("_coming", "_idle", "_idle_by_kind", "_idle_limit", "_last_id", "_objects", "_outbox",
                 "_spare_count", "all", "spares")  # fmt: skip

    def __init__(self, objects: ObjectTable, outbox: Outbox, *, cpus: int, spares: int) -> None:
        self._objects = objects
        self._outbox = outbox
        self._idle_limit = 2 * max(cpus, 1)
        self._spare_count = spares
        self._last_id = 0
        self.all: dict[int, Executor] = {}
        #: idle ones without spares, least recently used first
        self._idle: dict[Executor, None] = {}
        self._idle_by_kind: dict[Kind, dict[Executor, None]] = {}
        #: coming ones that nobody waits for, without spares
        self._coming: dict[Kind, dict[Executor, None]] = {}
        #: spares, coming or idle
        self.spares: dict[Executor, None] = {}

    def acquire(self, type: str, env: Env) -> Executor:
        """An idle executor, else one that is coming: the caller makes it busy, or binds a task to it."""
        kind = (type, env)
        idle = self._idle_by_kind.get(kind)
        if idle:
            executor = next(reversed(idle))
            self._not_idle(executor)
            return executor
        executor = self._take_coming(kind) or self._start(kind, spare=False)
        if type == PYTHON:
            self.keep_spares()
        return executor

    def _take_coming(self, kind: Kind) -> Executor | None:
        if kind == (PYTHON, ()) and self.spares:
            executor = min(self.spares, key=lambda spare: spare.state != IDLE)
            del self.spares[executor]
            executor.spare = False
            return executor
        coming = self._coming.get(kind)
        if not coming:
            return None
        executor = next(iter(coming))
        self._not_unbound(executor)
        return executor

    def _start(self, kind: Kind, *, spare: bool) -> Executor:
        self._last_id += 1
        executor = self.all[self._last_id] = Executor(self._last_id, kind, spare)
        self._outbox.act(StartExecutor(executor.id, *kind))
        return executor

    def keep_spares(self) -> None:
        """Start as many spare Python executors as are missing."""
        while len(self.spares) < self._spare_count:
            self.spares[self._start((PYTHON, ()), spare=True)] = None

    def unbind(self, executor: Executor) -> None:
        """Nobody waits for this coming executor any more."""
        executor.bound = None
        self._coming.setdefault(executor.kind, {})[executor] = None

    def registered(self, executor: Executor) -> None:
        """A coming executor nobody waits for is here."""
        executor.state = IDLE
        if not executor.spare:
            self._not_unbound(executor)
            self._to_idle(executor)

    def release(self, executor: Executor) -> None:
        """A busy executor has nothing to do any more."""
        executor.state = IDLE
        self._to_idle(executor)

    def _to_idle(self, executor: Executor) -> None:
        self._idle[executor] = None
        self._idle_by_kind.setdefault(executor.kind, {})[executor] = None

    def stop_surplus(self) -> None:
        """Stop idle executors beyond the limit, least recently used first."""
        while len(self._idle) > self._idle_limit:
            self.kill(next(iter(self._idle)))

    def kill(self, executor: Executor) -> None:
        """Stop it, whatever it does; its line is the caller's business."""
        self.forget(executor)
        self._outbox.act(KillExecutor(executor.id))

    def stop(self, executor: Executor, grace: float, held: tuple[Request, tuple[int, ...]]) -> None:
        """Let a busy one end within `grace` seconds; till then it occupies `held`."""
        executor.state = STOPPING
        executor.held = held
        executor.announced = None
        self._uncache(executor)
        self._outbox.act(KillExecutor(executor.id, grace))

    def stopping(self) -> list[Executor]:
        """Those which were told to end."""
        return [executor for executor in self.all.values() if executor.state == STOPPING]

    def forget(self, executor: Executor) -> None:
        """Its process is gone."""
        del self.all[executor.id]
        if executor.spare:
            del self.spares[executor]
        elif executor.state == IDLE:
            self._not_idle(executor)
        elif executor.state == COMING and executor.bound is None:
            self._not_unbound(executor)
        executor.state = LOST
        self._uncache(executor)

    def _uncache(self, executor: Executor) -> None:
        for key in executor.cached:
            obj = self._objects.find(key)
            if obj is not None and obj.cached_by:
                obj.cached_by.discard(executor)
        executor.cached.clear()
        self._outbox.forget_executor(executor.id)

    def _not_idle(self, executor: Executor) -> None:
        del self._idle[executor]
        self._discard(self._idle_by_kind, executor)

    def _not_unbound(self, executor: Executor) -> None:
        self._discard(self._coming, executor)

    @staticmethod
    def _discard(table: dict[Kind, dict[Executor, None]], executor: Executor) -> None:
        members = table[executor.kind]
        del members[executor]
        if not members:
            del table[executor.kind]

    def now_cached(self, executor: Executor, keys: list[ObjectKey]) -> None:
        """It reported that it holds these decoded; what is not here any more it shall forget."""
        for key in keys:
            obj = self._objects.find(key)
            if obj is None or obj.state != PRESENT:
                self._outbox.drop_cached(executor.id, key)
            elif key not in executor.cached:
                executor.cached.add(key)
                if obj.cached_by is None:
                    obj.cached_by = set()
                obj.cached_by.add(executor)

    def check(self) -> None:
        """Assert that the tables agree."""
        idle = {e for e in self.all.values() if e.state == IDLE and not e.spare}
        assert idle == set(self._idle) == {e for members in self._idle_by_kind.values() for e in members}
        unbound = {e for e in self.all.values() if e.state == COMING and not e.spare and e.bound is None}
        assert unbound == {e for members in self._coming.values() for e in members}
        assert all(self._idle_by_kind.values())
        assert all(self._coming.values())
        assert set(self.spares) == {e for e in self.all.values() if e.spare}
        assert len(self._idle) <= self._idle_limit
