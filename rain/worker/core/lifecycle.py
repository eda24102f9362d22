"""How tasks leave: finished, failed, given back or dropped; and what that means for their objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import TaskFailed
from rain.worker.core.actions import KeepResult, StopFetch, StopLookUp
from rain.worker.core.events import RunFailed, RunResult, RunSkipped
from rain.worker.core.model import EXPECTED, FETCHING, GONE, LOOKING, PRESENT, READY, STARTING, WAITING, DataObject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.worker.core.dispatch import Dispatcher
    from rain.worker.core.events import BlockEnd, RunEnd, TaskKey
    from rain.worker.core.executors import Executor
    from rain.worker.core.model import Session, Task
    from rain.worker.core.objects import ObjectTable
    from rain.worker.core.outbox import Outbox

SILENT_LOSSES = 3
"""A task that is first in line when its executor dies without having begun anything fails the n-th time."""

UNSENT = (WAITING, LOOKING, READY, STARTING)
"""States of tasks which no executor knows."""


class Lifecycle:
    """Transitions of tasks that touch objects."""

    __slots__ = ("_dispatcher", "_objects", "_outbox", "_silent_losses")

    def __init__(self, objects: ObjectTable, dispatcher: Dispatcher, outbox: Outbox) -> None:
        self._objects = objects
        self._dispatcher = dispatcher
        self._outbox = outbox
        self._silent_losses: dict[TaskKey, int] = {}

    # --- inputs ---

    def waiting_to_ready(self, consumers: list[Task]) -> None:
        """An object came for which these waited, once per occurrence."""
        ready = []
        for task in consumers:
            if task.state == WAITING:
                task.missing -= 1
                if not task.missing:
                    ready.append(task)
        if ready:
            self._dispatcher.to_ready(ready)

    def requeue(self, tasks: list[Task], now: float) -> None:
        """Their executor is gone or has skipped them, and they are not to blame: the same runs go back to ready, or
        wait again for those of the same batch that were to make their inputs."""
        ready, returned = [], []
        for task in tasks:
            task.executor = None
            self._dispatcher.deadlines.ended(task)
            if all(obj.state == PRESENT for obj in task.inputs):
                task.missing = 0  # an input came while it was in a batch
                ready.append(task)
            elif all(obj.state == PRESENT or obj.producer is not None for obj in task.inputs):
                self._dispatcher.to_waiting(task)
            else:
                task.state = GONE
                returned.append(task)
        ready.sort(key=_order)
        self._dispatcher.to_ready(ready)
        for task in returned:
            self._outbox.returned(task.key)
            self.give_back(self._leave(task, now), now)

    # --- ends ---

    def runs_ended(self, executor: Executor, results: list[RunEnd], now: float) -> None:
        """Runs of an executor ended; those that are gone, or not of this executor, do not count."""
        line = executor.line
        ended = 0
        tasks: list[Task] = []
        successes: list[RunResult] = []
        skipped: list[Task] = []
        for result in results:
            if line and line[0].key == result.key:
                task = line.popleft()
            elif (found := self._dispatcher.take_from_line(executor, result.key)) is not None:
                task = found
            else:
                continue
            ended += 1
            if task.state == GONE:
                self._discard_values(task, result)
                self._dispatcher.stops.over((task.key,))
            elif type(result) is RunResult and task.members and result.block is not None:
                self.block_to_finished(task, result, result.block, now)
                executor.started_for = 0.0
            elif type(result) is RunResult and len(result.outputs) == len(task.outputs) and not task.members:
                tasks.append(task)
                successes.append(result)
            elif isinstance(result, RunSkipped):
                skipped.append(task)
            else:
                if tasks:  # those before it, which made inputs of it perhaps
                    self._succeeded(executor, tasks, successes, now)
                    tasks, successes = [], []
                self._to_failed(task, result, now)
        if tasks:
            self._succeeded(executor, tasks, successes, now)
        if ended:
            self._dispatcher.line_changed(executor, ended, now)
        if skipped:
            self.requeue([task for task in skipped if task.state != GONE], now)

    def _succeeded(self, executor: Executor, tasks: list[Task], results: list[RunResult], now: float) -> None:
        self.to_finished(tasks, results, now)
        if executor.started_for:
            _charge_start(executor, results[0])

    def builtins_ended(self, results: list[RunEnd], now: float) -> None:
        """Built-in tasks ended."""
        for result in results:
            running = self._dispatcher.builtins.get(result.key)
            if running is None:
                stopped = self._dispatcher.stopped_builtins.get(result.key)
                if stopped is not None:
                    self._discard_values(stopped, result)
                continue
            task = running[0]
            self._dispatcher.builtin_ended(task)
            assert not isinstance(result, RunSkipped)
            if type(result) is RunResult and len(result.outputs) == len(task.outputs):
                self.to_finished([task], [result], now)
            else:
                self._to_failed(task, result, now)

    def to_finished(self, tasks: list[Task], results: list[RunResult], now: float) -> None:
        """Runs succeeded, their values are in the store; at least one."""
        template = tasks[0].template
        session = template.session
        done = self._outbox.done_list(session.id).append
        seconds, runs = 0.0, 0
        inputs, uses = tasks[0].inputs, 0
        for task, result in zip(tasks, results, strict=True):
            if task.template is not template:
                template.measured(seconds / runs)
                seconds, runs = 0.0, 0
                template = task.template
                session = template.session
                done = self._outbox.done_list(session.id).append
            seconds += result.duration
            runs += 1
            done(result)
            task.state = GONE
            del session.tasks[task.key[1]]
            outputs = task.outputs
            if len(outputs) == 1 and (obj := outputs[0]).state == EXPECTED:
                obj.producer = None
                obj.users -= 1
                obj.size, obj.info, _ = result.outputs[0]
                self._value_came(obj, now)
            elif outputs:
                self._values_came(task, result, now)
            if task.looked:
                self._outbox.act(KeepResult(task.key, [(size, info) for size, info, _ in result.outputs]))
            if task.inputs is not inputs:
                self._unuse(inputs, uses, now)
                inputs, uses = task.inputs, 0
            uses += 1
        self._unuse(inputs, uses, now)
        template.measured(seconds / runs)
        self._forget(tasks)

    def looking_to_finished(self, task: Task, result: RunResult, now: float) -> None:
        """The cache has its result."""
        average = task.template.average
        self.to_finished([task], [result], now)
        task.template.average = average  # nothing ran

    def block_to_finished(self, task: Task, result: RunResult, end: BlockEnd, now: float) -> None:
        """An executor told the end of a block; what became of its members is for the server.

        Only an output that is in the store now becomes an object here.
        """
        template = task.template
        session = template.session
        self._outbox.done_list(session.id).append(result)
        task.state = GONE
        del session.tasks[task.key[1]]
        if end.stored is not None:
            obj = session.objects.get(end.stored)
            if obj is None:
                made = template if task.link is None else session.templates[task.link.template(end.ran - 1)[0]]
                spec = made.output_specs[0] if made.output_specs else None
                obj = session.objects[end.stored] = DataObject((session.id, end.stored), EXPECTED, spec, None, 0)
            size, info, _ = result.outputs[0]
            self._late_value_came(obj, size, info, now)
        self._unuse(task.inputs, 1, now)
        template.measured(result.duration / end.ran)
        self._forget([task])

    def _values_came(self, task: Task, result: RunResult, now: float) -> None:
        for obj, (size, info, _) in zip(task.outputs, result.outputs, strict=True):
            obj.producer = None
            obj.users -= 1
            self._late_value_came(obj, size, info, now)

    def _late_value_came(self, obj: DataObject, size: int, info: bytes | None, now: float) -> None:
        """The value of an object which may have come otherwise, or be under way."""
        if obj.state != PRESENT:
            if obj.state == FETCHING:
                self._outbox.act(StopFetch(obj.key))
            obj.size = size
            obj.info = info
            self._value_came(obj, now)
        elif not obj.users:
            self._objects.unused(obj, now)

    def _value_came(self, obj: DataObject, now: float) -> None:
        consumers = self._objects.to_present(obj)
        if consumers:
            self.waiting_to_ready(consumers)
        if obj.unneeded and not obj.users:
            self._objects.unused(obj, now)

    def _unuse(self, inputs: tuple[DataObject, ...], uses: int, now: float) -> None:
        for obj in inputs:
            obj.users -= uses
            if not obj.users:
                self._objects.unused(obj, now)

    def _forget(self, tasks: list[Task]) -> None:
        if self._silent_losses:
            for task in tasks:
                self._silent_losses.pop(task.key, None)
        deadlines = self._dispatcher.deadlines
        if deadlines.until:
            for task in tasks:
                deadlines.ended(task)
        for session in {task.template.session for task in tasks}:
            if session.solo:
                session.solo.difference_update([task.key[1] for task in tasks if task.template.session is session])

    def _discard_values(self, task: Task, result: RunEnd) -> None:
        for number in result.stored([obj.key[1] for obj in task.outputs]):
            key = (task.key[0], number)
            current = self._objects.find(key)
            if current is None or current.state != PRESENT:
                self._outbox.delete(key)

    def _to_failed(self, task: Task, result: RunResult | RunFailed, now: float) -> None:
        if isinstance(result, RunFailed):
            failure = result.failure
            lost = [obj for obj in task.inputs if obj.state != PRESENT]
            if lost:  # not its fault
                refusal = next((obj.refusal for obj in lost if obj.refusal), "")
                if not refusal:
                    task.state = GONE
                    self._outbox.returned(task.key)
                    self.give_back(self._leave(task, now), now)
                    return
                failure = Failure("task", refusal, task.key[0], task.key[1])
            self.fail(task, failure, result.start, result.duration, now)
            return
        self._discard_values(task, result)
        text = f"Task {task.key[0]}/{task.key[1]} gave {len(result.outputs)} outputs instead of {len(task.outputs)}"
        failure = Failure("task", text, task.key[0], task.key[1])
        self.fail(task, failure, result.start, result.duration, now)

    def fail(self, task: Task, failure: Failure, start: float, duration: float, now: float) -> None:
        """A run failed; nothing runs it any more. Tasks that waited for its outputs go back to the server."""
        task.state = GONE
        session, number, run = task.key
        self._outbox.failed(TaskFailed(session, number, run, failure.to_map(), start, duration))
        self.give_back(self._leave(task, now), now)

    def executor_lost(self, executor: Executor, running: TaskKey | None, failure: Failure, now: float) -> None:
        """Blame the task that ran, or for which the executor was started; the others go back to ready."""
        silent = running is None
        since = executor.head_since
        bound, line = self._dispatcher.lost(executor)
        if bound is not None:
            self.fail(bound, failure, 0.0, 0.0, now)
            return
        blamed = next((task for task in line if task.key == running), None)
        if silent and line and line[0].state != GONE:
            losses = self._silent_losses[line[0].key] = self._silent_losses.get(line[0].key, 0) + 1
            if losses >= SILENT_LOSSES:
                blamed = line[0]
        if blamed is not None and blamed.state != GONE:
            self.fail(blamed, failure, since, max(now - since, 0.0), now)
        self._dispatcher.stops.over([task.key for task in line if task.state == GONE])
        self.requeue([task for task in line if task.state != GONE], now)

    def exceed(self, task: Task, text: str, grace: float, now: float) -> None:
        """A running task broke a limit: it is stopped, and fails when nothing of it is left."""
        session, number, run = task.key
        start = self._dispatcher.run_start(task)
        failure = Failure("task", text, session, number)
        verdict = TaskFailed(session, number, run, failure.to_map(), start, max(now - start, 0.0))
        self._dispatcher.stops.expect(task.key, grace, verdict)
        self.drop([task], now)

    def give_back(self, tasks: Iterable[Task], now: float) -> None:
        """Return runs that have not started, and those that wait for their outputs."""
        pending = list(tasks)
        for task in pending:
            if task.state != GONE:
                self._outbox.returned(task.key)
                self._dispatcher.to_gone(task)
                pending += self._leave(task, now)

    def drop(self, tasks: Iterable[Task], now: float) -> None:
        """Stop and forget runs; `stops` knows what to tell of them. Those that wait for their outputs go back."""
        orphans: list[Task] = []
        for task in tasks:
            if task.state != GONE:
                self._dispatcher.to_gone(task)
                orphans += self._leave(task, now)
        self.give_back(orphans, now)

    def _leave(self, task: Task, now: float) -> list[Task]:
        """Take a gone, unfinished task out of the tables; returns tasks that waited for its outputs."""
        session = task.template.session
        del session.tasks[task.key[1]]
        session.solo.discard(task.key[1])
        if task.template.cached:
            self._outbox.act(StopLookUp(task.key))
        self._silent_losses.pop(task.key, None)
        self._dispatcher.deadlines.ended(task)
        objects = self._objects
        orphans: list[Task] = []
        for obj in task.inputs:
            obj.users -= 1
            if not obj.users:
                objects.unused(obj, now)
        for obj in task.outputs:
            obj.users -= 1
            if obj.producer is task:
                obj.producer = None
                if obj.state == EXPECTED:
                    orphans += objects.to_gone(obj)
            if not obj.users:
                objects.unused(obj, now)
        return orphans

    # --- objects ---

    def object_arrived(self, obj: DataObject, size: int) -> None:
        """A transfer is complete."""
        obj.size = size
        self._outbox.stored(obj.key)
        self.waiting_to_ready(self._objects.to_present(obj))

    def object_lost(self, obj: DataObject, holders: list[str], now: float) -> None:
        """It cannot be had from these holders: tell, and give back who needs it and has not started."""
        self._outbox.missing(obj.key, holders)
        if obj.state == FETCHING and obj.producer is not None:
            self._objects.fetching_to_expected(obj)
            return
        consumers = self._objects.to_gone(obj)
        self.give_back(consumers, now)

    def no_room(self, obj: DataObject, reason: str, now: float) -> None:
        """The store cannot take an input: those who need it here fail, unless a task here will produce it."""
        if obj.producer is not None:
            self._outbox.act(StopFetch(obj.key))
            self._objects.fetching_to_expected(obj)
            return
        self._fail_unsent(self._objects.to_gone(obj), reason, now)

    def refused(self, obj: DataObject, reason: str, worker_id: str, now: float) -> None:
        """The store did not take an input that came with an assignment, and no task here will produce it: to send it
        again would be in vain, so those who need it here fail, the ones that were sent when they find it missing."""
        obj.refusal = reason
        self._outbox.missing(obj.key, [worker_id], refused=True)
        tasks = list(self._objects.sessions[obj.key[0]].tasks.values()) if obj.users else []
        self._objects.to_gone(obj)
        self._fail_unsent([task for task in tasks if task.state in UNSENT and obj in task.inputs], reason, now)

    def _fail_unsent(self, tasks: list[Task], reason: str, now: float) -> None:
        for task in tasks:
            if task.state != GONE:
                self._dispatcher.to_gone(task)
                session, number, _ = task.key
                self.fail(task, Failure("task", reason, session, number), 0.0, 0.0, now)

    def copy_lost(self, obj: DataObject, worker_id: str, now: float) -> None:
        """The store has lost the value."""
        self._outbox.missing(obj.key, [worker_id])
        if obj.producer is None:
            self.give_back(self._objects.to_gone(obj), now)
        else:
            self._objects.present_to_expected(obj)
        if obj.users:
            tasks = self._objects.sessions[obj.key[0]].tasks.values()
            self.give_back([task for task in tasks if task.state in UNSENT and obj in task.inputs], now)

    # --- sessions ---

    def end_session(self, session: Session) -> None:
        """Kill everything of the session and forget it."""
        for task in list(session.tasks.values()):
            self._dispatcher.to_gone(task)
            if task.template.cached:
                self._outbox.act(StopLookUp(task.key))
            self._dispatcher.deadlines.ended(task)
            self._silent_losses.pop(task.key, None)
        self._dispatcher.end_stopping(session.id)
        for obj in list(session.objects.values()):
            self._objects.to_gone(obj)
        del self._objects.sessions[session.id]
        for template in session.templates.values():
            self._dispatcher.queues.released(template.queue)
        session.templates.clear()  # they know the session: such a cycle would stay until garbage is collected
        self._outbox.forget_session(session.id)


def _order(task: Task) -> int:
    return task.order


def _charge_start(executor: Executor, result: RunResult) -> None:
    """The first run of an executor started for it has waited for that; its duration says so, averages do not."""
    since, executor.started_for = executor.started_for, 0.0
    if since < result.start:
        result.duration += result.start - since
        result.start = since
