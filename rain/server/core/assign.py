"""Assignments: what the scheduler decided, as one message per worker and session."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.protocol.messages import AssignTasks
from rain.server.core.blocks import expected_seconds
from rain.server.core.fetches import object_spec
from rain.server.core.graph import AHEAD, ASSIGNED, FINISHED
from rain.server.core.linked import assigned_link

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
    expected = expected_seconds(session, task) if graph.blocks else session.groups[graph.group[task]].expected
    worker.take(session.number, task, template.request, expected)


def assign_ahead(session: Session, worker: Worker, task: int) -> None:
    """Record that the worker gets a task that waits for others, which the worker has, as its next run."""
    graph = session.graph
    graph.state[task] = ASSIGNED
    graph.flags[task] |= AHEAD
    graph.worker[task] = worker.incarnation
    graph.run[task] += 1
    worker.take(session.number, task, None, session.groups[graph.group[task]].expected)


def portions(state: ServerState, session: Session, tasks: list[int]) -> Iterator[list[int]]:
    """Cut tasks into portions whose arguments fit into one message."""
    args, blocks, budget = session.graph.args, session.graph.blocks, state.options.message_budget
    begin = size = 0
    for position, task in enumerate(tasks):
        packed = args[task]
        own = blocks[task].sent_size if blocks and task in blocks else 0 if packed is None else len(packed)
        size += own
        if size > budget and position > begin:
            yield tasks[begin:position]
            begin, size = position, own
    yield tasks[begin:]


def assignment_message(
    state: ServerState, session: Session, worker: Worker, tasks: list[int], extra: Iterable[int] = ()
) -> AssignTasks:
    """The message for tasks recorded by `assign`; with `extra` objects the worker shall hold besides."""
    graph, blocks = session.graph, session.graph.blocks
    session.workers.add(worker.incarnation)
    template_numbers, templates = _new_templates(session, worker, tasks)
    input_counts, inputs, output_counts, outputs = array("I"), array("I"), array("I"), array("I")
    lacking: dict[int, None] = dict.fromkeys(extra)
    seen: tuple[int, ...] | None = None
    incarnation = worker.incarnation
    for task in tasks:
        ins = graph.inputs[task]
        outs = graph.outputs_of(task) if task not in blocks else _TO_BE_NAMED
        input_counts.append(len(ins))
        inputs.extend(ins)
        output_counts.append(len(outs))
        outputs.extend(outs)
        if ins is not seen:
            seen = ins
            for obj in ins:
                known = graph.replicas[obj]
                if known == incarnation or graph.state[obj] != FINISHED:  # else it will be made there
                    continue
                if known is None or isinstance(known, int) or incarnation not in known:
                    lacking[obj] = None
    objects = list(lacking)
    specs, infos, values, holders = _inputs(state, session, worker, objects)
    own_specs = [graph.spec.get(obj) for obj in outputs] if graph.spec else []
    ids = graph.numbering.ids
    args: Blobs = [graph.args[task] for task in tasks]
    outputs = ids(outputs)
    members = _name_blocks(session, tasks, args, output_counts, outputs) if blocks else array("I")
    links = _links(session, tasks) if blocks else []
    return AssignTasks(
        session=session.number,
        template_numbers=template_numbers,
        templates=templates,
        tasks=ids(tasks),
        runs=array("I", [graph.run[task] for task in tasks]),
        task_templates=array("I", [graph.template[task] for task in tasks]),
        args=args if any(a is not None for a in args) else [],
        input_counts=input_counts,
        inputs=ids(inputs),
        output_counts=output_counts,
        outputs=outputs,
        solo=ids([task for task in tasks if task in session.attempts_lost]),
        objects=ids(objects),
        sizes=array("Q", [graph.size[obj] for obj in objects]),
        specs=specs,
        infos=infos,
        values=values,
        holders=holders,
        members=members,
        output_specs=own_specs if any(own_specs) else [],
        links=links,
    )


_TO_BE_NAMED = (0,)
"""Stands for the output of a block, which has no row."""


def _new_templates(session: Session, worker: Worker, tasks: list[int]) -> tuple[array[int], list[bytes]]:
    """Numbers and texts of the templates that the worker does not know."""
    graph, number = session.graph, session.number
    numbers, templates = array("I"), []
    used = dict.fromkeys([graph.template[task] for task in tasks])
    for block in map(graph.blocks.get, tasks) if graph.blocks else ():
        if block is not None and block.link is not None:
            used.update(dict.fromkeys(block.link.templates))
    for template in used:
        if (number, template) not in worker.templates:
            worker.templates.add((number, template))
            numbers.append(template)
            templates.append(session.templates[template].packed)
    return numbers, templates


def _name_blocks(
    session: Session, tasks: list[int], args: Blobs, output_counts: array[int], outputs: array[int]
) -> array[int]:
    """Put in what blocks have instead of rows; returns the column of members, empty without blocks."""
    blocks = session.graph.blocks
    members = array("I", bytes(4 * len(tasks)))
    at = 0
    for k, task in enumerate(tasks):
        block = blocks.get(task)
        if block is not None:
            members[k] = block.count
            args[k] = block.packed_args
            outputs[at] = block.output
        at += output_counts[k]
    return members if any(members) else array("I")


def _links(session: Session, tasks: list[int]) -> Blobs:
    """The column of links, empty without linked blocks."""
    blocks = map(session.graph.blocks.get, tasks)
    links = [None if block is None or block.link is None else assigned_link(block) for block in blocks]
    return links if any(links) else []


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
