"""How many runs an executor gets at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.worker.core.actions import Run, RunInput
from rain.worker.core.model import UNKNOWN

if TYPE_CHECKING:
    from rain.worker.core.events import ObjectKey
    from rain.worker.core.executors import Executor
    from rain.worker.core.model import Task
    from rain.worker.core.queues import ReadyQueue

MAX_BATCH = 128
"""Most runs in one batch."""

MAX_BATCHES = 2
"""Most batches in flight per executor."""

BUDGET = 0.002
"""Seconds of expected work: longest batch, and longest rest of a batch behind which another is sent."""

BLOCK_BUDGET = 0.02
"""The same for blocks, which are batches of their own."""


def is_solo(task: Task) -> bool:
    """Whether the task must not share an executor batch."""
    template = task.template
    solo = template.session.solo
    return template.timeout is not None or (bool(solo) and task.key[1] in solo)


def is_brief(task: Task) -> bool:
    """Whether a run of it is expected to end at once."""
    return not task.members and 0.0 <= task.template.average <= BUDGET and not is_solo(task)


def fair_share(queue: ReadyQueue, slots: int, executor: Executor) -> int:
    """How many more tasks of a queue an executor may get, so that all that could run them get the same.

    Args:
        queue: what is ready, and in flight, of it is shared.
        slots: executors that run its tasks or could start now, at least 1.
        executor: the one to get some.
    """
    return -(-(queue.count + queue.in_flight) // slots) - len(executor.line)


def choose_batch(queue: ReadyQueue, share: int, *, bound: Task | None = None) -> tuple[list[Task], float]:
    """Take the next batch out of a queue.

    Args:
        queue: with ready tasks, or with none if a task is bound.
        share: most tasks to take, at least 1.
        bound: a task already taken out, which comes first.

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
    limit = min(MAX_BATCH, share)
    expected = average
    while len(batch) < limit:
        task = queue.first()
        if task is None:
            break
        template = task.template
        average = template.average
        if average < 0.0 or expected + average > BUDGET or task.members or is_solo(task):
            break
        most = min(limit - len(batch), int((BUDGET - expected) / average) if average else limit)
        alike = queue.pop_alike(template, most)
        batch += alike
        expected += average * len(alike)
    return batch, expected / len(batch)


def may_follow(executor: Executor, task: Task, now: float) -> bool:
    """Whether a batch that begins with `task` may be sent behind what the executor has in flight."""
    pace = executor.pace
    longest_rest = BLOCK_BUDGET if executor.line[0].members else BUDGET
    if pace < 0.0 or len(executor.batches) >= MAX_BATCHES or len(executor.line) * pace >= longest_rest:
        return False
    expected = task.template.average * (task.members or 1)
    if expected < 0.0 or expected > (BLOCK_BUDGET if task.members else BUDGET) or is_solo(task):
        return False
    return now - executor.head_since <= pace + BUDGET


def make_runs(batch: list[Task], cached: set[ObjectKey], gpus: tuple[int, ...]) -> list[Run]:
    """The runs of a batch as an executor, which holds `cached`, or a built-in needs them."""
    runs = []
    last = None
    inputs: tuple[RunInput, ...] = ()
    for task in batch:
        if task.inputs is not last:
            last = task.inputs
            inputs = tuple([RunInput(obj.key, obj.spec, obj.info, obj.key in cached) for obj in last])
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
            run.members = task.members
            run.outputs = (task.first_output,)
        runs.append(run)
    return runs
