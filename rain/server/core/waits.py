"""Waits: requests that are answered when tasks and objects are done."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import WAIT_ALL, WAIT_SESSION, WAIT_SOME, StopWaiting, Wait, WaitDone
from rain.server.core.graph import ABSENT, TASK, TASK_FINISHED, UNFINISHED, Graph
from rain.server.core.numbering import Piece, spans
from rain.server.core.session import Session, Waiter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rain.protocol.fields import Ids
    from rain.server.core.state import ServerState


def is_done(graph: Graph, row: int) -> bool:
    """True if the task or block is terminal, or the object was produced or never will be."""
    if graph.kind[row] == TASK:
        return graph.state[row] >= TASK_FINISHED
    return graph.state[row] != UNFINISHED


def unknown_id(session: Session, ids: Ids) -> Failure | None:
    """A failure naming the first id that does not exist."""
    graph = session.graph
    if all(piece.block is not None or exist(graph, piece.start, piece.stop) for piece in pieces_of(session, ids)):
        return None
    return next(_unknown(session, number) for number in ids if not _is_known(graph, number))


def exist(graph: Graph, start: int, stop: int) -> bool:
    """Whether all these rows are tasks or objects."""
    return stop <= len(graph) and graph.kind.find(ABSENT, start, stop) < 0


def _is_known(graph: Graph, number: int) -> bool:
    row = graph.numbering.row(number)
    return exist(graph, row, row + 1) if row >= 0 else graph.numbering.member(number) is not None


def _unknown(session: Session, number: int) -> Failure:
    return Failure("invalid", f"id {session.number}/{number} does not exist", session=session.number)


def pieces_of(session: Session, ids: Ids) -> Iterator[Piece]:
    """What existing ids are, in order."""
    numbering = session.graph.numbering
    if numbering.arrays:
        return numbering.pieces(ids)
    return (Piece(first, stop) for first, stop in spans(ids))


def pieces_between(session: Session, first: int, stop: int) -> Iterator[Piece]:
    """What the ids from `first` to before `stop` are, in order; they need not exist."""
    numbering = session.graph.numbering
    return numbering.between(first, stop) if numbering.arrays else iter((Piece(first, stop),))


def rows_of(session: Session, ids: Ids) -> list[int]:
    """Distinct rows of existing ids; those of their blocks for members of blocks."""
    if not session.graph.numbering.arrays:
        return list(dict.fromkeys(ids))
    rows: dict[int, None] = {}
    for piece in session.graph.numbering.pieces(ids):
        if piece.block is None:
            rows.update(dict.fromkeys(range(piece.start, piece.stop)))
        else:
            rows[piece.block.row] = None
    return list(rows)


def wait(state: ServerState, session: Session, peer: int, message: Wait) -> None:
    """Answer now or later."""
    if message.mode == WAIT_SESSION:
        session.whole.append(Waiter(peer, message.seq, session.number, state.now, WAIT_SESSION))
        if not session.unfinished:
            notify(state, session, 0)
        return
    failure = unknown_id(session, message.ids)
    if failure is not None:
        state.refuse(peer, message.seq, failure)
        return
    graph = session.graph
    rows = rows_of(session, message.ids)
    open_rows = [row for row in rows if not is_done(graph, row)]
    if session.blame and message.mode == WAIT_ALL:
        blamed = next((row for row in rows if row in session.blame), None)
        if blamed is not None:
            state.refuse(peer, message.seq, blame_of(session, blamed, message.ids))
            return
    if message.mode == WAIT_SOME:
        done = _done_ids(session, message.ids, [row for row in rows if is_done(graph, row)])
        if done or not rows:
            state.send(peer, WaitDone(message.seq, done))
            return
    elif not open_rows:
        state.send(peer, WaitDone(message.seq, array("I")))
        return
    waiter = Waiter(peer, message.seq, session.number, state.now, message.mode, message.ids)
    watch(session, waiter, open_rows)


def _done_ids(session: Session, ids: Ids, done: Iterable[int]) -> array[int]:
    """Which of the ids belong to these rows."""
    graph, wanted = session.graph, set(done)
    if not wanted:
        return array("I")
    if not graph.numbering.arrays:
        return array("I", [number for number in dict.fromkeys(ids) if number in wanted])
    found: dict[int, None] = {}
    for piece in graph.numbering.pieces(ids):
        if piece.block is None:
            found.update((graph.numbering.id(row), None) for row in range(piece.start, piece.stop) if row in wanted)
        elif piece.block.row in wanted:
            name = piece.block.array.task if piece.is_task else piece.block.array.output
            found.update(dict.fromkeys(range(name(piece.start), name(piece.stop))))
    return array("I", found)


def blame_of(session: Session, row: int, ids: Ids) -> Failure:
    """Why a task, block or object is failed, cancelled or aborted; of a block, names a member that is among the ids."""
    failure = session.blame[row]
    block = session.graph.blocks.get(row)
    if block is None or failure.task != block.task:
        return failure
    named = next((n for n in _done_ids(session, ids, [row])), block.task)
    tasks = block.array.first + block.array.members
    return replace(failure, task=named if named >= tasks else named + block.array.members)


def watch(session: Session, waiter: Waiter, rows: list[int]) -> None:
    """Tell the waiter when these are done."""
    waiter.rows += rows
    waiter.remaining += len(rows)
    for row in rows:
        session.watch.setdefault(row, []).append(waiter)


def watch_again(session: Session, row: int, parts: list[int]) -> None:
    """A block was taken apart: its waiters wait for those of its parts that they asked for."""
    for waiter in session.watch.pop(row, ()):
        waiter.remaining -= 1
        waiter.rows.remove(row)
        if waiter.spans is None:
            waiter.spans = list(spans(waiter.ids))
        watch(session, waiter, [part for part in parts if _is_asked(session.graph, waiter.spans, part)])


def _is_asked(graph: Graph, asked: list[tuple[int, int]], row: int) -> bool:
    block = graph.blocks.get(row)
    if block is None:
        number = graph.numbering.id(row)
        return any(first <= number < stop for first, stop in asked)
    task, output, count = block.task, block.output, block.count
    return any(
        (first < task + count and task < stop) or (first < output + count and output < stop) for first, stop in asked
    )


def notify(state: ServerState, session: Session, row: int) -> None:
    """The task, block or object with this row is done (0: the whole session)."""
    if not row:
        waiters, session.whole = session.whole, []
        for waiter in waiters:
            if session.first_failure is not None:
                state.refuse(waiter.peer, waiter.seq, session.first_failure)
            else:
                state.send(waiter.peer, WaitDone(waiter.seq, array("I")))
        return
    blamed = row in session.blame
    for waiter in session.watch.pop(row, ()):
        waiter.remaining -= 1
        if blamed and waiter.mode != WAIT_SOME:
            unwatch(session, waiter)
            state.refuse(waiter.peer, waiter.seq, blame_of(session, row, waiter.ids))
        elif waiter.answer is not None:
            if not waiter.remaining:
                waiter.answer(state, session, waiter)
        elif waiter.mode == WAIT_SOME:
            unwatch(session, waiter)
            state.send(waiter.peer, WaitDone(waiter.seq, _done_ids(session, waiter.ids, [row])))
        elif not waiter.remaining:
            state.send(waiter.peer, WaitDone(waiter.seq, array("I")))


def unwatch(session: Session, waiter: Waiter) -> None:
    """Tell the waiter nothing any more."""
    for row in waiter.rows:
        waiters = session.watch.get(row)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del session.watch[row]


def stop_waiting(state: ServerState, peer: int, message: StopWaiting) -> None:
    """The client does not wait any more."""
    client = state.clients.get(peer)
    for number in client.sessions if client is not None else ():
        session = state.sessions[number]
        for waiter in list(session.waiters()):
            if waiter.peer == peer and waiter.seq == message.waiting:
                unwatch(session, waiter)
                session.whole = [other for other in session.whole if other is not waiter]
                return
