"""What was made one after the other, as the registry keeps it: lists whose places tell the numbers."""

from __future__ import annotations

import weakref
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from rain.client.data import DECLARED, DataObject
from rain.client.handles import loosen_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rain.client.handles import CallTask
    from rain.client.task import Task

_inputs = attrgetter("_inputs")
_made = attrgetter("_made")


class ThingBlock:
    """Things with consecutive numbers. first: the first one."""

    __slots__ = ("first", "things")

    def __init__(self, first: int) -> None:
        self.first = first
        self.things: list[Task | DataObject] = []

    def __len__(self) -> int:
        return len(self.things)

    @property
    def end(self) -> int:
        """The number that follows."""
        return self.first + len(self.things)

    def find(self, number: int) -> Task | DataObject | None:
        """The thing with a number; None if that lies behind."""
        offset = number - self.first
        return self.things[offset] if offset < len(self.things) else None

    def divided(self, fixed: int) -> tuple[ThingBlock, ThingBlock]:
        """What has numbers below `fixed`, and the rest."""
        ready = max(0, fixed - self.first)
        before, behind = ThingBlock(self.first), ThingBlock(self.first + ready)
        before.things, behind.things = self.things[:ready], self.things[ready:]
        return before, behind

    def objects(self) -> list[DataObject]:
        """The data objects among the things."""
        return [thing for thing in self.things if isinstance(thing, DataObject)]

    def has_declared(self) -> bool:
        """Whether data objects without a producer, when they were made, are among the things."""
        return any(dataobj._role == DECLARED for dataobj in self.objects())

    def write_numbers(self) -> None:
        """Tell the things their numbers."""
        for number, thing in enumerate(self.things, self.first):
            thing._number = number


class CallBlock:
    """Calls of one kind with consecutive numbers and equally many outputs.

    Attributes:
        kind: their class.
        first: the first number.
        width: numbers of one call.
        is_array: the numbers are those of a task array, all outputs, then all tasks; otherwise those of a call, its
            outputs first, are followed by those of the next.
        calls: the calls; of submitted delayed tasks empty.
        handles: those, weakly.
        linked: of an array of linked calls (see `linking`) the number of calls of each linked block.
    """

    __slots__ = ("calls", "first", "handles", "is_array", "kind", "linked", "width")

    def __init__(
        self,
        kind: type[CallTask],
        first: int,
        width: int,
        calls: list[CallTask],
        *,
        is_array: bool = False,
        linked: Sequence[int] = (),
    ) -> None:
        self.kind = kind
        self.first = first
        self.width = width
        self.is_array = is_array
        self.calls = calls
        self.linked = linked
        self.handles: list[weakref.ref[CallTask]] = []

    def __len__(self) -> int:
        return len(self.calls) or len(self.handles)

    @property
    def end(self) -> int:
        """The number that follows."""
        return self.first + len(self) * self.width

    def divided(self, fixed: int) -> tuple[CallBlock, CallBlock]:
        """Of calls that are no array those with a number below `fixed`, and the rest."""
        ready = -(-max(0, fixed - self.first) // self.width)
        before = CallBlock(self.kind, self.first, self.width, self.calls[:ready])
        return before, CallBlock(self.kind, self.first + ready * self.width, self.width, self.calls[ready:])

    def write_numbers(self) -> None:
        """Tell calls that are not submitted, and the handles of their outputs, their numbers."""
        if self.is_array:
            self._write_array()
            return
        first, gap = self.first, self.width - 1
        for call in self.calls:
            call._number = first + gap
            call._value_number = first
            for number, output in enumerate(call._made or (), first):
                output._number = number
            first += self.width

    def _write_array(self) -> None:
        for number, call in enumerate(self.calls, self.first):
            call._value_number = number
            if call._made is not None:
                call._made[0]._number = number
        for number, call in enumerate(self.calls, self.first + len(self.calls)):
            call._number = number

    def live(self) -> list[CallTask]:
        """The calls that somebody refers to."""
        found = (handle() for handle in self.handles)
        return self.calls or [call for call in found if call is not None]

    def things(self) -> list[Task | DataObject]:
        """All tasks and outputs by their numbers, of calls that are not submitted."""
        if self.is_array:
            outputs: list[Task | DataObject] = [call._outputs[0] for call in self.calls]
            return outputs + self.calls
        found: list[Task | DataObject] = []
        for call in self.calls:
            found += call._outputs
            found.append(call)
        return found

    def find(self, number: int) -> Task | DataObject | None:
        """The handle of a task or of an output of it; None if the task is gone, or the number lies behind."""
        count, offset = len(self), number - self.first
        if offset >= count * self.width:
            return None
        if self.is_array:
            place, position = divmod(offset, count)
        else:
            position, place = divmod(offset, self.width)
        call = self.calls[position] if self.calls else self.handles[position]()
        if call is None:
            return None
        return call if place == self.width - 1 else call._outputs[place]

    def inputs(self) -> Iterable[DataObject | CallTask]:
        """Those of all calls."""
        return chain.from_iterable(map(_inputs, self.calls))

    def objects(self) -> list[DataObject]:
        """The outputs of which there are handles."""
        return list(chain.from_iterable(filter(None, map(_made, self.live()))))

    def loosen(self) -> None:
        """The calls are submitted: hold them weakly."""
        calls, self.calls = self.calls, []
        self.handles = list(map(weakref.ref, calls))
        calls.reverse()  # lists are emptied from the end: the first calls go first

    def loosen_users(self) -> list[CallTask]:
        """The same for calls that may hold each other, or other handles that own results: those that somebody refers to
        hold none of these any more. Returns them."""
        calls, self.calls = self.calls, []
        self.handles = list(map(weakref.ref, calls))
        live: list[CallTask] = []
        for handle in reversed(self.handles):  # what uses others comes after them
            calls.pop()
            call = handle()
            if call is not None:
                loosen_inputs((call,))
                live.append(call)
        return live
