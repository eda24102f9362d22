"""Starts ready tasks: resources, executors, batches."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rain.worker.core.actions import CallExecutor, ForbidRun, LookUp, RunBuiltin, StopBuiltin
from rain.worker.core.announcing import Announcer
from rain.worker.core.batching import choose_batch, fair_share, is_short_builtin, make_runs, may_follow
from rain.worker.core.deadlines import Deadlines
from rain.worker.core.executors import BUSY, COMING, IDLE
from rain.worker.core.model import GONE, IN_BATCH, LOOKING, PRESENT, READY, RUNNING, STARTING, UNKNOWN, WAITING
from rain.worker.core.queues import ReadyQueues
from rain.worker.core.stops import Stops

if TYPE_CHECKING:
    from rain.worker.core.events import TaskKey
    from rain.worker.core.executors import Executor, ExecutorTable
    from rain.worker.core.model import Task
    from rain.worker.core.outbox import Outbox
    from rain.worker.core.queues import Env, ReadyQueue
    from rain.worker.core.resources import Request, ResourcePool


class Dispatcher:
    """Transitions of tasks from `ready` on, and back to it."""

    __slots__ = ("_cut", "_grown", "_outbox", "_started_builtins", "_touched", "announcer", "builtins", "deadlines",
                 "executors", "pool", "queues", "stopped_builtins", "stopping_builtins", "stops")  # fmt: skip

    def __init__(self, outbox: Outbox, pool: ResourcePool, executors: ExecutorTable) -> None:
        self._outbox = outbox
        self.pool = pool
        self.executors = executors
        self.queues = ReadyQueues()
        self.deadlines = Deadlines()
        self.stops = Stops(outbox)
        #: built-in tasks that run, with their gpu indices and start
        self.builtins: dict[TaskKey, tuple[Task, tuple[int, ...], float]] = {}
        #: built-in tasks that are gone and occupy their resources till their end
        self.stopping_builtins: dict[TaskKey, tuple[Task, tuple[int, ...]]] = {}
        self._started_builtins: list[Task] = []
        self.announcer = Announcer(outbox, self.builtins)
        #: built-in tasks stopped in this turn; their results may be among its events
        self.stopped_builtins: dict[TaskKey, Task] = {}
        #: executors whose line changed in this turn
        self._touched: dict[Executor, None] = {}
        #: tasks that became gone in an executor's line in this turn
        self._cut: list[Task] = []
        #: queues which got tasks in this turn
        self._grown: dict[ReadyQueue, None] = {}

    # --- one function per transition ---

    def to_ready(self, tasks: list[Task]) -> None:
        """Their inputs are here: they queue."""
        start = 0
        while start < len(tasks):
            template = tasks[start].template
            order = -1 << 80
            end = start
            if _is_to_be_looked_up(tasks[start]):
                self.to_looking(tasks[start])
                start += 1
                continue
            for task in islice(tasks, start, None):
                if task.template is not template or task.order <= order or _is_to_be_looked_up(task):
                    break
                order = task.order
                task.state = READY
                end += 1
            template.queue.extend(tasks[start:end] if start or end < len(tasks) else tasks)
            self._grown[template.queue] = None
            start = end

    def to_looking(self, task: Task) -> None:
        """Its inputs are here, and its result may be in the cache."""
        task.state = LOOKING
        self._outbox.act(LookUp(make_runs([task], set(), ())[0]))

    def looking_to_ready(self, task: Task) -> None:
        """The cache does not have its result."""
        task.looked = True
        self.to_ready([task])

    def ready_to_starting(self, task: Task, executor: Executor, now: float) -> None:
        """It waits for an executor that is being started for it, and holds resources."""
        executor.started_for = now
        task.state = STARTING
        task.executor = executor
        executor.bound = task

    def to_in_batch(self, batch: list[Task], executor: Executor) -> None:
        """They were sent to an executor."""
        for task in batch:
            task.state = IN_BATCH
            task.executor = executor
        executor.line.extend(batch)
        if executor.queue is not None:
            executor.queue.in_flight += len(batch)
        executor.batches.append(len(batch))

    def to_waiting(self, task: Task) -> None:
        """Its executor did not run it, and its inputs are not all here."""
        task.state = WAITING
        missing = [obj for obj in task.inputs if obj.state != PRESENT]
        for obj in set(missing):
            obj.consumers = [other for other in obj.consumers or () if other is not task] or None
        for obj in missing:
            obj.awaited_by(task)
        task.missing = len(missing)

    def in_batch_to_running(self, executor: Executor, now: float) -> None:
        """The first of its line runs, as far as we know."""
        first = executor.line[0]
        if first.state == IN_BATCH:
            first.state = RUNNING
            if first.template.timeout is not None:
                self.deadlines.started(first, now)
        executor.head_since = now

    def ready_to_running(self, task: Task, gpus: tuple[int, ...], now: float) -> None:
        """A built-in task starts."""
        task.state = RUNNING
        self.builtins[task.key] = (task, gpus, now)
        self.deadlines.started(task, now)
        self._started_builtins.append(task)
        self._outbox.act(RunBuiltin(make_runs([task], set(), gpus)[0]))

    def to_gone(self, task: Task) -> None:
        """It leaves whatever it was in; a run of it is stopped, with the grace noted in `stops`, and not heard."""
        state, task.state = task.state, GONE
        if state in (RUNNING, IN_BATCH):
            if task.executor is not None:
                self._touched[task.executor] = None
                self._cut.append(task)
            else:
                self._stop_builtin(task)
            return
        if state == READY:
            task.template.queue.left()
        elif state == STARTING:
            self._unbind(task)
        self.stops.over((task.key,))

    def _stop_builtin(self, task: Task) -> None:
        key = task.key
        grace = self.stops.grace(key)
        self._outbox.act(StopBuiltin(key, grace))
        self.stopped_builtins[key] = task
        if grace:
            self.stopping_builtins[key] = self.builtins.pop(key)[:2]
        else:
            self.builtin_ended(task)
            self.stops.over((key,))

    # --- executors and their lines ---

    def _occupy(self, executor: Executor, queue: ReadyQueue, gpus: tuple[int, ...]) -> None:
        executor.queue = queue
        executor.gpus = gpus
        queue.busy[executor] = None

    def _vacate(self, executor: Executor) -> None:
        self.pool.give(*self._leave_queue(executor))

    def _leave_queue(self, executor: Executor) -> tuple[Request, tuple[int, ...]]:
        """Returns what it occupies, to be given back."""
        queue, gpus = executor.queue, executor.gpus
        assert queue is not None
        queue.in_flight -= len(executor.line)
        del queue.busy[executor]
        executor.queue = None
        executor.gpus = ()
        return queue.request, gpus

    def _unbind(self, task: Task) -> None:
        executor = task.executor
        assert executor is not None
        self._vacate(executor)
        self.executors.unbind(executor)

    def builtin_ended(self, task: Task) -> None:
        """A built-in task runs no more."""
        _, gpus, _ = self.builtins.pop(task.key)
        self.pool.give(task.template.queue.request, gpus)

    def builtin_stopped(self, key: TaskKey) -> None:
        """Nothing is left of a built-in task that was stopped with grace."""
        stopping = self.stopping_builtins.pop(key, None)
        if stopping is not None:
            task, gpus = stopping
            self.pool.give(task.template.queue.request, gpus)
            self.stops.over((key,))

    def short_builtin_is_ready(self) -> bool:
        """Whether a built-in task expected to end soon waits for its turn."""
        for queue in self.queues.queues.values():
            if not queue.type and queue.count and (first := queue.first()) is not None:
                return is_short_builtin(first)
        return False

    def run_start(self, task: Task) -> float:
        """When a running task was started, unix seconds."""
        return self.builtins[task.key][2] if task.executor is None else task.executor.head_since

    def executor_ready(self, executor: Executor, now: float) -> None:
        """A coming executor registered."""
        if executor.state != COMING:
            return
        task, executor.bound = executor.bound, None
        queue = executor.queue
        if task is None or queue is None:
            self.executors.registered(executor)
            return
        executor.state = BUSY
        self._send(executor, queue, now, bound=task)

    def take_from_line(self, executor: Executor, key: TaskKey) -> Task | None:
        """Take a run that ended out of the line. None if it is not there; the task may be gone."""
        for position, task in enumerate(executor.line):
            if task.key == key:
                del executor.line[position]
                return task
        return None

    def line_changed(self, executor: Executor, ended: int, now: float) -> None:
        """So many runs of the executor ended and were taken out of its line."""
        self._touched[executor] = None
        if executor.queue is not None:
            executor.queue.in_flight -= ended
        batches = executor.batches
        while ended > 0 and batches:
            ended -= batches[0]
            if ended >= 0:
                batches.popleft()
            else:
                batches[0] = -ended
        if executor.line:
            self.in_batch_to_running(executor, now)
        elif executor.state == BUSY:
            executor.announced = None
            self._vacate(executor)
            self.executors.release(executor)

    def lost(self, executor: Executor) -> tuple[Task | None, list[Task]]:
        """Its process is gone. Returns the task bound to it, and what was in its line, gone tasks included."""
        bound, executor.bound = executor.bound, None
        if executor.queue is not None:
            self._vacate(executor)
            if executor.state == COMING:
                self.executors.unbind(executor)
        self.executors.forget(executor)
        self._touched.pop(executor, None)
        line = list(executor.line)
        executor.line.clear()
        return bound, line

    def take_gone_heads(self) -> list[Task]:
        """End executors that may be running a task which is gone; returns the innocent tasks behind."""
        innocent: list[Task] = []
        for executor in [executor for executor in self._touched if executor.line]:
            head = executor.line[0]
            if head.state == GONE:
                line = self.end(executor, self.stops.grace(head.key))
                innocent += [task for task in line if task.state != GONE]
        for task in self._cut:
            if task.key in self.stops.pending and task.executor is not None and task.executor.state == BUSY:
                task.executor.pace = UNKNOWN  # nothing more is sent behind
                self._outbox.act(ForbidRun(task.executor.id, task.key))
        self._cut = []
        return innocent

    def end(self, executor: Executor, grace: float) -> list[Task]:
        """End a busy executor, at once without grace; returns its line."""
        line = list(executor.line)
        held = self._leave_queue(executor)
        executor.line.clear()
        executor.batches.clear()
        self._touched.pop(executor, None)
        gone = [task.key for task in line if task.state == GONE]
        if grace:
            executor.unconfirmed = gone
            self.executors.stop(executor, grace, held)
        else:
            self.pool.give(*held)
            self.executors.kill(executor)
            self.stops.over(gone)
        return line

    def executor_stopped(self, executor: Executor) -> None:
        """Nothing is left of an executor that was ended with grace."""
        self._release_held(executor)
        self.executors.forget(executor)
        self.stops.over(executor.unconfirmed)

    def _release_held(self, executor: Executor) -> None:
        assert executor.held is not None
        self.pool.give(*executor.held)
        executor.held = None

    def end_stopping(self, session: int) -> None:
        """No more grace for runs of this session."""
        self.stops.forget_session(session)
        for executor in self.executors.stopping():
            if executor.unconfirmed[0][0] == session:
                self._release_held(executor)
                self.executors.kill(executor)
                self.stops.over(executor.unconfirmed)
        for key in [key for key in self.stopping_builtins if key[0] == session]:
            self._outbox.act(StopBuiltin(key))
            self.builtin_stopped(key)

    def kill_all(self) -> None:
        """Kill every executor; all tasks are gone, and none is stopping."""
        for executor in list(self.executors.all.values()):
            if executor.state == BUSY:
                self.end(executor, 0.0)
            else:
                self.executors.kill(executor)

    # --- once per turn ---

    def run(self, now: float) -> None:
        """Start what can start, feed busy executors, stop surplus ones, tell what started."""
        for queue in self._grown:
            self.queues.grown(queue)
        while (found := self.queues.next(self.pool)) is not None:
            self._start(found, now)
        self._feed(now)
        self.executors.stop_surplus()
        self._announce(now)
        self._grown = {}
        self._touched = {}
        self.stopped_builtins = {}

    def _start(self, queue: ReadyQueue, now: float) -> None:
        gpus = self.pool.take(queue.request)
        if not queue.type:
            self.ready_to_running(queue.pop_first(), gpus, now)
            return
        executor = self.executors.acquire(queue.type, _with_gpus(queue.env, gpus))
        self._occupy(executor, queue, gpus)
        if executor.state == IDLE:
            executor.state = BUSY
            self._send(executor, queue, now)
        else:
            self.ready_to_starting(queue.pop_first(), executor, now)

    def _send(self, executor: Executor, queue: ReadyQueue, now: float, *, bound: Task | None = None) -> None:
        slots = len(queue.busy) + self.pool.capacity(queue.request)
        share = fair_share(queue, slots, executor)
        if share < 1 and executor.line:
            return
        batch, pace = choose_batch(queue, share, bound=bound, wide=slots == len(queue.busy))
        first = not executor.line
        if first or pace < 0.0 or executor.pace < 0.0:
            executor.pace = pace
        else:
            executor.pace = max(pace, executor.pace)
        self._outbox.act(CallExecutor(executor.id, make_runs(batch, executor.cached, executor.gpus)))
        self.to_in_batch(batch, executor)
        if first:
            self.in_batch_to_running(executor, now)
        self._touched[executor] = None

    def _feed(self, now: float) -> None:
        hungry = dict(self._touched)
        for queue in self._grown:
            if queue.count and queue.batched:
                hungry.update(queue.busy)
        for executor in hungry:
            queue_or_none = executor.queue
            if queue_or_none is None or executor.state != BUSY or not queue_or_none.count:
                continue
            first = queue_or_none.first()
            if first is None or executor.line[0].state == GONE or not may_follow(executor, first, now):
                continue
            if not self.queues.better_waits(first.order, queue_or_none, self.pool):
                self._send(executor, queue_or_none, now)

    def _announce(self, now: float) -> None:
        for executor in self._touched:
            if executor.line:
                first = executor.line[0]
                if first is not executor.announced:
                    executor.announced = first
                    self.announcer.started(first, now)
        for task in self._started_builtins:
            if task.key in self.builtins:
                self.announcer.started(task, now)
        self._started_builtins = []
        self.announcer.tell(now)


def _is_to_be_looked_up(task: Task) -> bool:
    return task.template.cached and not task.looked and not task.members


def _with_gpus(env: Env, gpus: tuple[int, ...]) -> Env:
    if not gpus:
        return env
    indices = ",".join(map(str, gpus))
    return tuple(sorted({**dict(env), "CUDA_VISIBLE_DEVICES": indices, "RAIN_TASK_GPUS": indices}.items()))
