"""Requests that are answered later: waits and fetches."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.failure import Failure
from rain.protocol.messages import (
    WAIT_ALL,
    WAIT_SESSION,
    WAIT_SOME,
    FetchObjects,
    ObjectsFetched,
    StopWaiting,
    Wait,
    WaitDone,
)
from rain.server.core.graph import ABSENT, FINISHED, TASK, TASK_FINISHED, UNFINISHED, Graph
from rain.server.core.session import Session, Waiter

if TYPE_CHECKING:
    from rain.server.core.state import ServerState


def is_done(graph: Graph, number: int) -> bool:
    """True if the task is terminal, or the object was produced or never will be."""
    if graph.kind[number] == TASK:
        return graph.state[number] >= TASK_FINISHED
    return graph.state[number] != UNFINISHED


def unknown_id(session: Session, ids: array[int]) -> Failure | None:
    """A failure naming the first id that does not exist."""
    graph = session.graph
    for number in ids:
        if number >= len(graph) or graph.kind[number] == ABSENT:
            return Failure("invalid", f"id {session.number}/{number} does not exist", session=session.number)
    return None


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
    ids = tuple(dict.fromkeys(message.ids))
    open_ids = [number for number in ids if not is_done(graph, number)]
    if session.blame and message.mode == WAIT_ALL:
        blamed = next((session.blame[number] for number in ids if number in session.blame), None)
        if blamed is not None:
            state.refuse(peer, message.seq, blamed)
            return
    if message.mode == WAIT_SOME:
        done = array("I", [number for number in ids if is_done(graph, number)])
        if done or not ids:
            state.send(peer, WaitDone(message.seq, done))
            return
    elif not open_ids:
        state.send(peer, WaitDone(message.seq, array("I")))
        return
    _watch(session, Waiter(peer, message.seq, session.number, state.now, message.mode, ids, len(open_ids)), open_ids)


def _watch(session: Session, waiter: Waiter, open_ids: list[int]) -> None:
    for number in open_ids:
        session.watch.setdefault(number, []).append(waiter)


def notify(state: ServerState, session: Session, number: int) -> None:
    """The task or object `number` is done (0: the whole session)."""
    if not number:
        waiters, session.whole = session.whole, []
        for waiter in waiters:
            if session.first_failure is not None:
                state.refuse(waiter.peer, waiter.seq, session.first_failure)
            else:
                state.send(waiter.peer, WaitDone(waiter.seq, array("I")))
        return
    blamed = session.blame.get(number)
    for waiter in session.watch.pop(number, ()):
        waiter.remaining -= 1
        if blamed is not None and waiter.mode != WAIT_SOME:
            _unwatch(session, waiter)
            state.refuse(waiter.peer, waiter.seq, blamed)
        elif waiter.fetch is not None:
            if not waiter.remaining:
                answer_fetch(state, session, waiter)
        elif waiter.mode == WAIT_SOME:
            _unwatch(session, waiter)
            state.send(waiter.peer, WaitDone(waiter.seq, array("I", [number])))
        elif not waiter.remaining:
            state.send(waiter.peer, WaitDone(waiter.seq, array("I")))


def _unwatch(session: Session, waiter: Waiter) -> None:
    for number in waiter.ids:
        waiters = session.watch.get(number)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del session.watch[number]


def stop_waiting(state: ServerState, peer: int, message: StopWaiting) -> None:
    """The client does not wait any more."""
    client = state.clients.get(peer)
    for number in client.sessions if client is not None else ():
        session = state.sessions[number]
        for waiter in list(session.waiters()):
            if waiter.peer == peer and waiter.seq == message.waiting:
                _unwatch(session, waiter)
                session.whole = [other for other in session.whole if other is not waiter]
                return


def fetch(state: ServerState, session: Session, peer: int, message: FetchObjects) -> None:
    """Answer when all objects are finished."""
    graph = session.graph
    failure = unknown_id(session, message.ids)
    for number in message.ids if failure is None else ():
        if graph.kind[number] == TASK:
            failure = Failure("invalid", f"{session.number}/{number} is a task, not a data object")
        elif not graph.is_kept(number):
            failure = Failure("invalid", f"data object {session.number}/{number} is not kept")
    if failure is not None:
        state.refuse(peer, message.seq, failure)
        return
    ids = tuple(message.ids)
    blamed = next((session.blame[number] for number in ids if number in session.blame), None)
    if blamed is not None:
        state.refuse(peer, message.seq, blamed)
        return
    waiter = Waiter(
        peer, message.seq, session.number, state.now, WAIT_ALL, ids, fetch=frozenset(message.unreachable)
    )
    if not watch_fetch(session, waiter):
        answer_fetch(state, session, waiter)


def watch_fetch(session: Session, waiter: Waiter) -> bool:
    """Wait for what is unfinished of a fetch; False if nothing is."""
    open_ids = [number for number in dict.fromkeys(waiter.ids) if session.graph.state[number] == UNFINISHED]
    waiter.remaining = len(open_ids)
    _watch(session, waiter, open_ids)
    return bool(open_ids)


def answer_fetch(state: ServerState, session: Session, waiter: Waiter) -> None:
    """All objects are finished (unless one was lost again or unkept meanwhile)."""
    if watch_fetch(session, waiter):
        return
    graph = session.graph
    sizes = array("Q")
    specs: list[bytes | None] = []
    infos: list[bytes | None] = []
    values: list[bytes | None] = []
    holders: list[list[str]] = []
    budget = state.options.message_budget
    for obj in waiter.ids:
        if graph.state[obj] != FINISHED:
            gone = Failure("invalid", f"data object {session.number}/{obj} was unkept before it could be fetched")
            state.refuse(waiter.peer, waiter.seq, gone)
            return
        sizes.append(graph.size[obj])
        specs.append(object_spec(session, obj))
        infos.append(graph.info.get(obj))
        value = graph.value[obj]
        if value is not None and (len(value) >= state.options.inline_limit or len(value) > budget):
            value = None  # to be read from the server on a data connection
        budget -= len(value or b"")
        values.append(value)
        holders.append([] if values[-1] is not None else holder_addresses(state, session, obj, waiter))
    state.send(waiter.peer, ObjectsFetched(waiter.seq, sizes, specs, infos, values, holders))


def holder_addresses(state: ServerState, session: Session, obj: int, waiter: Waiter) -> list[str]:
    """Where the client can read the value: workers, and last the server, which relays."""
    graph = session.graph
    server = state.clients[waiter.peer].local
    addresses = []
    if not graph.at_server(obj):
        addresses = [state.workers[w].worker_id for w in sorted(graph.replicas_of(obj)) if w in state.workers]
        unreachable = waiter.fetch or frozenset()
        addresses = [address for address in addresses if address not in unreachable]
    return [*addresses, server]


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
