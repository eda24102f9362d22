"""How long objects and the means to recompute them are kept (spec 6.2, 6.9).

An object that is not needed is *removed*: its copies on workers are deleted. Its lineage (the producer with its
arguments, and the data of constants) stays as long as some task that is still pinned could have to run
again: a task is *released* when all its outputs are dead, an object is dead when it is removed and all its
consumers are released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.protocol.messages import KEEP
from rain.server.core.actions import DropConstants
from rain.server.core.graph import AT_STORE, CONSTANT, FINISHED, REMOVED, TASK_FINISHED

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState


def object_unneeded(state: ServerState, session: Session, obj: int) -> None:
    """The object is finished, not kept, and no unfinished task needs it: purge it from the workers."""
    graph = session.graph
    graph.state[obj] = REMOVED
    known = graph.replicas[obj]
    if known is not None:
        for incarnation in (known,) if isinstance(known, int) else known:
            state.delete_copy(incarnation, session.number, obj)
        graph.replicas[obj] = None
    if not graph.flags[obj] & CONSTANT:
        graph.value[obj] = None
    if not graph.pins[obj]:
        release(state, session, [obj])


def inputs_consumed(state: ServerState, session: Session, task: int) -> None:
    """The task is finished: its inputs are needed once less."""
    graph = session.graph
    needed, flags = graph.needed, graph.flags
    for obj in graph.distinct(task):
        left = needed[obj] - 1
        needed[obj] = left
        if not left and not flags[obj] & KEEP and graph.state[obj] == FINISHED:
            object_unneeded(state, session, obj)


def task_will_not_run_again(state: ServerState, session: Session, task: int) -> None:
    """It failed or was stopped for good, or succeeded and has no outputs that could be lost."""
    release(state, session, _unpin_inputs(session, task))


def release(state: ServerState, session: Session, dead: list[int]) -> None:
    """Follow the lineage of dead objects upwards."""
    graph = session.graph
    while dead:
        obj = dead.pop()
        graph.value[obj] = None
        graph.consumers[obj] = None
        if graph.flags[obj] & AT_STORE:
            graph.flags[obj] &= ~AT_STORE
            state.actions.append(DropConstants(session.number, [graph.numbering.id(obj)]))
        task = graph.producer[obj]
        if (
            task
            and graph.state[task] == TASK_FINISHED
            and all(graph.state[out] == REMOVED and not graph.pins[out] for out in graph.outputs_of(task))
        ):
            dead += _unpin_inputs(session, task)


def _unpin_inputs(session: Session, task: int) -> list[int]:
    """The task is released; returns the inputs that died by that."""
    graph = session.graph
    graph.args[task] = None
    inputs = graph.distinct(task)
    graph.inputs[task] = ()
    graph.distinct_inputs.pop(task, None)
    died = []
    for obj in inputs:
        graph.pins[obj] -= 1
        if not graph.pins[obj] and graph.state[obj] == REMOVED:
            died.append(obj)
    return died
