"""Planned graphs, built with the client's tasks, data objects and task arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.client.data import blob
from rain.client.delayed import delayed
from rain.client.task import Task

if TYPE_CHECKING:
    from rain.client.aio import AsyncSession
    from rain.client.array import TaskArray
    from rain.client.data import DataObject
    from rain.testing.graphs import PlannedArray, PlannedSubmit, PlannedTask


def simulated(number: int, size: int, duration: float, fails: int, crashes: int, *inputs: Any) -> bytes:
    """The function of arrays; simulated executors do what its arguments say instead of calling it."""
    raise NotImplementedError


class Handles:
    """The handles of one session, by planned id.

    Attributes:
        tasks, objects: see above.
        planned: the tasks as planned.
    """

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        self.objects: dict[int, DataObject] = {}
        self.planned: dict[int, PlannedTask] = {}
        self._arrays: list[TaskArray] = []

    def some(self, numbers: list[int]) -> list[Task | DataObject]:
        """Tasks and objects with these planned ids."""
        return [self.tasks.get(number) or self.objects[number] for number in numbers]

    def build(self, session: AsyncSession, submit: PlannedSubmit) -> None:
        """Make what is planned, not yet submitted."""
        for number, value in submit.constants.items():
            self.objects[number] = blob(value, session=session)
        left = sorted(submit.arrays, key=lambda one: one.first)
        for task in submit.tasks:
            while left and left[0].first < task.number:
                self._build_array(session, left.pop(0), submit.kept)
            self._build_task(session, task)
        for planned in left:
            self._build_array(session, planned, submit.kept)
        in_arrays = {task.outputs[0] for one in submit.arrays for task in one.members}
        for number in sorted(submit.kept - in_arrays):
            self.objects[number].keep()

    def note_failing(self, submit: PlannedSubmit, fails_for_good: dict[int, bool]) -> None:
        """Note which tasks can only fail, by their true ids."""
        for task in submit.all_tasks():
            fails_for_good[self.tasks[task.number].id.id] = task.fails_for_good

    def _build_task(self, session: AsyncSession, planned: PlannedTask) -> None:
        options: dict[str, Any] = {"retries": planned.retries, "priority": planned.priority}
        if planned.timeout:
            options["timeout"] = planned.timeout
        task = Task(
            planned.type,
            planned.config(),
            [self.objects[number] for number in planned.inputs],
            len(planned.outputs),
            session,
            planned.cpus,
            **options,
        )
        self._note(planned, task, list(task.outputs))

    def _build_linked(self, session: AsyncSession, planned: PlannedArray, kept: set[int]) -> None:
        """Calls that use each other's outputs; the client makes linked blocks of them if they are many."""
        retries = planned.members[0].retries
        names = {one.name for one in planned.members}
        call = {name: delayed(simulated, keep=False, name=name, retries=retries, session=session) for name in names}
        for one in planned.members:
            inputs = [self.objects[number] for number in one.inputs]
            made = call[one.name](one.number, one.sizes[0], one.duration, one.fails, one.crashes, *inputs)
            self._note(one, made, [made.output])
            if one.outputs[0] in kept:
                made.output.keep()

    def _build_array(self, session: AsyncSession, planned: PlannedArray, kept: set[int]) -> None:
        if planned.linked:
            self._build_linked(session, planned, kept)
            return
        first = planned.members[0]
        columns: list[list[Any]] = [
            [one.number for one in planned.members],
            [one.sizes[0] for one in planned.members],
            [one.duration for one in planned.members],
            [one.fails for one in planned.members],
            [one.crashes for one in planned.members],
            *([self.objects[number]] * len(planned.members) for number in first.inputs),
        ]
        function = delayed(
            simulated, keep=planned.first in kept, cpus=first.cpus, retries=first.retries, priority=first.priority
        )
        made = session.map(function, *columns)
        self._arrays.append(made)
        for one, task in zip(planned.members, made, strict=True):
            self._note(one, task, [task.output])

    def _note(self, planned: PlannedTask, task: Task, outputs: list[DataObject]) -> None:
        self.planned[planned.number] = planned
        self.tasks[planned.number] = task
        self.objects.update(zip(planned.outputs, outputs, strict=True))
