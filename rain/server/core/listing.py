"""Answers to ListSessions, ListTasks and ListObjects."""

from __future__ import annotations

from array import array
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import (
    ListObjects,
    ListSessions,
    ListTasks,
    ObjectList,
    SessionList,
    TaskList,
)
from rain.server.core.blocks import spec_of_output
from rain.server.core.counts import Tally
from rain.server.core.explain import not_open
from rain.server.core.graph import FINISHED, OBJECT, OBJECT_ABORTED, REMOVED, RUNNING, TASK, TASK_FINISHED, UNFINISHED
from rain.server.core.linked import template_of
from rain.server.core.task_specs import packed_spec_of, producer_of, spec_of_packed
from rain.server.core.waits import pieces_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.server.core.blocks import Block
    from rain.server.core.graph import Graph
    from rain.server.core.numbering import Piece
    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState

T = TypeVar("T")

MOST, LONGEST = 5000, 4 << 20
"""Tasks or objects, and bytes after which no further one begins, in one answer."""
WINDOW = 100_000
"""Ids looked at for one answer."""
MANY = 10_000
"""Sessions, and kept objects of one, that are listed."""
LONGEST_NAME = 1000
"""Characters of a session's name in a list of sessions."""
_ENTRY = 40


def list_sessions(state: ServerState, client: ClientPeer, message: ListSessions) -> None:
    """All sessions, or all about one."""
    if not message.session:
        newest = islice(reversed(state.sessions.values()), MANY)
        entries = [_session_entry(state, session) for session in newest]
        sessions = {"sessions": entries[::-1], "total": len(state.sessions)}
        state.send(client.peer, SessionList(message.seq, sessions))
        return
    session = state.sessions.get(message.session)
    if session is None:
        state.refuse(client.peer, message.seq, not_open(state, message.session))
        return
    failure = session.failure or session.first_failure
    kept, total = _kept_objects(session)
    entry = _session_entry(state, session) | {
        "name": session.name,
        "error": None if failure is None else failure.message,
        "kept": kept,
        "kept_total": total,
    }
    state.send(client.peer, SessionList(message.seq, {"sessions": [entry], "total": 1}))


def _session_entry(state: ServerState, session: Session) -> dict[str, Any]:
    return {
        "session": session.number,
        "name": session.name[:LONGEST_NAME],
        "state": "open" if session.failure is None else "failed",
        "client": state.clients[session.peer].address if session.peer in state.clients else "",
        "on_failure": session.on_failure,
        "age": state.now - session.created,
        "tasks": state.task_counts(session),
        "objects": _object_counts(session.graph),
    }


def _object_counts(graph: Graph) -> dict[str, int]:
    """Objects by the names of their states; a loop over the members of blocks would hold the server up."""
    tally = Tally()
    tally.add_rows(graph, 0, len(graph))
    counts = tally.objects
    for row, block in graph.blocks.items():
        status, others = graph.state[row], block.count - len(block.claimed)
        if status < TASK_FINISHED:
            counts[UNFINISHED] += others
        elif status > TASK_FINISHED:
            counts[OBJECT_ABORTED] += others
        else:
            kept = _kept_members(block)
            counts[FINISHED] += kept
            counts[REMOVED] += others - kept
    return {DataObjectState(status).name: count for status, count in enumerate(counts) if count}


def _kept_members(block: Block) -> int:
    """How many outputs without a row are kept."""
    if not block.keep:
        return 0
    return block.count - len(block.claimed.keys() | block.unkept)


def _kept_objects(session: Session) -> tuple[list[dict[str, Any]], int]:
    """The first MANY kept objects by rising id, and the number of all."""
    graph = session.graph
    # All rows at once: a byte is 1 where the row is an object and kept. KEEP is the bit that OBJECT has and TASK lacks.
    flags = int.from_bytes(graph.kind, "little") & int.from_bytes(graph.flags, "little")
    kept = flags.to_bytes(len(graph), "little")
    total, found, labels = kept.count(1), list[tuple[int, str, int, int]](), _Labels()
    row = kept.find(1)
    while row >= 0 and len(found) < MANY:
        label = labels[packed_spec_of(session, row)]
        found.append((graph.numbering.id(row), label, graph.size[row], graph.state[row]))
        row = kept.find(1, row + 1)
    for block in graph.blocks.values():
        total += _kept_members(block)
        if block.keep:
            members = (n for n in range(block.start, block.start + block.count) if n not in block.claimed)
            for index in islice((n for n in members if n not in block.unkept), max(0, MANY - len(found))):
                size = 0 if block.results is None else block.results.size(index - block.start)
                label = labels[spec_of_output(session, block, index)]
                found.append((block.array.output(index), label, size, block.state_of_output(graph, index)))
    entries = [
        {"id": number, "label": label, "size": size, "state": DataObjectState(status).name}
        for number, label, size, status in sorted(found)
    ]
    return entries, total


class _Labels(dict[bytes | None, str]):
    """Labels by packed specs, each read once."""

    def __missing__(self, spec: bytes | None) -> str:
        label = self[spec] = str(spec_of_packed(spec).get("label", ""))
        return label


# --- tasks and objects ---


def _window(session: Session, first: int, last: int) -> tuple[int, int]:
    """Behind the last id to look at, and where to go on then (0: that is all)."""
    numbering = session.graph.numbering
    end = min(last + 1, numbering.end if numbering.arrays else len(session.graph))
    stop = min(end, first + WINDOW)
    return stop, stop if first < stop < end else 0


class _Tasks:
    """The columns of a TaskList, being filled."""

    def __init__(self, state: ServerState, session: Session, message: ListTasks) -> None:
        self._state = state
        self._session = session
        self._graph = session.graph
        self._states = frozenset(message.states or map(int, TaskState))
        self._name = message.name
        self._size = 0
        self.ids = array("I")
        self.states = bytearray()
        self.names: list[str] = []
        self.types: list[str] = []
        self.workers: list[str] = []
        self.starts, self.durations = array("d"), array("d")

    @property
    def is_full(self) -> bool:
        """No further one begins."""
        return len(self.ids) >= MOST or self._size > LONGEST

    def wanted(self, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, int]]:
        """The tasks and members among these that are asked for, with their positions."""
        kinds = self._session.graph.kind
        for piece in pieces:
            if piece.block is None:
                rows = range(piece.start, piece.stop)
                yield from ((piece, row) for row in rows if kinds[row] == TASK and self._wants(row))
            elif piece.is_task and self._graph.state[piece.block.row] in self._states:
                members = range(piece.start, piece.stop)
                if self._name:
                    yield from ((piece, index) for index in members if self._is_named(self._of(piece.block, index)))
                else:
                    yield from ((piece, index) for index in members)

    def _wants(self, row: int) -> bool:
        graph = self._graph
        return graph.state[row] in self._states and (not self._name or self._is_named(graph.template[row]))

    def _is_named(self, template: int) -> bool:
        return self._session.templates[template].name == self._name

    def _of(self, block: Block, index: int) -> int:
        return template_of(self._session, block, index)

    def add(self, number: int, row: int, template_number: int, start: float, duration: float) -> None:
        """Add a task, or a member of the block with this row."""
        graph = self._session.graph
        template = self._session.templates[template_number]
        worker = self._state.worker_id(graph.worker[row] or graph.last_worker[row])
        self.ids.append(number)
        self.states.append(graph.state[row])
        self.names.append(template.name or "")
        self.types.append(template.type)
        self.workers.append(worker)
        self.starts.append(start)
        self.durations.append(duration)
        self._size += _ENTRY + len(template.name or "") + len(template.type) + len(worker)

    def add_row(self, row: int) -> None:
        """Add a task of its own."""
        graph, start, duration = self._session.graph, 0.0, 0.0
        status = graph.state[row]
        if status in (TaskState.finished, TaskState.failed) and graph.start[row]:
            start, duration = graph.start[row], graph.duration[row]
        elif status == RUNNING and row in self._session.began:
            duration = self._state.now - self._session.began[row]
        self.add(graph.numbering.id(row), row, graph.template[row], start, duration)

    def add_member(self, block: Block, index: int) -> None:
        """Add a member of a block."""
        graph, results, position = self._session.graph, block.results, index - block.start
        start = duration = 0.0
        if results is not None and graph.state[block.row] == TASK_FINISHED:
            start, duration = graph.start[block.row] + results.begin(position), results.durations[position]
        self.add(block.array.task(index), block.row, self._of(block, index), start, duration)


def list_tasks(state: ServerState, session: Session, client: ClientPeer, message: ListTasks) -> None:
    """Tasks of a session, as many as there is room for."""
    found = _Tasks(state, session, message)
    stop, following = _window(session, message.first, message.last)
    following = _fill(found, session, message.first, stop) or following
    columns = found.ids, bytes(found.states), found.names, found.types, found.workers, found.starts, found.durations
    state.send(client.peer, TaskList(message.seq, *columns, following))


class _Objects:
    """The columns of an ObjectList, being filled."""

    def __init__(self, session: Session, message: ListObjects) -> None:
        self._session = session
        self._kept = {0: (False, True), 1: (True,)}.get(message.kept, (False,))
        self._label = message.label
        self._labels = _Labels()
        self._size = 0
        self.ids, self.producers = array("I"), array("I")
        self.states, self.kept = bytearray(), bytearray()
        self.labels: list[str] = []
        self.sizes = array("Q")

    @property
    def is_full(self) -> bool:
        """No further one begins."""
        return len(self.ids) >= MOST or self._size > LONGEST

    def wanted(self, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, int]]:
        """The objects and outputs of members among these that are asked for, with their positions."""
        graph, wanted = self._session.graph, self._kept
        for piece in pieces:
            block, positions = piece.block, range(piece.start, piece.stop)
            if block is None:
                rows = (row for row in positions if graph.kind[row] == OBJECT and graph.is_kept(row) in wanted)
                yield from ((piece, row) for row in rows if self._has_label(None, row))
            elif not piece.is_task:
                members = (index for index in positions if block.is_kept(index) in wanted)
                yield from ((piece, index) for index in members if self._has_label(block, index))

    def _has_label(self, block: Block | None, position: int) -> bool:
        """Whether an object or the output of a member has the wanted label; without one nobody looks at its spec."""
        if not self._label:
            return True
        session = self._session
        spec = packed_spec_of(session, position) if block is None else spec_of_output(session, block, position)
        return self._labels[spec] == self._label

    def add_row(self, row: int) -> None:
        """Add an object."""
        session, graph = self._session, self._session.graph
        label, producer = self._labels[packed_spec_of(session, row)], producer_of(session, row)[0]
        self._add(graph.numbering.id(row), graph.state[row], label, graph.size[row], graph.is_kept(row), producer)

    def add_member(self, block: Block, index: int) -> None:
        """Add the output of a member of a block."""
        label, status = (
            self._labels[spec_of_output(self._session, block, index)],
            block.state_of_output(self._session.graph, index),
        )
        size = block.results.size(index - block.start) if block.results is not None else 0
        self._add(block.array.output(index), status, label, size, block.is_kept(index), block.array.task(index))

    def _add(self, number: int, status: int, label: str, size: int, is_kept: bool, producer: int) -> None:
        self.ids.append(number)
        self.states.append(status)
        self.labels.append(label)
        self.sizes.append(size)
        self.kept.append(is_kept)
        self.producers.append(producer)
        self._size += _ENTRY + len(label)


def _fill(found: _Tasks | _Objects, session: Session, first: int, stop: int) -> int:
    """Add those between two ids while there is room; returns the id of the first one left out, else 0."""
    for piece, position in found.wanted(pieces_between(session, first, stop)):
        if found.is_full:
            return piece.number(session.graph.numbering, position)
        if piece.block is None:
            found.add_row(position)
        else:
            found.add_member(piece.block, position)
    return 0


def list_objects(state: ServerState, session: Session, client: ClientPeer, message: ListObjects) -> None:
    """Data objects of a session, as many as there is room for."""
    found = _Objects(session, message)
    stop, following = _window(session, message.first, message.last)
    following = _fill(found, session, message.first, stop) or following
    columns = bytes(found.states), found.labels, found.sizes, bytes(found.kept), found.producers
    state.send(client.peer, ObjectList(message.seq, found.ids, *columns, following))
