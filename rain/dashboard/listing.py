"""Pages of tasks."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from rain.dashboard.details import basic_answer
from rain.dashboard.session_view import SEVERAL
from rain.dashboard.states import NOTHING, OBJECT, UnknownError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rain.dashboard.names import Node
    from rain.dashboard.session_view import SessionView


def node_of(session: SessionView, path: str) -> Node:
    """The node of a name or of the first parts of one.

    Raises:
        UnknownError: no task has such a name.
    """
    node = session.names.find(path)
    if node is None:
        raise UnknownError(f"session {session.number} has no tasks named {path!r}")
    return node


def tasks(
    session: SessionView, group: str, state: int, after: int, limit: int, workers: Sequence[str]
) -> dict[str, Any]:
    """The answer. group: empty: all; state: NOTHING: all.

    Raises:
        UnknownError: no task has such a name.
    """
    wanted = None
    if group:
        node = node_of(session, group)
        wanted = {template for below in node.below() for template in below.templates}
    found = list(islice(_ids(session, wanted, state, after + 1), limit + 1))
    return {
        "tasks": [basic_answer(session, task, workers) for task in found[:limit]],
        "next": found[limit - 1] if len(found) > limit else 0,
    }


def _ids(session: SessionView, templates: set[int] | None, state: int, first: int) -> Iterator[int]:
    """Ids of tasks from `first` on."""
    end = len(session.kinds)
    for extent in session.arrays:
        if first < extent.first:
            yield from _between(session, templates, state, first, extent.first)
        in_array = max(first, extent.first + extent.members)
        if extent.template == SEVERAL:
            yield from _between(session, templates, state, in_array, extent.end)
        elif templates is None or extent.template in templates:
            yield from _between(session, None, state, in_array, extent.end)
        first = max(first, extent.end)
    yield from _between(session, templates, state, first, end)


def _between(session: SessionView, templates: set[int] | None, state: int, first: int, stop: int) -> Iterator[int]:
    kinds, links = session.kinds, session.links
    if state:
        task = kinds.find(state, first, stop)
        while task >= 0:
            if templates is None or links[task] in templates:
                yield task
            task = kinds.find(state, task + 1, stop)
        return
    for task in range(first, stop):
        if NOTHING < kinds[task] < OBJECT and (templates is None or links[task] in templates):
            yield task
