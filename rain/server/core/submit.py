"""Submits: staged in chunks, checked as a whole, applied as a whole (spec 6.1)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rain.protocol.messages import INLINE, KEEP, UPLOADED
from rain.server.core import recording
from rain.server.core.actions import ShareConstant, WriteConstant
from rain.server.core.blocks import spec_of_output
from rain.server.core.ending import abort_submitted
from rain.server.core.graph import AT_STORE, CONSTANT, FINISHED, NOT_ASSIGNED, OBJECT, TASK, UNFINISHED
from rain.server.core.placing import place_constants
from rain.server.core.plan import Plan
from rain.server.core.renumber import Renumbered, renumber
from rain.server.core.retention import object_unneeded
from rain.server.core.session import DurationGroup, Session, Template
from rain.server.core.staging import InvalidSubmitError, StagedSubmit

if TYPE_CHECKING:
    from rain.protocol.messages import SubmitBlock, SubmitChunk
    from rain.server.core.blocks import Block
    from rain.server.core.state import ServerState


def stage_chunk(session: Session, chunk: SubmitChunk | SubmitBlock) -> None:
    """Keep a chunk until the commit."""
    if session.staged is None:
        session.staged = StagedSubmit()
    session.staged.chunks.append(chunk)


def commit(state: ServerState, session: Session) -> None:
    """Check and apply what was staged.

    Raises:
        InvalidSubmitError: nothing was changed.
    """
    staged, session.staged = session.staged, None
    if staged is None:
        return
    if staged.error is not None:
        raise InvalidSubmitError(staged.error)
    renumbered = renumber(session, staged.chunks)
    plan = Plan(session, renumbered.chunks, renumbered.id)
    _check_arrays(session, plan, renumbered)
    renumbered.commit(session)
    recording.submitted(state, session, len(session.templates), staged.chunks)
    _apply(state, session, plan, [block for block in renumbered.blocks if block.link is not None])


def _check_arrays(session: Session, plan: Plan, renumbered: Renumbered) -> None:
    """The template of an array has one output."""
    templates = [*session.templates, *plan.templates] if renumbered.blocks else []
    links = {block.row: block.link for block in renumbered.blocks if block.link is not None}
    for chunk in renumbered.chunks if renumbered.blocks else ():
        if chunk.tasks and renumbered.names.get(chunk.tasks[0]) is not None:
            row = chunk.tasks[0]
            used = links[row].templates if row in links else [chunk.task_templates[0]]
            if not all(number < len(templates) and len(templates[number].output_specs) == 1 for number in used):
                name = f"{session.number}/{renumbered.id(row)}"
                raise InvalidSubmitError(f"the members of the task array of {name} do not have one output")
            if row in links and (links[row].template(0) != chunk.task_templates[0] or not _are_calls(templates, used)):
                name = f"{session.number}/{renumbered.id(row)}"
                raise InvalidSubmitError(f"the members of the linked block of {name} are not calls of Python functions")


def _apply(state: ServerState, session: Session, plan: Plan, linked: list[Block]) -> None:
    graph = session.graph
    graph.grow(plan.highest + 1)
    session.templates += plan.templates
    graph.spec.update(plan.specs)
    for number in plan.objects():
        graph.kind[number] = OBJECT
        graph.flags[number] = plan.flags(number) & KEEP
    for number, flags in plan.constants.items():
        if flags & (INLINE | UPLOADED):
            _apply_constant(state, session, number, plan.values.get(number))
    for number, source in plan.same.items():
        _share_constant(state, session, number, source)
    _apply_tasks(session, plan)
    for block in linked:
        _apply_link(session, block)
    session.unfinished += len(plan.inputs)
    if state.options.test_mode and plan.specs:
        place_constants(state, session, plan.specs)
    if session.blame:
        abort_submitted(state, session, list(plan.tasks()))
    for task in plan.tasks():
        if not graph.missing[task] and graph.state[task] == NOT_ASSIGNED:
            state.make_ready(session, task)
    for number in plan.constants:
        if not graph.is_needed(number):
            object_unneeded(state, session, number)


def _apply_constant(state: ServerState, session: Session, number: int, value: bytes | None) -> None:
    """A constant whose value came inline, or (None) in pieces."""
    graph = session.graph
    graph.flags[number] |= CONSTANT
    graph.state[number] = FINISHED
    if value is None:
        graph.size[number] = session.uploads.pop(graph.numbering.id(number))[1]
        graph.flags[number] |= AT_STORE
        return
    graph.size[number] = len(value)
    if len(value) < state.options.constant_memory:
        graph.value[number] = value
    else:
        graph.flags[number] |= AT_STORE
        name = graph.numbering.id(number)
        state.actions.append(WriteConstant(session.number, name, 0, len(value), value))


def _share_constant(state: ServerState, session: Session, number: int, source: int) -> None:
    graph = session.graph
    graph.flags[number] |= CONSTANT | (graph.flags[source] & AT_STORE)
    graph.state[number] = FINISHED
    graph.size[number] = graph.size[source]
    graph.value[number] = graph.value[source]
    if graph.flags[source] & AT_STORE:
        names = graph.numbering.ids([number, source])
        state.actions.append(ShareConstant(session.number, names[0], names[1]))


def _apply_tasks(session: Session, plan: Plan) -> None:
    """Outputs first, so that the states of all inputs are known."""
    graph = session.graph
    for chunk in plan.chunks:
        outputs, at = chunk.outputs, 0
        for row, task in enumerate(chunk.tasks):
            end = at + chunk.output_counts[row]
            own = tuple(outputs[at:end])
            at = end
            graph.kind[task] = TASK
            graph.state[task] = NOT_ASSIGNED
            graph.template[task] = chunk.task_templates[row]
            graph.level[task] = plan.level(task)
            if chunk.args:
                graph.args[task] = chunk.args[row]
            graph.set_outputs(task, own)
            for obj in own:
                graph.producer[obj] = task
                graph.state[obj] = UNFINISHED
    groups: tuple[int, tuple[int, ...], int] | None = None
    for task, inputs in zip(plan.tasks(), plan.inputs, strict=True):
        missing = 0
        for obj in graph.set_inputs(task, inputs):
            graph.add_consumer(obj, task)
            graph.needed[obj] += 1
            graph.pins[obj] += 1
            if graph.state[obj] != FINISHED:
                missing += 1
        graph.missing[task] = missing
        template = graph.template[task]
        if groups is None or groups[0] != template or groups[1] is not inputs:
            groups = (template, inputs, _group(session, template, inputs))
        graph.group[task] = groups[2]


def _apply_link(session: Session, block: Block) -> None:
    graph, link = session.graph, block.link
    assert link is not None
    inputs = graph.inputs[block.row]
    kind = session.templates[link.templates[0]].type
    counts = Counter(link.functions())
    block.groups = [(_group_of(session, (kind, inputs[one])), count) for one, count in counts.items()]
    graph.group[block.row] = block.groups[0][0]
    for index, row in block.claimed.items():
        spec = spec_of_output(session, block, index)
        if spec is not None:
            graph.spec[row] = spec


def _are_calls(templates: list[Template], used: list[int]) -> bool:
    """Whether these are calls of Python functions, of one type."""
    return templates[used[0]].is_python and len({templates[number].type for number in used}) == 1


def _group(session: Session, number: int, inputs: tuple[int, ...]) -> int:
    """Tasks with the same function are expected to take the same time, others by template."""
    template = session.templates[number]
    return _group_of(session, (template.type, inputs[0]) if template.is_python and inputs else number)


def _group_of(session: Session, key: tuple[str, int] | int) -> int:
    group = session.group_keys.get(key)
    if group is None:
        group = session.group_keys[key] = len(session.groups)
        session.groups.append(DurationGroup())
    return group
