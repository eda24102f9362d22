"""Blocks whose members become tasks of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.server.core.blocks import claim, new_output, new_row, single_out
from rain.server.core.graph import FINISHED, NOT_ASSIGNED, READY, REMOVED
from rain.server.core.linked import groups_of_functions, missing_inputs
from rain.server.core.retention import object_unneeded, release
from rain.server.core.story import inherit
from rain.server.core.waits import watch_again

if TYPE_CHECKING:
    from rain.server.core.blocks import Block
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState


def dissolve(state: ServerState, session: Session, block: Block) -> list[int]:
    """All members become tasks of their own that wait; no worker has the block (any more). Returns their rows; those
    of a linked block may have inputs that are not finished."""
    is_linked = block.link is not None
    rows = _unlink(state, session, block) if is_linked else single_out(session, block, block.count)
    states = session.graph.state
    for row in rows:
        if states[row] == READY:
            session.ready -= 1
        states[row] = NOT_ASSIGNED
    return rows


def _unlink(state: ServerState, session: Session, block: Block) -> list[int]:
    """Each member of a linked block becomes a task with inputs of its own; returns their rows."""
    graph, before = session.graph, block.row
    shared = graph.inputs[before]
    rows, outputs = _rows_of_members(session, block)
    for index, row in zip(_indices(block), rows, strict=True):
        own, graph.level[row] = _own_inputs(session, block, index, shared, rows, outputs)
        if row == before:
            for obj in graph.distinct(before):
                graph.remove_consumer(obj, before)
            graph.distinct_inputs.pop(before, None)
        _set_inputs(session, row, own)
    _let_go(state, session, shared)
    inherit(session, before, rows)
    if session.watch:
        watch_again(session, before, [*rows, *outputs])
    return rows


def _rows_of_members(session: Session, block: Block) -> tuple[list[int], list[int]]:
    """Rows of tasks and outputs for the members, without their inputs; the last one has that of the block."""
    graph, numbering, members = session.graph, session.graph.numbering, block.array
    link, args = block.link, block.args
    assert link is not None
    assert args is not None
    members.remove(block)
    del graph.blocks[block.row]
    group_of = groups_of_functions(block)
    rows = [new_row(session, block.row) for _ in range(block.count - 1)] + [block.row]
    outputs = [block.claimed.get(index, 0) or new_output(session, block, index) for index in _indices(block)]
    for index, row, output in zip(_indices(block), rows, outputs, strict=True):
        position = index - block.origin
        graph.args[row] = args.one(position)
        graph.template[row] = link.template(position)
        graph.group[row] = group_of[link.references_of(position)[0]]
        graph.producer[output] = row
        graph.set_outputs(row, (output,))
        for number, single in ((members.task(index), row), (members.output(index), output)):
            numbering.single[number] = single
            numbering.set_id(single, number)
    return rows, outputs


def _own_inputs(
    session: Session, block: Block, index: int, shared: tuple[int, ...], rows: list[int], outputs: list[int]
) -> tuple[tuple[int, ...], int]:
    """The inputs of a member, and its level: those of the first ones is the block's.

    Args:
        shared: the inputs of the block.
        rows, outputs: of all members that are left; those before this one have their levels.
    """
    link, levels = block.link, session.graph.level
    assert link is not None
    found, level = [], levels[block.row]
    for reference in link.references_of(index - block.origin):
        if reference < link.inputs:
            found.append(shared[reference])
            continue
        other = block.origin + reference - link.inputs
        if other < block.start:
            found.append(_row_of_output(session, block, other))
        else:
            found.append(outputs[other - block.start])
            level = max(level, levels[rows[other - block.start]] + 1)
    return tuple(found), level


def _indices(block: Block) -> range:
    return range(block.start, block.start + block.count)


def _row_of_output(session: Session, block: Block, index: int) -> int:
    """Row for the output of a member before the block, which has been cut off."""
    known = session.graph.numbering.single.get(block.array.output(index))
    if known is not None:
        return known
    done = block.array.block_at(index)
    assert done is not None
    return claim(session, done, index)


def _set_inputs(session: Session, row: int, inputs: tuple[int, ...]) -> None:
    graph = session.graph
    distinct = graph.set_inputs(row, inputs)
    for obj in distinct:
        graph.add_consumer(obj, row)
        graph.needed[obj] += 1
        graph.pins[obj] += 1
    graph.missing[row] = missing_inputs(session, distinct)


def _let_go(state: ServerState, session: Session, inputs: tuple[int, ...]) -> None:
    """The block needs its inputs no more; some of them perhaps none of the members that were left."""
    graph = session.graph
    for obj in dict.fromkeys(inputs):
        graph.needed[obj] -= 1
        graph.pins[obj] -= 1
        if graph.state[obj] == FINISHED and not graph.is_needed(obj):
            object_unneeded(state, session, obj)
        elif graph.state[obj] == REMOVED and not graph.pins[obj]:
            release(state, session, [obj])
