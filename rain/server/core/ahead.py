"""Tasks sent ahead: assigned to the worker that makes, or has, all of their inputs before these are finished.

They take no cpus of the worker until the inputs are there: what waits for a task that runs does not run beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.server.core.graph import AHEAD, ASSIGNED, FINISHED, NOT_ASSIGNED, RUNNING, UNFINISHED

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker

MOST_INPUTS = 16
"""Tasks with more inputs wait until all are finished; bounds the cost of wide tasks."""


def may_go_ahead(session: Session, worker: Worker, task: int, longest: float) -> bool:
    """True if all inputs of a waiting task are at the worker, at the server, or will be made by tasks the worker has.

    Args:
        session: of the task.
        worker: where it would go.
        task: its row.
        longest: seconds that it may be expected to take; it must have been measured.
    """
    graph = session.graph
    seconds = session.groups[graph.group[task]].seconds
    request = session.templates[graph.template[task]].request
    if seconds is None or seconds > longest or request.other or request.cpus > worker.cpus:
        return False
    inputs = graph.distinct(task)
    if len(inputs) > MOST_INPUTS or task in session.failed_on or task in session.attempts_lost:
        return False
    states, incarnation = graph.state, worker.incarnation
    for obj in inputs:
        if states[obj] == UNFINISHED:
            producer = graph.producer[obj]
            if graph.worker[producer] != incarnation or states[producer] not in (ASSIGNED, RUNNING):
                return False
        elif states[obj] != FINISHED or not (graph.at_server(obj) or incarnation in graph.replicas_of(obj)):
            return False
    return not graph.blocks or not _has_block(session, task)


def _has_block(session: Session, task: int) -> bool:
    """Whether it is a block, or an input is made by one: such values do not stay at the worker."""
    graph = session.graph
    return task in graph.blocks or any(graph.producer[obj] in graph.blocks for obj in graph.distinct(task))


def dependents(session: Session, worker: Worker, task: int, longest: float, most: int) -> list[int]:
    """Waiting tasks, at most so many, that may go ahead because the worker was given this one."""
    graph = session.graph
    states = graph.state
    found: list[int] = []
    for obj in graph.outputs_of(task):
        consumers = graph.consumers[obj]
        if consumers is None:
            continue
        for consumer in (consumers,) if isinstance(consumers, int) else consumers[:MOST_INPUTS]:
            if (
                states[consumer] == NOT_ASSIGNED
                and len(found) < most
                and may_go_ahead(session, worker, consumer, longest)
            ):
                found.append(consumer)
    return found


def inputs_came(state: ServerState, session: Session, task: int) -> None:
    """The task, which was sent ahead, can run now, and takes its cpus."""
    graph = session.graph
    graph.flags[task] &= ~AHEAD
    worker = state.workers[graph.worker[task]]
    worker.free_cpus -= session.templates[graph.template[task]].request.cpus


def leave_worker(session: Session, worker: Worker, task: int) -> None:
    """Account for a task that left the worker."""
    graph = session.graph
    if graph.flags[task] & AHEAD:
        graph.flags[task] &= ~AHEAD
        worker.release(session.number, task, None)
    else:
        worker.release(session.number, task, session.templates[graph.template[task]].request)
