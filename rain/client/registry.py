"""The tasks and objects of a session, found by their numbers."""

from __future__ import annotations

import weakref
from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from rain.client.alike import FEWEST, AlikeTasks, divided, submittable, used_objects
from rain.client.call_block import CallBlock, ThingBlock
from rain.client.handles import OWNED, CallTask, DelayedTask, loosen_inputs
from rain.client.interrupts import InterruptGuard
from rain.client.linking import LinkedTasks, is_linkable, may_link, relinked
from rain.client.task import Task
from rain.common.collecting import collections_paused
from rain.common.ids import FIRST_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rain.client.array import TaskArray
    from rain.client.base import BaseSession
    from rain.client.data import DataObject

Thing: TypeAlias = "Task | DataObject"
Item: TypeAlias = "Task | DataObject | TaskArray"
Submitted: TypeAlias = "Item | AlikeTasks | LinkedTasks"

_number = attrgetter("_number")
_FIRST_SWEEP = 10_000
_SHORT = 32
"""Submitted calls of shorter blocks are known one by one."""


class _ArrayBlock:
    """A task array."""

    __slots__ = ("array", "first")

    def __init__(self, first: int, array: TaskArray) -> None:
        self.first = first
        self.array = weakref.ref(array)

    def find(self, number: int, *, make: bool) -> Thing | None:
        array = self.array()
        if array is None or number >= self.first + 2 * len(array):
            return None
        return array._find(number, make=make)


class Registry:
    """Numbers everything in the order of registration; callers hold the lock of the session. Delayed calls may get
    other numbers when they are submitted (`alike`).

    What is not submitted is held strongly; of what is, delayed tasks and task arrays are held weakly.

    Attributes:
        next: the number of what is registered next.
        fixed: what has a number below this keeps it.
    """

    def __init__(self) -> None:
        self.next = FIRST_ID
        self.fixed = FIRST_ID
        self._blocks: list[ThingBlock | _ArrayBlock | CallBlock] = []
        self._submitted_blocks = 0
        self._open: list[Thing] | None = None
        self._open_calls: CallBlock | None = None
        self._unsubmitted_arrays: dict[int, TaskArray] = {}
        self._weak: dict[int, weakref.ref[Thing]] = {}
        """By number; that of an output of which there is no handle has its task."""
        self._in_blocks = 0
        self._sweep_at = _FIRST_SWEEP
        self._has_weak = False

    def add(self, session: BaseSession, things: Iterable[Thing]) -> None:
        """Give things their numbers."""
        block = self._open
        if block is None:
            self._close()
            made = ThingBlock(self.next)
            self._blocks.append(made)
            block = self._open = made.things
        number = self.next
        for thing in things:
            thing._session = session
            thing._number = number
            block.append(thing)
            number += 1
        self.next = number

    def add_call(self, call: CallTask) -> None:
        """Give a call, and its outputs, their numbers."""
        width = len(call._shape.outputs) + 1
        block = self._open_calls
        if block is None or block.width != width or block.kind is not type(call):
            self._close()
            block = self._open_calls = CallBlock(type(call), self.next, width, [])
            self._blocks.append(block)
        calls = block.calls
        call._value_number = first = block.first + len(calls) * width
        call._number = first + width - 1
        call._made = None if width > 1 else ()
        calls.append(call)
        self.next = first + width

    def _close(self) -> None:
        """What is registered next begins a new block. Ctrl-C may have come before `next` followed the last call."""
        block = self._open_calls
        if block is not None:
            self.next = block.first + len(block) * block.width
        self._open = self._open_calls = None

    def add_array(self, array: TaskArray, count: int) -> int:
        """Reserve `count` numbers for a task array; returns the first."""
        self._close()
        first = self.next
        if not count:
            return first
        self._blocks.append(_ArrayBlock(first, array))
        self._unsubmitted_arrays[first] = array
        self.next = first + count
        return first

    # --- submitting -------------------------------------------------------------------------------

    def unsubmitted(self) -> list[Item]:
        """What is not submitted, in order."""
        items: list[Item] = []
        for item in self._waiting():
            items += item.things() if isinstance(item, CallBlock) else (item,)
        return items

    def _waiting(self) -> Iterator[Item | CallBlock]:
        for block in self._blocks[self._submitted_blocks :]:
            if isinstance(block, _ArrayBlock):
                yield self._unsubmitted_arrays[block.first]
            elif isinstance(block, CallBlock):
                yield block
            else:
                yield from block.things

    def fix(self, number: int) -> None:
        """Somebody knows the number of what is not submitted."""
        self.fixed = max(self.fixed, number + 1)

    def take(self) -> tuple[list[Submitted], int]:
        """What is to be submitted, and the number that follows; later things are not among them. Outputs of calls of
        which there is no handle are not named."""
        self._close()
        used = used_objects(self._waiting())
        if self._has_many_calls():
            with InterruptGuard():
                self._arrange(used)
        items: list[Submitted] = []
        for item in self._waiting():
            items += self._submittable(item, used) if isinstance(item, CallBlock) else (item,)
        return items, self.next

    def _has_many_calls(self) -> bool:
        waiting = self._blocks[self._submitted_blocks :]
        return sum([len(block) for block in waiting if isinstance(block, CallBlock)]) >= FEWEST

    def _arrange(self, used: set[DataObject | CallTask]) -> None:
        """Give calls that are alike, or use each other's outputs, the numbers of task arrays."""
        if may_link(self._blocks[self._submitted_blocks :], used):
            self._link()
        waiting: list[ThingBlock | _ArrayBlock | CallBlock] = []
        for block in self._blocks[self._submitted_blocks :]:
            waiting += divided(block, used, self.fixed) if isinstance(block, CallBlock) else (block,)
        self._blocks[self._submitted_blocks :] = waiting

    def _submittable(self, block: CallBlock, used: set[DataObject | CallTask]) -> Sequence[Submitted]:
        if block.linked and is_linkable(block, self.fixed):
            return [LinkedTasks(block)]
        return submittable(block, used)

    def _link(self) -> None:
        """Number anew what lies between two task arrays, if calls of it use each other's outputs."""
        waiting: list[ThingBlock | _ArrayBlock | CallBlock] = []
        made: list[ThingBlock | CallBlock] = []
        stretch: list[ThingBlock | CallBlock] = []
        for block in [*self._blocks[self._submitted_blocks :], None]:
            if isinstance(block, ThingBlock) or (isinstance(block, CallBlock) and not block.is_array):
                stretch.append(block)
                continue
            staying, moving = relinked(stretch, self.fixed)
            waiting += [*staying, *moving, *([] if block is None else [block])]
            made += moving
            stretch = []
        if made:
            self._write_numbers(waiting, made)

    def _write_numbers(
        self, waiting: list[ThingBlock | _ArrayBlock | CallBlock], made: list[ThingBlock | CallBlock]
    ) -> None:
        """What is not submitted is in these blocks now. made: those in which numbers are others than before."""
        following = [array for array in self._unsubmitted_arrays.values() if array._inputs]
        moving = [output for block in made for output in block.objects()] if following else []
        before = list(map(_number, moving))
        self._blocks[self._submitted_blocks :] = waiting
        for block in made:
            block.write_numbers()
        if moving:
            changed = dict(zip(before, map(_number, moving), strict=True))
            for array in following:
                array._renumber(changed)

    def submitted(self, end: int) -> None:
        """Everything below the number `end` is submitted."""
        with collections_paused():  # many small objects are made that are no garbage
            self._loosen_all(end)
        if len(self._weak) + self._in_blocks >= self._sweep_at:
            self._sweep()

    def _loosen_all(self, end: int) -> None:
        """Hold weakly what needs no other hold; forget blocks that are not needed any more."""
        begin = self._submitted_blocks
        stop = bisect_left(self._blocks, end, begin, key=lambda block: block.first)
        waiting = self._blocks[begin:stop]
        self._has_weak = self._has_weak or any(
            isinstance(block, _ArrayBlock) or (isinstance(block, CallBlock) and block.kind is DelayedTask)
            for block in waiting
        )
        # What uses others comes after them, and has to let go of them first.
        needed = [block for block in reversed(waiting) if self._loosen(block)]
        needed.reverse()
        self._blocks[begin:stop] = needed
        self._submitted_blocks += len(needed)

    def _loosen(self, block: ThingBlock | _ArrayBlock | CallBlock) -> bool:
        """Hold weakly what needs no other hold; tells whether the block is still needed."""
        if isinstance(block, _ArrayBlock):
            self._unsubmitted_arrays.pop(block.first)._held = []
        elif isinstance(block, ThingBlock):
            if self._has_weak:
                loosen_inputs(thing for thing in block.things if isinstance(thing, Task))
        elif block.kind is not DelayedTask:
            if not OWNED.isdisjoint(map(type, block.inputs())):
                loosen_inputs(block.calls)
        elif len(block) >= _SHORT:
            return self._loosen_delayed(block)
        else:
            loosen_inputs(block.calls)
            self._know_outputs(block.objects())
            self._know_calls(block.calls)
            return False
        return True

    def _loosen_delayed(self, block: CallBlock) -> bool:
        outputs: dict[int, weakref.ref[Thing]] = {one._number: weakref.ref(one) for one in block.objects()}
        if OWNED.isdisjoint(map(type, block.inputs())):
            block.loosen()
            live = None
        else:
            live = block.loosen_users()
        self._weak |= {number: output for number, output in outputs.items() if output() is not None}
        if live is not None and 2 * len(live) < len(block):
            self._know_calls(live)
            return False
        self._in_blocks += len(block)
        return True

    def know(self, call: CallTask, made: Iterable[DataObject]) -> None:
        """There are handles now of the outputs of a submitted call."""
        if type(call) is DelayedTask:
            self._know_outputs(made)

    def _know_outputs(self, made: Iterable[DataObject]) -> None:
        for output in made:
            self._weak[output._number] = weakref.ref(output)

    def _know_calls(self, calls: Iterable[CallTask]) -> None:
        for call in calls:
            handle = self._weak[call._number] = weakref.ref(call)
            if call._made is None:
                self._weak |= dict.fromkeys(call._output_numbers(), handle)

    def _sweep(self) -> None:
        """Forget what nobody refers to."""
        self._weak = {number: handle for number, handle in self._weak.items() if handle() is not None}
        kept: list[ThingBlock | _ArrayBlock | CallBlock] = []
        for block in self._blocks[: self._submitted_blocks]:
            if isinstance(block, _ArrayBlock) and block.array() is None:
                continue
            if isinstance(block, CallBlock) and block.handles:
                live = block.live()
                if 2 * len(live) < len(block):
                    self._know_calls(live)
                    self._in_blocks -= len(block)
                    continue
            kept.append(block)
        self._blocks[: self._submitted_blocks] = kept
        self._submitted_blocks = len(kept)
        self._sweep_at = max(_FIRST_SWEEP, 2 * (len(self._weak) + self._in_blocks))

    # --- finding ----------------------------------------------------------------------------------

    def find(self, number: int, *, make: bool = True) -> Thing | None:
        """The handle of a number, None if there is none any more. make: members of arrays are made if needed."""
        weak = self._weak.get(number)
        if weak is not None:
            thing = weak()
            if isinstance(thing, CallTask) and thing._number != number:
                return thing._outputs[number - thing._output_numbers().start]
            return thing
        position = bisect_right(self._blocks, number, key=lambda block: block.first) - 1
        if position < 0:
            return None
        block = self._blocks[position]
        return block.find(number, make=make) if isinstance(block, _ArrayBlock) else block.find(number)

    def adopt(self, session: BaseSession, number: int, made: Thing) -> Thing:
        """Know a handle of something that is submitted, weakly; returns the handle there is meanwhile, or this one."""
        known = self.find(number)
        if known is not None:
            return known
        made._session = session
        made._number = number
        self._weak[number] = weakref.ref(made)
        if len(self._weak) + self._in_blocks >= self._sweep_at:
            self._sweep()
        return made

    def live(self, *, make: bool = True) -> list[Thing]:
        """Everything there is a handle of, in order, with the outputs of delayed tasks; make: also handles of all
        members of task arrays."""
        live: list[Thing] = []
        for block in self._blocks:
            if isinstance(block, CallBlock):
                live += block.live()
            elif isinstance(block, ThingBlock):
                live += block.things
        for array in self.arrays():
            live += list(array) if make else list(array._members.values())
            live += list(array._outputs.values())
        live += [thing for thing in [handle() for handle in self._weak.values()] if thing is not None]
        live += [output for thing in live if isinstance(thing, CallTask) for output in thing._outputs]
        found = {thing._number: thing for thing in live}
        return [found[number] for number in sorted(found)]

    def arrays(self) -> list[TaskArray]:
        """The task arrays somebody refers to."""
        found = (block.array() for block in self._blocks if isinstance(block, _ArrayBlock))
        return [array for array in found if array is not None]
