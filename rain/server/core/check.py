"""Every invariant of the server core, walked on demand (tests call it after each batch)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.server.core.graph import (
    AHEAD,
    ASSIGNED,
    CONSTANT,
    FINISHED,
    NOT_ASSIGNED,
    OBJECT_ABORTED,
    READY,
    REMOVED,
    RUNNING,
    TASK_FINISHED,
    UNFINISHED,
)
from rain.server.scheduler.queues import split

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState


def sanity_check(state: ServerState) -> None:
    """Raises AssertionError naming the invariant that is broken."""
    queued = {packed for queue in state.queue.classes() for packed in queue.entries()}
    queued_tasks = {split(packed) for packed in queued}
    for number, session in state.sessions.items():
        assert session.number == number
        assert session.peer in state.clients, f"session {number} has no client"
        assert number in state.clients[session.peer].sessions
        if session.failure is None:
            _check_tasks(state, session, queued_tasks)
            _check_objects(state, session)
            _check_arrays(session)
        else:
            assert not len(session.graph), f"failed session {number} still has a graph"
    _check_workers(state)


def _check_tasks(state: ServerState, session: Session, queued: set[tuple[int, int]]) -> None:
    graph, number = session.graph, session.number
    unfinished = ready = 0
    consumers = {obj: set(graph.consumers_of(obj)) for obj in graph.objects()}
    for task in graph.tasks():
        name = f"task {number}/{task}"
        status = graph.state[task]
        inputs = graph.distinct(task)
        if status < TASK_FINISHED:
            unfinished += 1
            missing = sum(graph.state[obj] != FINISHED for obj in inputs)
            assert graph.missing[task] == missing, f"{name}: missing {graph.missing[task]}, really {missing}"
            for obj in inputs:
                assert graph.state[obj] != REMOVED, f"{name}: input {obj} was removed"
                assert task in consumers[obj], f"{name}: unknown to its input {obj}"
        if status == NOT_ASSIGNED:
            assert graph.missing[task], f"{name}: has all inputs but is not ready"
        if status == READY:
            ready += 1
            assert not graph.missing[task], f"{name}: ready with missing inputs"
            assert (number, task) in queued, f"{name}: ready but nowhere queued"
        if graph.flags[task] & AHEAD:
            assert status == ASSIGNED or task in session.stopping, f"{name}: ahead in state {status}"
            assert graph.missing[task] or status != ASSIGNED, f"{name}: ahead, but has its inputs"
        if status in (ASSIGNED, RUNNING):
            worker = state.workers.get(graph.worker[task])
            assert worker is not None, f"{name}: assigned to a dead worker"
            assert task in worker.assigned.get(number, ()), f"{name}: unknown to its worker"
            assert graph.worker[task] in session.workers
        elif task in session.stopping:
            assert graph.worker[task] == session.stopping[task], f"{name}: is being stopped elsewhere"
            assert session.stopping[task] in state.workers, f"{name}: is being stopped on a dead worker"
        else:
            assert not graph.worker[task], f"{name}: in state {status} but has a worker"
    assert session.unfinished == unfinished, f"session {number}: unfinished {session.unfinished}, really {unfinished}"
    assert session.ready == ready, f"session {number}: ready {session.ready}, really {ready}"
    assert not session.whole or unfinished, f"session {number}: waiters of a finished session"


def _check_objects(state: ServerState, session: Session) -> None:
    graph, number = session.graph, session.number
    for obj in graph.objects():
        name = f"object {number}/{obj}"
        status = graph.state[obj]
        consumers = graph.consumers_of(obj)
        needed = sum(graph.state[task] < TASK_FINISHED for task in consumers)
        assert graph.needed[obj] == needed, f"{name}: needed {graph.needed[obj]}, really {needed}"
        assert graph.pins[obj] >= needed, f"{name}: fewer pins than unfinished consumers"
        producer = graph.producer[obj]
        assert bool(producer) != bool(graph.flags[obj] & CONSTANT), f"{name}: constant and produced"
        if status == FINISHED:
            assert graph.is_needed(obj), f"{name}: finished but not needed"
            assert graph.replicas[obj] is not None or graph.at_server(obj), f"{name}: finished but nobody has it"
            for incarnation in graph.replicas_of(obj):
                assert incarnation in state.workers, f"{name}: a copy on a dead worker"
        else:
            assert graph.replicas[obj] is None, f"{name}: copies in state {status}"
        if status == UNFINISHED and producer:
            assert graph.state[producer] < TASK_FINISHED, f"{name}: its producer is terminal"
        if status == OBJECT_ABORTED:
            assert obj in session.blame, f"{name}: aborted without a reason"
        if status == REMOVED:
            assert not graph.is_needed(obj), f"{name}: removed but needed"
            if graph.flags[obj] & CONSTANT and graph.pins[obj]:
                assert graph.at_server(obj), f"{name}: a pinned constant lost its data"
        for waiter in session.watch.get(obj, ()):
            assert waiter.peer in state.clients
            assert waiter.remaining > 0


def _check_arrays(session: Session) -> None:
    """Blocks and single members are all members, each once; rows and ids agree both ways."""
    graph = session.graph
    numbering = graph.numbering
    blocks = []
    for members in numbering.arrays:
        name = f"array {session.number}/{members.first}"
        assert members.starts == [block.start for block in members.blocks], f"{name}: starts of its blocks"
        assert members.starts == sorted(members.starts), f"{name}: order of its blocks"
        blocks += members.blocks
        at = 0
        for block in [*members.blocks, None]:
            start = members.members if block is None else block.start
            for index in range(at, start):
                for number in (members.task(index), members.output(index)):
                    row = numbering.single.get(number, -1)
                    assert row >= 0, f"{name}: member {index} is nowhere"
                    assert numbering.id(row) == number, f"{name}: member {index} goes by another id"
            assert start >= at, f"{name}: two blocks have member {start}"
            at = start + (0 if block is None else block.count)
    assert {block.row: block for block in blocks} == graph.blocks, "blocks and rows disagree"
    for row, block in graph.blocks.items():
        name = f"block {session.id_of(row)}"
        status = graph.state[row]
        assert numbering.id(row) == block.task, f"{name}: goes by another id"
        assert block.count > 0
        assert (block.results is not None) == (status == TASK_FINISHED), f"{name}: state {status} and results"
        assert (block.args is not None) == (status < TASK_FINISHED), f"{name}: state {status} and arguments"
        open_claims = set(block.claimed.values()) if block.results is None else set()
        assert set(graph.outputs_of(row)) == open_claims, f"{name}: claimed outputs"
        for index, obj in block.claimed.items():
            assert block.start <= index < block.start + block.count
            assert numbering.row(block.array.output(index)) == obj
            assert graph.is_kept(obj) == block.is_kept(index), f"{name}: keep flag of member {index}"
    for number, row in numbering.ghosts.items():
        assert row in session.stopping, f"the ghost of {session.number}/{number} is not being stopped"


def _check_workers(state: ServerState) -> None:
    for incarnation, worker in state.workers.items():
        assert worker.incarnation == incarnation
        assert state.worker_of_peer.get(worker.peer) == incarnation
        cpus = 0
        amounts: dict[str, int] = {}
        for number, tasks in worker.assigned.items():
            session = state.sessions[number]
            for task in tasks:
                assert session.graph.worker[task] == incarnation, f"task {number}/{task}: its worker disagrees"
                if session.graph.flags[task] & AHEAD:
                    continue
                request = session.templates[session.graph.template[task]].request
                cpus += request.cpus
                for name, amount in request.other:
                    amounts[name] = amounts.get(name, 0) + amount
        queued = sum(sum(tasks.values()) for tasks in worker.assigned.values())
        assert abs(worker.queued - queued) <= 1e-6 * (1 + queued), f"worker {worker.worker_id}: work does not add up"
        assert worker.free_cpus == worker.cpus - cpus, f"worker {worker.worker_id}: cpus do not add up"
        for name, offered in worker.offer.items():
            if name != "cpus":
                assert worker.free[name] == offered - amounts.get(name, 0), f"worker {worker.worker_id}: {name}"
                assert worker.free[name] >= 0, f"worker {worker.worker_id}: too much {name} in use"
