"""How many runs an executor gets at once."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rain.worker.core.actions import Run, RunInput
from rain.worker.core.model import EXPECTED, PRESENT, UNKNOWN, WAITING

if TYPE_CHECKING:
    from rain.worker.core.events import ObjectKey
    from rain.worker.core.executors import Executor
    from rain.worker.core.model import DataObject, Task
    from rain.worker.core.queues import ReadyQueue

MAX_BATCH = 128
"""Most runs in one batch."""

MAX_BATCHES = 2
"""Most batches in flight per executor."""

BUDGET = 0.002
"""Seconds of expected work: longest batch, and longest rest of a batch behind which another is sent."""

BLOCK_BUDGET = 0.06
"""The same for blocks, which are batches of their own: those of the server are made for 50 ms."""

SHORT_BLOCK = 0.02
"""Nothing is sent behind a block expected to take longer, nor such a block behind others, unless enough is ready for
all executors that run the same: else one of them might have nothing to do while it waits here."""

SHORT_BUILTIN = 0.01
"""Seconds which a short built-in task takes at most. The server is not told of each of them by itself."""

MOST_MISSING = 16
"""A task that waits for more inputs does not follow those that make them; nor does one behind so many others that wait
for the same object."""


def is_solo(task: Task) -> bool:
    """Whether the task must not share an executor batch."""
    template = task.template
    solo = template.session.solo
    return template.timeout is not None or (bool(solo) and task.key[1] in solo)


def is_brief(task: Task) -> bool:
    """Whether a run of it is expected to end at once."""
    return not task.members and 0.0 <= task.template.average <= BUDGET and not is_solo(task)


def is_short_builtin(task: Task) -> bool:
    """Whether a run of a built-in task is expected to end soon."""
    return 0.0 <= task.template.average <= SHORT_BUILTIN and not is_solo(task)


def fair_share(queue: ReadyQueue, slots: int, executor: Executor) -> int:
    """How many more tasks of a queue an executor may get, so that all that could run them get the same.

    Args:
        queue: what is ready, and in flight, of it is shared.
        slots: executors that run its tasks or could start now, at least 1.
        executor: the one to get some.
    """
    return -(-(queue.count + queue.in_flight) // slots) - len(executor.line)


def choose_batch(
    queue: ReadyQueue, share: int, *, bound: Task | None = None, wide: bool = False
) -> tuple[list[Task], float]:
    """Take the next batch out of a queue, with tasks that wait only for others of the batch.

    Args:
        queue: with ready tasks, or with none if a task is bound.
        share: most ready tasks to take, at least 1.
        bound: a task already taken out, which comes first.
        wide: whether all tasks that wait for the same one may follow it; else only one of them.

    Returns:
        The tasks, at least one; and the seconds a run is expected to take, UNKNOWN if not known or not to be
        relied on, so that nothing is sent behind.
    """
    first = bound if bound is not None else queue.pop_first()
    batch = [first]
    average = first.template.average
    if first.members:
        expected = average * first.members
        return batch, expected if 0.0 <= expected <= BLOCK_BUDGET and not is_solo(first) else UNKNOWN
    if not queue.batched or average < 0.0 or average > BUDGET or is_solo(first):
        return batch, UNKNOWN
    followers = _Followers(queue, batch, average, wide=wide)
    if first.awaited:
        followers.follow(first)
    limit = min(MAX_BATCH, share)
    taken = 1
    while taken < limit and len(batch) < MAX_BATCH:
        task = queue.first()
        if task is None:
            break
        template = task.template
        average = template.average
        expected = followers.expected
        if average < 0.0 or expected + average > BUDGET or task.members or is_solo(task):
            break
        most = min(limit - taken, MAX_BATCH - len(batch), int((BUDGET - expected) / average) if average else limit)
        taken += followers.add(queue.pop_alike(template, most), average)
    return batch, followers.expected / len(batch)


class _Followers:
    """A batch in the making. expected: seconds of work in it."""

    __slots__ = ("_batch", "_inside", "_queue", "_wide", "expected")

    def __init__(self, queue: ReadyQueue, batch: list[Task], expected: float, *, wide: bool) -> None:
        self._queue = queue
        self._batch = batch
        self._wide = wide
        self._inside: set[Task] = set()
        self.expected = expected

    def add(self, tasks: list[Task], average: float) -> int:
        """Add ready tasks, each with what only waits for it; those for which there is no room then go back. Returns how
        many were added."""
        batch, has_grown = self._batch, False
        for position, task in enumerate(tasks, 1):
            batch.append(task)
            self.expected += average
            if task.awaited:
                self.follow(task)
                has_grown = True
            is_full = has_grown and (len(batch) >= MAX_BATCH or self.expected + average > BUDGET)
            if is_full and position < len(tasks):
                self._queue.put_back(tasks[position:])
                return position
        return len(tasks)

    def follow(self, task: Task) -> None:
        """Add what waits only for tasks of the batch, depth first."""
        batch, inside = self._batch, self._inside
        inside.add(task)
        stack = self._following(task)
        while stack and len(batch) < MAX_BATCH:
            task = stack.pop()
            average = task.template.average
            if task not in inside and self.expected + average <= BUDGET:
                batch.append(task)
                inside.add(task)
                self.expected += average
                if task.awaited:
                    stack += self._following(task)

    def _following(self, task: Task) -> list[Task]:
        """What may follow a task of the batch, the best last."""
        found: list[Task] = []
        inside = self._inside
        for obj in task.outputs:
            for consumer in islice(obj.consumers or (), MOST_MISSING):
                if consumer.state == WAITING and consumer not in inside and self._may_follow(consumer):
                    found.append(consumer)
                    if not self._wide:
                        return found
        found.reverse()
        return found

    def _may_follow(self, task: Task) -> bool:
        template = task.template
        if template.queue is not self._queue or template.average < 0.0 or task.members or is_solo(task):
            return False
        if template.cached:  # its inputs have to be known before
            return False
        if task.missing > MOST_MISSING:
            return False
        for obj in task.inputs:
            if obj.state != PRESENT and (obj.state != EXPECTED or obj.producer not in self._inside):
                return False
        return True


def may_follow(executor: Executor, task: Task, now: float) -> bool:
    """Whether a batch that begins with `task` may be sent behind what the executor has in flight."""
    pace = executor.pace
    longest_rest = BLOCK_BUDGET if executor.line[0].members else BUDGET
    if pace < 0.0 or len(executor.batches) >= MAX_BATCHES or len(executor.line) * pace >= longest_rest:
        return False
    expected = task.template.average * (task.members or 1)
    if expected < 0.0 or expected > (BLOCK_BUDGET if task.members else BUDGET) or is_solo(task):
        return False
    queue = executor.queue
    if max(pace, expected) > SHORT_BLOCK and (queue is None or queue.count < len(queue.busy)):
        return False
    return now - executor.head_since <= pace + BUDGET


def make_runs(batch: list[Task], cached: set[ObjectKey], gpus: tuple[int, ...]) -> list[Run]:
    """The runs of a batch as an executor, which holds `cached`, or a built-in needs them."""
    runs = []
    known: dict[DataObject, RunInput] = {}
    last = None
    inputs: tuple[RunInput, ...] = ()
    for task in batch:
        if task.inputs is not last:
            last = task.inputs
            for obj in last:
                if obj not in known:
                    known[obj] = RunInput(obj.key, obj.spec, obj.info, obj.key in cached, obj.state == EXPECTED)
            inputs = tuple([known[obj] for obj in last])
        outputs = task.outputs
        template = task.template
        run = Run(
            task.key,
            template.number,
            template.data,
            task.args,
            inputs,
            (outputs[0].key[1],) if len(outputs) == 1 else tuple([obj.key[1] for obj in outputs]),
            gpus,
            task.own_specs,
        )
        if task.members:
            run.members, run.link = task.members, task.link
            run.outputs = (task.first_output,)
        runs.append(run)
    return runs
