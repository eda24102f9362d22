"""Results of many calls at once."""

from __future__ import annotations

from array import array
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeGuard

from rain.client.bulk import Wanted, fetch_all
from rain.client.handles import CallTask, DelayedTask

if TYPE_CHECKING:
    from rain.client.front import Front

_KINDS = frozenset({CallTask, DelayedTask})
_number, _value_number = attrgetter("_number"), attrgetter("_value_number")
_made, _shape, _session = attrgetter("_made"), attrgetter("_shape"), attrgetter("_session")


def are_calls(things: list[Any]) -> TypeGuard[list[CallTask]]:
    """Whether all are calls of one session with one output each, of which there is no handle."""
    return (
        _KINDS.issuperset(map(type, things))
        and set(map(_made, things)) == {None}
        and len(set(map(_session, things))) == 1
        and all(len(shape.outputs) == 1 for shape in set(map(_shape, things)))
    )


def keep_calls(calls: list[CallTask]) -> bool:
    """Keep those that are not submitted; False if others are not kept."""
    submitted = calls[0]._session._submitted
    for call in calls:
        if not call._keeps:
            if call._number < submitted:
                return False
            call._keeps = True
    return True


def is_any_unsubmitted(calls: list[CallTask]) -> bool:
    """Whether their session must be submitted."""
    highest: int = max(map(_number, calls))
    return highest >= calls[0]._session._submitted


async def results_of_calls(front: Front, calls: list[CallTask], timeout: float | None) -> list[Any]:
    """The results of submitted calls, as `are_calls` knows them, in order."""
    numbers = array("I", map(_value_number, calls))
    name = repr(calls[0]) + (f" and {len(calls) - 1} more" if len(calls) > 1 else "")
    shape = lambda position: calls[position]._shape.outputs[0]  # noqa: E731
    wanted = Wanted(calls[0]._session, numbers, shape, lambda position: calls[position]._outputs[0], name)
    return await fetch_all(front, wanted, timeout)
