"""Assignments: what the scheduler decided, as one message per worker and session."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.protocol.messages import AssignTasks
from rain.server.core.graph import ASSIGNED
from rain.server.core.waits import object_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rain.protocol.fields import Blobs
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker


def assign(state: ServerState, session: Session, worker: Worker, task: int) -> None:
    """Record that the worker gets the task, as its next run."""
    graph = session.graph
    template = session.templates[graph.template[task]]
    graph.state[task] = ASSIGNED
    graph.worker[task] = worker.incarnation
    graph.run[task] += 1
    session.ready -= 1
    worker.take(session.number, task, template.request, session.groups[graph.group[task]].expected)


def portions(state: ServerState, session: Session, tasks: list[int]) -> Iterator[list[int]]:
    """Cut tasks into portions whose arguments fit into one message."""
    args, budget = session.graph.args, state.options.message_budget
    begin = size = 0
    for position, task in enumerate(tasks):
        packed = args[task]
        if packed is not None:
            size += len(packed)
            if size > budget and position > begin:
                yield tasks[begin:position]
                begin, size = position, len(packed)
    yield tasks[begin:]


def assignment_message(
    state: ServerState, session: Session, worker: Worker, tasks: list[int], extra: Iterable[int] = ()
) -> AssignTasks:
    """The message for tasks recorded by `assign`; with `extra` objects the worker shall hold besides."""
    graph, number = session.graph, session.number
    session.workers.add(worker.incarnation)
    template_numbers, templates = array("I"), []
    input_counts, inputs, output_counts, outputs = array("I"), array("I"), array("I"), array("I")
    lacking: dict[int, None] = dict.fromkeys(extra)
    seen: tuple[int, ...] | None = None
    incarnation = worker.incarnation
    for task in tasks:
        template = graph.template[task]
        if (number, template) not in worker.templates:
            worker.templates.add((number, template))
            template_numbers.append(template)
            templates.append(session.templates[template].packed)
        ins, outs = graph.inputs[task], graph.outputs_of(task)
        input_counts.append(len(ins))
        inputs.extend(ins)
        output_counts.append(len(outs))
        outputs.extend(outs)
        if ins is not seen:
            seen = ins
            for obj in ins:
                known = graph.replicas[obj]
                if known != incarnation and (known is None or isinstance(known, int) or incarnation not in known):
                    lacking[obj] = None
    args: Blobs = [graph.args[task] for task in tasks]
    solo = array("I", [task for task in tasks if task in session.attempts_lost])
    objects = list(lacking)
    specs, infos, values, holders = _inputs(state, session, worker, objects)
    return AssignTasks(
        session=number,
        template_numbers=template_numbers,
        templates=templates,
        tasks=array("I", tasks),
        runs=array("I", [graph.run[task] for task in tasks]),
        task_templates=array("I", [graph.template[task] for task in tasks]),
        args=args if any(a is not None for a in args) else [],
        input_counts=input_counts,
        inputs=inputs,
        output_counts=output_counts,
        outputs=outputs,
        solo=solo,
        objects=array("I", objects),
        sizes=array("Q", [graph.size[obj] for obj in objects]),
        specs=specs,
        infos=infos,
        values=values,
        holders=holders,
    )


def _inputs(
    state: ServerState, session: Session, worker: Worker, objects: list[int]
) -> tuple[Blobs, Blobs, Blobs, list[list[str]]]:
    """What the worker must know of inputs it does not hold; inline values count as its copies at once."""
    graph = session.graph
    specs: Blobs = []
    infos: Blobs = []
    values: Blobs = []
    holders: list[list[str]] = []
    budget = state.options.message_budget
    for obj in objects:
        specs.append(object_spec(session, obj))
        infos.append(graph.info.get(obj))
        value = graph.value[obj]
        if value is not None and len(value) < state.options.inline_limit and len(value) <= budget:
            budget -= len(value)
            values.append(value)
            holders.append([])
            graph.add_replica(obj, worker.incarnation)
            continue
        values.append(None)
        addresses = [state.workers[w].worker_id for w in sorted(graph.replicas_of(obj)) if w in state.workers]
        if graph.at_server(obj):
            addresses.append(worker.local)
        holders.append(addresses)
    return specs, infos, values, holders
