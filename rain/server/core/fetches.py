"""Fetches: values for clients, once they are there."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import WAIT_ALL, FetchObjects, ObjectsFetched
from rain.server.core.blocks import Block, spec_of_output
from rain.server.core.graph import FINISHED, TASK
from rain.server.core.joined import joined_values, singles_ahead
from rain.server.core.session import Session, Waiter
from rain.server.core.waits import blame_of, is_done, pieces_of, rows_of, unknown_id, watch

if TYPE_CHECKING:
    from rain.protocol.fields import Ids
    from rain.server.core.state import ServerState


def fetch(state: ServerState, session: Session, peer: int, message: FetchObjects) -> None:
    """Answer when all objects are finished."""
    failure = unknown_id(session, message.ids) or _not_to_be_had(session, message.ids)
    if failure is not None:
        state.refuse(peer, message.seq, failure)
        return
    if session.blame:
        blamed = next((row for row in rows_of(session, message.ids) if row in session.blame), None)
        if blamed is not None:
            state.refuse(peer, message.seq, blame_of(session, blamed, message.ids))
            return
    unreachable = frozenset(message.unreachable)
    answer = answer_joined if message.joined else answer_fetch
    waiter = Waiter(
        peer, message.seq, session.number, state.now, WAIT_ALL, message.ids, fetch=unreachable, answer=answer
    )
    answer(state, session, waiter)


def _not_to_be_had(session: Session, ids: Ids) -> Failure | None:
    """A failure naming the first id that is no kept object."""
    graph = session.graph
    for piece in pieces_of(session, ids):
        for position in range(piece.start, piece.stop):
            block = piece.block
            if block is None:
                is_task, is_kept = graph.kind[position] == TASK, graph.is_kept(position)
            else:
                is_task, is_kept = piece.is_task, block.is_kept(position)
                if is_kept and not is_task and not block.unkept:
                    break
            if is_task or not is_kept:
                number = piece.number(graph.numbering, position)
                text = "is a task, not a data object" if is_task else "is not kept"
                what = "" if is_task else "data object "
                return Failure("invalid", f"{what}{session.number}/{number} {text}")
    return None


class _Answer:
    """The columns of ObjectsFetched, being filled."""

    def __init__(self, state: ServerState, session: Session, waiter: Waiter) -> None:
        self._state = state
        self._session = session
        self._waiter = waiter
        self._server = state.clients[waiter.peer].local
        self._limit = state.options.inline_limit
        self._budget = state.options.message_budget
        self.sizes = array("Q")
        self.specs: list[bytes | None] = []
        self.infos: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.holders: list[list[str]] = []

    def add_row(self, obj: int) -> None:
        """Add a finished object."""
        graph = self._session.graph
        self.specs.append(object_spec(self._session, obj))
        self.infos.append(graph.info.get(obj))
        self._add(graph.size[obj], graph.value[obj], obj)

    def add_member(self, block: Block, index: int) -> None:
        """Add the output of a member of a finished block."""
        assert block.results is not None
        position = index - block.start
        self.specs.append(spec_of_output(self._session, block, index))
        self.infos.append(block.results.info(position))
        self._add(block.results.size(position), block.results.value(position), 0)

    def _add(self, size: int, value: bytes | None, obj: int) -> None:
        if value is not None and (len(value) >= self._limit or len(value) > self._budget):
            value = None  # to be read from the server on a data connection
        self._budget -= len(value or b"")
        self.sizes.append(size)
        self.values.append(value)
        self.holders.append([] if value is not None else self._holders(obj))

    def _holders(self, obj: int) -> list[str]:
        """Where the client can read the value: workers, and last the server, which relays."""
        graph, workers = self._session.graph, self._state.workers
        if not obj or graph.at_server(obj):
            return [self._server]
        addresses = [workers[w].worker_id for w in sorted(graph.replicas_of(obj)) if w in workers]
        unreachable = self._waiter.fetch or frozenset()
        return [*(address for address in addresses if address not in unreachable), self._server]


def answer_fetch(state: ServerState, session: Session, waiter: Waiter) -> None:
    """Answer, or wait for what is unfinished (one may have been lost again or unkept meanwhile)."""
    graph = session.graph
    open_rows = [row for row in rows_of(session, waiter.ids) if not is_done(graph, row)]
    if open_rows:
        watch(session, waiter, open_rows)
        return
    answer = _Answer(state, session, waiter)
    for piece in pieces_of(session, waiter.ids):
        for position in range(piece.start, piece.stop):
            block = piece.block
            status = graph.state[position] if block is None else block.state_of_output(graph, position)
            if status != FINISHED:
                number = piece.number(graph.numbering, position)
                gone = f"data object {session.number}/{number} was unkept before it could be fetched"
                state.refuse(waiter.peer, waiter.seq, Failure("invalid", gone))
                return
            if block is None:
                answer.add_row(position)
            else:
                answer.add_member(block, position)
    columns = answer.sizes, answer.specs, answer.infos, answer.values, answer.holders
    state.send(waiter.peer, ObjectsFetched(waiter.seq, *columns))


def answer_joined(state: ServerState, session: Session, waiter: Waiter) -> None:
    """The same, in one piece if what is asked for begins with values of blocks, or with few other ones."""
    graph = session.graph
    if all(is_done(graph, row) for row in rows_of(session, waiter.ids)):
        ahead = singles_ahead(session, waiter.ids)
        if ahead:
            answer_fetch(state, session, replace(waiter, ids=waiter.ids[:ahead]))
            return
        found = joined_values(session, waiter.seq, waiter.ids, state.options.message_budget)
        if found is not None:
            state.send(waiter.peer, found)
            return
    answer_fetch(state, session, waiter)


def object_spec(session: Session, obj: int) -> bytes | None:
    """The packed spec of an object: its own, else what its producer's template says."""
    graph = session.graph
    own = graph.spec.get(obj)
    if own is not None:
        return own
    task = graph.producer[obj]
    if not task:
        return None
    specs = session.templates[graph.template[task]].output_specs
    position = graph.outputs_of(task).index(obj)
    return specs[position] if position < len(specs) else None


def value_at_server(session: Session, number: int) -> bytes | None:
    """The value of a data object, by its id, if the core itself has it."""
    graph = session.graph
    row = graph.numbering.row(number)
    if row >= 0:
        return graph.value[row] if graph.is_object(row) else None
    member = graph.numbering.member(number)
    if member is None or member[2] or member[0].results is None or not member[0].is_kept(member[1]):
        return None
    return member[0].results.value(member[1] - member[0].start)
