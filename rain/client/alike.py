"""Calls of Python functions that differ in nothing but their arguments, submitted like a task array.

Calls made one after the other in a loop are numbered output, task, output, task. If nobody has looked at their ids
before the submit, they get those of a task array instead, outputs first, and the server tracks them as one.
"""

from __future__ import annotations

from array import array
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from rain.client.array import TaskArray
from rain.client.blocks import block_messages
from rain.client.call_block import CallBlock
from rain.client.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rain.client.data import DataObject
    from rain.client.handles import CallTask
    from rain.protocol.messages import SubmitBlock

FEWEST = 32
"""Calls that are worth it."""

_args = attrgetter("_args")
_keeps, _made = attrgetter("_keeps"), attrgetter("_made")
_shape, _inputs = attrgetter("_shape"), attrgetter("_inputs")
_common = attrgetter("_shape", "_inputs")


class AlikeTasks:
    """Consecutive calls, numbered like a task array. first: the id of the first output."""

    __slots__ = ("_tasks", "first")

    def __init__(self, first: int, tasks: list[CallTask]) -> None:
        self.first = first
        self._tasks = tasks

    @property
    def sample(self) -> CallTask:
        """One of them."""
        return self._tasks[0]

    def messages(self, session: int, template: int, max_size: int) -> Iterator[SubmitBlock]:
        """All of them, in messages of at most about `max_size` bytes of arguments."""
        packed, first = list(map(_args, self._tasks)), self._tasks[0]
        inputs = array("I", [used._value_number for used in first._inputs])
        keep = first._keeps if first._made is None else first._made[0]._keep
        return block_messages(session, template, self.first, packed, inputs, keep=keep, max_size=max_size)


def used_objects(items: Iterable[Task | DataObject | TaskArray | CallBlock]) -> set[DataObject | CallTask]:
    """Which data objects these need; a call stands for its output."""
    used: set[DataObject | CallTask] = set()
    for item in items:
        if isinstance(item, CallBlock):
            used.update(item.inputs())
        elif isinstance(item, Task):
            used.update(item._inputs)
        elif isinstance(item, TaskArray):
            _add_held(used, item)
    return used


def _add_held(used: set[DataObject | CallTask], members: TaskArray) -> None:
    """A task array knows the numbers of its inputs already."""
    for held in members._held:
        for thing in held if isinstance(held, list) else ():
            used.update(thing._outputs if isinstance(thing, Task) else (thing,))


def divided(block: CallBlock, used: set[DataObject | CallTask], fixed: int) -> list[CallBlock]:
    """The same calls in the same order, those that are alike as blocks of their own, with numbers of task arrays.

    Args:
        block: not submitted yet.
        used: what is needed by others.
        fixed: what has a number below this keeps it.
    """
    if block.width != 2 or block.is_array:
        return [block]
    calls = block.calls
    ready = min(max(0, fixed - block.first + 1) // 2, len(calls))
    blocks = [CallBlock(block.kind, block.first, 2, calls[:ready])]
    for is_alike, run in _runs(calls[ready:], used):
        first = block.first + 2 * ready
        if is_alike:
            blocks.append(_as_array(block.kind, first, run))
        elif blocks[-1].is_array:
            blocks.append(CallBlock(block.kind, first, 2, run))
        else:
            blocks[-1].calls += run
        ready += len(run)
    return [part for part in blocks if part.calls]


def _runs(calls: list[CallTask], used: set[DataObject | CallTask]) -> Iterator[tuple[bool, list[CallTask]]]:
    """The calls in pieces, and whether those of a piece are alike."""
    is_one = len(set(map(_shape, calls))) == 1 and len(set(map(_inputs, calls))) == 1
    for run in [calls] if is_one else [list(some) for _, some in groupby(calls, _common)]:
        shape = run[0]._shape
        if len(run) < FEWEST or not shape.in_blocks:
            yield False, run
        elif set(map(_made, run)) == {None} and len(set(map(_keeps, run))) == 1 and used.isdisjoint(run):
            yield True, run
        else:
            for keep, part in groupby(run, lambda call: _keep_flag(call, used)):
                alike = list(part)
                yield keep is not None and len(alike) >= FEWEST, alike


def _keep_flag(call: CallTask, used: set[DataObject | CallTask]) -> bool | None:
    """That of its output; None if something is special about the call."""
    if call in used:
        return None
    if call._made is None:
        return call._keeps
    (output,) = call._made
    if call._own_spec is not None or output._own_spec is not None or output in used:
        return None
    return output._keep


def _as_array(kind: type[CallTask], first: int, calls: list[CallTask]) -> CallBlock:
    block = CallBlock(kind, first, 2, calls, is_array=True)
    block.write_numbers()
    return block


def submittable(block: CallBlock, used: set[DataObject | CallTask]) -> list[CallTask] | list[AlikeTasks]:
    """The calls of a block as they are submitted. After a submit that was refused they may be alike no more."""
    if block.is_array and not block.linked and [is_alike for is_alike, _ in _runs(block.calls, used)] == [True]:
        return [AlikeTasks(block.first, block.calls)]
    return block.calls
