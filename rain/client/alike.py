"""Delayed calls that differ in nothing but their arguments, submitted like a task array.

Calls made one after the other in a loop are numbered output, task, output, task. If nobody has looked at their ids
before the submit, they get those of a task array instead, outputs first, and the server tracks them as one.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.client.array import TaskArray
from rain.client.handles import DelayedTask
from rain.client.task import Task
from rain.protocol.messages import SubmitBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rain.client.data import DataObject

FEWEST = 32
"""Calls that are worth it."""
MEMBERS_PER_BLOCK = 20_000


class AlikeTasks:
    """Consecutive calls, numbered like a task array. first: the id of the first output."""

    __slots__ = ("_tasks", "first")

    def __init__(self, first: int, tasks: list[DelayedTask]) -> None:
        self.first = first
        self._tasks = tasks

    @property
    def packed_template(self) -> bytes:
        """What they have in common, as sent."""
        return self._tasks[0]._shape.packed

    def messages(self, session: int, template: int, max_size: int) -> Iterator[SubmitBlock]:
        """All of them, in messages of at most about `max_size` bytes of arguments."""
        tasks, start, step = self._tasks, 0, MEMBERS_PER_BLOCK
        inputs = array("I", [dataobj._number for dataobj in tasks[0]._inputs])
        keep = tasks[0]._outputs[0]._keep
        while start < len(tasks):
            packed = [task._args or b"" for task in tasks[start : start + step]]
            sizes = array("I", map(len, packed))
            if len(packed) > 1 and sum(sizes) > max_size:
                step = len(packed) // 2
                continue
            args = b"".join(packed)
            yield SubmitBlock(session, [], template, self.first, len(tasks), start, inputs, keep, args, sizes)
            start += len(packed)
            step = MEMBERS_PER_BLOCK


def used_objects(things: Iterable[Task | DataObject | TaskArray | None]) -> set[int]:
    """Which outputs of delayed calls others of these things need: what they are is known by `id`."""
    used: set[int] = set()
    for thing in things:
        if isinstance(thing, Task):
            for dataobj in thing._inputs:
                used.add(id(dataobj))
        elif isinstance(thing, TaskArray):
            _add_held(used, thing)
    return used


def _add_held(used: set[int], members: TaskArray) -> None:
    """A task array knows the numbers of its inputs already."""
    for held in members._held:
        for thing in held if isinstance(held, list) else [held]:
            used.add(id(thing))
            if isinstance(thing, Task):
                used.update(map(id, thing._outputs))


def grouped(
    first: int, things: list[Task | DataObject | None], used: set[int], fixed: int
) -> Iterator[Task | DataObject | AlikeTasks]:
    """The things in an order in which they can be submitted.

    Calls that are alike change their places in `things`, and their numbers.

    Args:
        first: number of the first thing.
        things: with consecutive numbers.
        used: as `used_objects` gives it.
        fixed: things below this number keep theirs.
    """
    position = 0
    while position < len(things):
        stop = _end_of_run(things, position, used) if first + position >= fixed else position
        if stop - position < 2 * FEWEST:
            stop = max(stop, position + 1)
            yield from things[position:stop]  # type: ignore[misc]
        else:
            yield _renumbered(first + position, things, position, stop)
        position = stop


def _end_of_run(things: list[Task | DataObject | None], start: int, used: set[int]) -> int:
    """Behind the last of the calls from `start` on that are alike."""
    first = things[start + 1] if start + 1 < len(things) else None
    if type(first) is not DelayedTask or not first._shape.in_blocks or not first._outputs:
        return start
    shape, inputs, keep = first._shape, first._inputs, first._outputs[0]._keep
    position = start
    while position + 1 < len(things):
        output, task = things[position], things[position + 1]
        if (
            type(task) is not DelayedTask
            or task._shape is not shape
            or task._outputs[0] is not output
            or task._own_spec is not None
            or output._own_spec is not None
            or output._keep is not keep
            or task._inputs != inputs
            or id(output) in used
        ):
            break
        position += 2
    return position


def _renumbered(number: int, things: list[Task | DataObject | None], start: int, stop: int) -> AlikeTasks:
    outputs, tasks = things[start:stop:2], things[start + 1 : stop : 2]
    things[start:stop] = [*outputs, *tasks]
    for position, thing in enumerate(things[start:stop], number):
        assert thing is not None
        thing._number = position
    return AlikeTasks(number, tasks)  # type: ignore[arg-type]
