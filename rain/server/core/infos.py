"""States and infos of tasks and objects, as clients ask for them."""

from __future__ import annotations

from array import array
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.common.states import TaskState
from rain.protocol.messages import Counts, GetCounts, GetInfos, GetStates, Infos, States
from rain.server.core.counts import Tally, count_tasks
from rain.server.core.ending import attempts
from rain.server.core.graph import FINISHED, TASK, TASK_FINISHED
from rain.server.core.lies import told_info
from rain.server.core.waits import exist, pieces_between, pieces_of, unknown_id

if TYPE_CHECKING:
    from rain.server.core.blocks import Block
    from rain.server.core.numbering import Piece
    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState


def get_infos(state: ServerState, session: Session, client: ClientPeer, message: GetInfos) -> None:
    """States and infos as they are now."""
    failure = unknown_id(session, message.ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    graph = session.graph
    states = bytearray()
    infos: list[bytes | None] = []
    for piece in pieces_of(session, message.ids):
        states += _states_of(session, piece)
        for position in range(piece.start, piece.stop):
            if piece.block is not None:
                infos.append(_member_info(state, session, piece.block, position, is_task=piece.is_task))
            elif graph.kind[position] == TASK:
                infos.append(_task_info(state, session, position))
            else:
                infos.append(_object_info(session, position))
    state.send(client.peer, Infos(message.seq, bytes(states), infos))


def get_states(state: ServerState, session: Session, client: ClientPeer, message: GetStates) -> None:
    """States as they are now."""
    ids = message.ids or all_tasks(session)
    failure = unknown_id(session, ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    states = b"".join(_states_of(session, piece) for piece in pieces_of(session, ids))
    state.send(client.peer, States(message.seq, states))


def get_counts(state: ServerState, session: Session, client: ClientPeer, message: GetCounts) -> None:
    """How many are in which state now."""
    tally = Tally()
    if not message.firsts:
        tally.tasks = count_tasks(session.graph)
    end = 0
    for first, count in zip(message.firsts, message.counts, strict=True):
        failure = _add_stretch(session, tally, first, first + count, end)
        if failure is not None:
            state.refuse(client.peer, message.seq, Failure("invalid", failure, session=session.number))
            return
        end = first + count
    state.send(client.peer, Counts(message.seq, tally.tasks, tally.objects, _first_failure(session)))


def _add_stretch(session: Session, tally: Tally, first: int, stop: int, end: int) -> str | None:
    """Count what has ids from `first` to before `stop`; `end`: of the stretch before. Returns why it cannot be done."""
    if first < end:
        return f"stretches of ids must rise, but one that begins with {first} follows one that ends with {end - 1}"
    for piece in pieces_between(session, first, stop):
        if piece.block is None and not exist(session.graph, piece.start, piece.stop):
            return f"not all of the ids {session.number}/{first} to {stop - 1} exist"
        tally.add_piece(session.graph, piece)
    return None


def _first_failure(session: Session) -> str:
    failure = session.first_failure
    if failure is None:
        return ""
    row = session.graph.numbering.row(failure.task)
    name = session.task_name(row) if row >= 0 else f"{session.number}/{failure.task}"
    return f"Task {name} failed: {one_line(failure.message)}"


def all_tasks(session: Session) -> array[int]:
    """Ids of all tasks, rising."""
    graph = session.graph
    numbering = graph.numbering
    if not numbering.arrays:
        return array("I", graph.tasks())
    ids = array("I")
    for task in graph.tasks():
        block = graph.blocks.get(task)
        if block is not None:
            ids.extend(range(block.task, block.task + block.count))
        elif not numbering.is_ghost(task):
            ids.append(numbering.id(task))
    return array("I", sorted(ids))


def _states_of(session: Session, piece: Piece) -> bytes:
    graph, block = session.graph, piece.block
    if block is None:
        return bytes(graph.state[piece.start : piece.stop])
    if piece.is_task:
        return bytes([graph.state[block.row]]) * (piece.stop - piece.start)
    return bytes(block.state_of_output(graph, index) for index in range(piece.start, piece.stop))


def _task_info(state: ServerState, session: Session, task: int) -> bytes | None:
    graph = session.graph
    if not graph.run[task]:
        return None
    info = told_info(graph.info.get(task))
    if graph.state[task] in (TaskState.finished, TaskState.failed) and graph.start[task]:
        info["start_time"] = graph.start[task]
        info["duration"] = graph.duration[task]
    return _packed_info(state, session, task, info)


def _packed_info(state: ServerState, session: Session, task: int, info: dict[str, Any]) -> bytes:
    """Adds what is the same for all members of a block."""
    graph = session.graph
    info["attempts"] = attempts(session, task)
    blamed = session.blame.get(task)
    if blamed is not None and graph.state[task] == TaskState.failed:
        info["error"], info["debug"] = blamed.message, blamed.debug
        if blamed.exception is not None:
            info["exception"] = b64encode(blamed.exception).decode()
    incarnation = graph.worker[task] or graph.last_worker[task]
    info["governor"] = state.worker_id(incarnation)
    packed: bytes = msgpack.packb(info)
    return packed


def _object_info(session: Session, obj: int) -> bytes | None:
    graph = session.graph
    if graph.state[obj] != FINISHED:
        return None
    return _packed_object_info(graph.info.get(obj), graph.size[obj])


def _packed_object_info(known: bytes | None, size: int) -> bytes:
    info = told_info(known)
    info["size"] = size
    packed: bytes = msgpack.packb(info)
    return packed


def _member_info(state: ServerState, session: Session, block: Block, index: int, *, is_task: bool) -> bytes | None:
    graph, position, results = session.graph, index - block.start, block.results
    if not is_task:
        if results is None or block.state_of_output(graph, index) != FINISHED:
            return None
        return _packed_object_info(results.info(position), results.size(position))
    if not graph.run[block.row]:
        return None
    info: dict[str, Any] = {}
    if results is not None and graph.state[block.row] == TASK_FINISHED:
        info["start_time"] = graph.start[block.row] + results.begin(position)
        info["duration"] = results.durations[position]
    return _packed_info(state, session, block.row, info)
