"""Delayed calls made one after the other, as the registry keeps them: a list whose places tell their numbers."""

from __future__ import annotations

import weakref
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.client.data import DataObject
    from rain.client.handles import CallTask
    from rain.client.task import Task

_inputs = attrgetter("_inputs")
_made = attrgetter("_made")


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
    """

    __slots__ = ("calls", "first", "handles", "is_array", "kind", "width")

    def __init__(
        self, kind: type[CallTask], first: int, width: int, calls: list[CallTask], *, is_array: bool = False
    ) -> None:
        self.kind = kind
        self.first = first
        self.width = width
        self.is_array = is_array
        self.calls = calls
        self.handles: list[weakref.ref[CallTask]] = []

    def __len__(self) -> int:
        return len(self.calls) or len(self.handles)

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

    def inputs(self) -> Iterable[DataObject]:
        """Those of all calls."""
        return chain.from_iterable(map(_inputs, self.calls))

    def made(self) -> list[DataObject]:
        """The outputs of which there are handles."""
        return list(chain.from_iterable(filter(None, map(_made, self.live()))))

    def loosen(self) -> None:
        """The calls are submitted: hold them weakly."""
        self.handles = list(map(weakref.ref, self.calls))
        self.calls = []
