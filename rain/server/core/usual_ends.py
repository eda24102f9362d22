"""The usual end of a run, in one pass over many: it is current, it succeeded, and made one output that nobody had.

What this does is what `completion.task_done` does, without its calls. Anything else is left to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.protocol.messages import KEEP
from rain.server.core.ahead import inputs_came
from rain.server.core.graph import AHEAD, ASSIGNED, FINISHED, NOT_ASSIGNED, RUNNING, TASK, TASK_FINISHED, UNFINISHED
from rain.server.core.lies import check_run
from rain.server.core.retention import object_unneeded
from rain.server.core.waits import notify

if TYPE_CHECKING:
    from rain.protocol.messages import TasksDone
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker


def commit_usual(
    state: ServerState, session: Session, worker: Worker, message: TasksDone, first: int, begin: int
) -> int:
    """Commit runs of ordinary tasks from the position `first` on, whose outputs begin at `begin`, up to one that is not
    usual; returns how many there were.

    Raises:
        ReportError: what is said of a run cannot be true; those before it are committed.
    """
    graph = session.graph
    assigned = worker.assigned.get(session.number)
    if assigned is None or message.infos:
        return 0
    size, incarnation, only_output = len(graph), worker.incarnation, graph.only_output
    kind, states, runs, workers = graph.kind, graph.state, graph.run, graph.worker
    told, sizes, values, infos = message.runs, message.sizes, message.values, message.output_infos
    count = 0
    for k in range(first, len(message.tasks)):
        task = message.tasks[k]
        if task >= size or kind[task] != TASK or runs[task] != told[k] or workers[task] != incarnation:
            break
        obj, request = only_output[task], session.templates[graph.template[task]].request
        if states[task] not in (ASSIGNED, RUNNING) or not obj or states[obj] != UNFINISHED or request.other:
            break
        at = begin + count
        check_run(message, k, at, 1)
        worker.queued -= assigned.pop(task)
        if graph.flags[task] & AHEAD:
            graph.flags[task] ^= AHEAD
        else:
            worker.free_cpus += request.cpus
        workers[task] = 0
        if session.began:
            session.began.pop(task, None)
        if worker.withdrawing:
            worker.withdrawing.discard((session.number, task))
        states[task] = TASK_FINISHED
        session.unfinished -= 1
        graph.start[task] = message.starts[k]
        graph.duration[task] = duration = message.durations[k]
        graph.last_worker[task] = incarnation
        session.groups[graph.group[task]].add(duration)
        states[obj] = FINISHED
        graph.size[obj] = sizes[at]
        graph.replicas[obj] = incarnation
        if values and (value := values[at]) is not None and graph.flags[obj] & KEEP:
            graph.value[obj] = value
        if infos and (info := infos[at]) is not None:
            graph.info[obj] = info
        _pass_on(state, session, task, obj)
        count += 1
        if not assigned:
            worker.forget_session(session.number)
            break
    return count


def _pass_on(state: ServerState, session: Session, task: int, obj: int) -> None:
    """Feed the consumers of the output, settle what is needed, wake who waits."""
    graph = session.graph
    states, flags, needed = graph.state, graph.flags, graph.needed
    consumers = graph.consumers[obj]
    if consumers is not None:
        missing = graph.missing
        for consumer in (consumers,) if isinstance(consumers, int) else consumers:
            if states[consumer] >= TASK_FINISHED:
                continue
            left = missing[consumer] - 1
            missing[consumer] = left
            if not left:
                if states[consumer] == NOT_ASSIGNED:
                    state.make_ready(session, consumer)
                elif flags[consumer] & AHEAD:
                    inputs_came(state, session, consumer)
    if session.watch:
        notify(state, session, obj)
    for one in graph.distinct_inputs.get(task) or graph.inputs[task]:
        left = needed[one] - 1
        needed[one] = left
        if not left and not flags[one] & KEEP and states[one] == FINISHED:
            object_unneeded(state, session, one)
    if not needed[obj] and not flags[obj] & KEEP:
        object_unneeded(state, session, obj)
    if session.watch:
        notify(state, session, task)
    if not session.unfinished and session.whole:
        notify(state, session, 0)
