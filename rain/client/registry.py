"""The tasks and objects of a session, found by their numbers."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from typing import TYPE_CHECKING, TypeAlias

from rain.client.alike import AlikeTasks, grouped, used_objects
from rain.client.handles import WEAK_TYPES, loosen_inputs
from rain.client.task import Task
from rain.common.ids import FIRST_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.array import TaskArray
    from rain.client.base import BaseSession
    from rain.client.data import DataObject

Thing: TypeAlias = "Task | DataObject"
Item: TypeAlias = "Task | DataObject | TaskArray"

_FIRST_SWEEP = 10_000


class _Block:
    """Things with consecutive numbers, or one task array. A thing that is held weakly is None here."""

    __slots__ = ("array", "first", "things")

    def __init__(self, first: int, array: weakref.ref[TaskArray] | None = None) -> None:
        self.first = first
        self.things: list[Thing | None] = []
        self.array = array


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
        self._blocks: list[_Block] = []
        self._submitted_blocks = 0
        self._open: list[Thing | None] | None = None
        self._unsubmitted_arrays: dict[int, TaskArray] = {}
        self._weak: dict[int, weakref.ref[Thing]] = {}
        self._sweep_at = _FIRST_SWEEP
        self._has_weak = False

    def add(self, session: BaseSession, things: Iterable[Thing]) -> None:
        """Give things their numbers."""
        block = self._open
        if block is None:
            block = self._open = self._begin(_Block(self.next)).things
        number = self.next
        for thing in things:
            thing._session = session
            thing._number = number
            block.append(thing)
            number += 1
        self.next = number

    def add_array(self, array: TaskArray, count: int) -> int:
        """Reserve `count` numbers for a task array; returns the first."""
        first = self.next
        if not count:
            return first
        self._begin(_Block(first, weakref.ref(array)))
        self._open = None
        self._unsubmitted_arrays[first] = array
        self.next = first + count
        return first

    def _begin(self, block: _Block) -> _Block:
        self._blocks.append(block)
        return block

    # --- submitting -------------------------------------------------------------------------------

    def unsubmitted(self) -> list[Item]:
        """What is not submitted, in order."""
        items: list[Item] = []
        for block in self._blocks[self._submitted_blocks :]:
            if block.array is not None:
                items.append(self._unsubmitted_arrays[block.first])
            else:
                items += block.things  # type: ignore[arg-type]
        return items

    def fix(self, number: int) -> None:
        """Somebody knows the number of what is not submitted."""
        self.fixed = max(self.fixed, number + 1)

    def take(self) -> tuple[list[Item | AlikeTasks], int]:
        """What is to be submitted, and the number that follows; later things are not among them."""
        self._open = None
        items: list[Item | AlikeTasks] = []
        used = used_objects(self.unsubmitted())
        for block in self._blocks[self._submitted_blocks :]:
            if block.array is not None:
                items.append(self._unsubmitted_arrays[block.first])
            else:
                items += grouped(block.first, block.things, used, self.fixed)
        return items, self.next

    def submitted(self, end: int) -> None:
        """Everything below the number `end` is submitted."""
        blocks = self._blocks
        stay = self._submitted_blocks
        position = stay
        while position < len(blocks) and blocks[position].first < end:
            block = blocks[position]
            if block.array is not None:
                self._has_weak = True
                self._unsubmitted_arrays.pop(block.first)._held = []
            elif not self._loosen(block):
                position += 1
                continue
            blocks[stay] = block
            stay += 1
            position += 1
        del blocks[stay:position]
        self._submitted_blocks = stay
        if len(self._weak) >= self._sweep_at:
            self._sweep()

    def _loosen(self, block: _Block) -> bool:
        """Hold delayed tasks weakly; tells whether something is left to hold strongly."""
        things, weak, first = block.things, self._weak, block.first
        held = len(things)
        if not WEAK_TYPES.isdisjoint(map(type, things)):
            self._has_weak = True
            for position, thing in enumerate(things):
                if thing is not None and type(thing) in WEAK_TYPES:
                    if isinstance(thing, Task):
                        loosen_inputs(thing)
                    weak[first + position] = weakref.ref(thing)
                    things[position] = None
                    held -= 1
        if held and self._has_weak:
            for thing in things:
                if isinstance(thing, Task):
                    loosen_inputs(thing)
        return bool(held)

    def _sweep(self) -> None:
        self._weak = {number: handle for number, handle in self._weak.items() if handle() is not None}
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._weak))
        gone = {id(block) for block in self._blocks if block.array is not None and block.array() is None}
        if gone:
            before = self._blocks[: self._submitted_blocks]
            self._blocks = [block for block in self._blocks if id(block) not in gone]
            self._submitted_blocks -= sum(id(block) in gone for block in before)

    # --- finding ----------------------------------------------------------------------------------

    def find(self, number: int, *, make: bool = True) -> Thing | None:
        """The handle of a number, None if there is none any more. make: members of arrays are made if needed."""
        weak = self._weak.get(number)
        if weak is not None:
            return weak()
        position = bisect_right(self._blocks, number, key=lambda block: block.first) - 1
        if position < 0:
            return None
        block = self._blocks[position]
        if block.array is not None:
            array = block.array()
            if array is None or number >= block.first + 2 * len(array):
                return None
            return array._find(number, make=make)
        offset = number - block.first
        return block.things[offset] if offset < len(block.things) else None

    def adopt(self, session: BaseSession, number: int, made: Thing) -> Thing:
        """Know a handle of something that is submitted, weakly; returns the handle there is meanwhile, or this one."""
        known = self.find(number)
        if known is not None:
            return known
        made._session = session
        made._number = number
        self._weak[number] = weakref.ref(made)
        if len(self._weak) >= self._sweep_at:
            self._sweep()
        return made

    def live(self, *, make: bool = True) -> list[Thing]:
        """Everything there is a handle of, in order; make: also handles of all members of task arrays."""
        found: dict[int, Thing] = {}
        for number, handle in self._weak.items():
            thing = handle()
            if thing is not None:
                found[number] = thing
        for block in self._blocks:
            found |= {block.first + k: thing for k, thing in enumerate(block.things) if thing is not None}
        for array in self.arrays():
            for member in list(array) if make else list(array._members.values()):
                found[member._number] = member
            for output in list(array._outputs.values()):
                found[output._number] = output
        return [found[number] for number in sorted(found)]

    def arrays(self) -> list[TaskArray]:
        """The task arrays somebody refers to."""
        found = (block.array() for block in self._blocks if block.array is not None)
        return [array for array in found if array is not None]
