"""Linked blocks: members that use each other's outputs, run as one as long as they are tiny (see `rain.common.links`).

A linked block is never cut for an assignment: it runs as a whole, or is dissolved (`dissolving`). What a run left
undone is dissolved, too.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from rain.common.links import pack_assigned
from rain.server.core.graph import FINISHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.server.core.blocks import Block
    from rain.server.core.session import Session

TINY = 50e-6
"""Mean seconds of members up to which they run as one."""
MANY = 8
"""Durations of which the longest does not count."""
SHORTEST_MEMBER = 0.2e-6
"""Seconds to reckon with at least; bounds the number of members that are assigned together."""


def template_of(session: Session, block: Block, index: int) -> int:
    """Number of the template of a member of any block."""
    if block.link is None:
        return session.graph.template[block.row]
    return block.link.template(index - block.origin)


def inputs_of(session: Session, block: Block, index: int) -> list[int]:
    """Ids of the inputs of a member of any block; empty once they are dropped."""
    graph, link = session.graph, block.link
    own = graph.inputs[block.row]
    if link is None or not own:
        return list(graph.numbering.ids(own))
    return [
        graph.numbering.id(own[reference])
        if reference < link.inputs
        else block.array.output(block.origin + reference - link.inputs)
        for reference in link.references_of(index - block.origin)
    ]


def groups_of_functions(block: Block) -> dict[int, int]:
    """Duration group of each function, which is an input of the block at a position."""
    assert block.link is not None
    return dict(zip(dict.fromkeys(block.link.functions()), [group for group, _ in block.groups], strict=True))


def runs_whole(session: Session, block: Block) -> bool:
    """Whether the block may run as one: its members are tiny, as far as is known."""
    assert block.link is not None
    templates = session.templates
    if not all(templates[number].in_blocks for number in block.link.templates):
        return False
    groups = [(session.groups[group], count) for group, count in block.groups]
    if any(group.one_by_one for group, _ in groups):
        return False
    return sum((group.seconds or 0.0) * count for group, count in groups) <= TINY * block.count


def expected_seconds(session: Session, block: Block) -> float:
    """Seconds to reckon with for the whole block."""
    first = session.groups[session.graph.group[block.row]]
    if first.seconds is None:
        return first.expected
    groups = session.groups
    return sum(max(groups[group].seconds or 0.0, SHORTEST_MEMBER) * count for group, count in block.groups)


def learn(session: Session, block: Block, durations: Sequence[float]) -> None:
    """Take the durations of the members, in order, as measurements of their functions."""
    assert block.link is not None
    if len(block.groups) == 1:
        session.groups[block.groups[0][0]].add(_usual(durations))
        return
    by_function: dict[int, list[float]] = {}
    for function, duration in zip(block.link.functions()[block.start - block.origin :], durations, strict=False):
        by_function.setdefault(function, []).append(duration)
    group_of = groups_of_functions(block)
    for function, found in by_function.items():
        session.groups[group_of[function]].add(_usual(found))


def _usual(durations: Sequence[float]) -> float:
    """The mean, without the longest of many: a first call that imports modules, or a cpu that was away."""
    count = len(durations)
    if count < MANY:
        return sum(durations) / count
    return (sum(durations) - max(durations)) / (count - 1)


def assigned_link(block: Block) -> bytes:
    """What the worker gets: the link, and which outputs are wanted outside of the block."""
    assert block.link is not None
    if not block.keep:
        wanted = bytearray(block.count)
    else:
        wanted = bytearray(repeat(1, block.count))
        for index in block.unkept:
            wanted[index - block.start] = 0
    for index in block.claimed:
        wanted[index - block.start] = 1
    return pack_assigned(block.link.pack(), bytes(wanted))


def missing_inputs(session: Session, inputs: tuple[int, ...]) -> int:
    """How many of these are not finished."""
    state = session.graph.state
    return sum(state[obj] != FINISHED for obj in inputs)
