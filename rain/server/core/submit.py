"""Submits: staged in chunks, checked as a whole, applied as a whole (spec 6.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rain.protocol.messages import INLINE, KEEP, SAME, UPLOADED, SubmitChunk
from rain.server.core.actions import ShareConstant, WriteConstant
from rain.server.core.ending import abort_submitted
from rain.server.core.graph import AT_STORE, CONSTANT, FINISHED, MAX_ID, NOT_ASSIGNED, OBJECT, TASK, UNFINISHED, Graph
from rain.server.core.placing import place_constants
from rain.server.core.retention import object_unneeded
from rain.server.core.session import DurationGroup, Session, Template
from rain.server.core.staging import StagedSubmit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.server.core.state import ServerState


HAS_DATA = INLINE | UPLOADED | SAME


class InvalidSubmitError(Exception):
    """The submit is refused; nothing of it exists. The text names the id."""


@dataclass(slots=True)
class NewTask:
    """A task of a submit, checked."""

    number: int
    template: int
    args: bytes | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    level: int = 0


@dataclass(slots=True)
class Plan:
    """A checked submit. numbers: ids of the tasks. flags, specs, values: by object id; same: the
    constant an object is equal to."""

    templates: list[Template] = field(default_factory=list)
    tasks: list[NewTask] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    flags: dict[int, int] = field(default_factory=dict)
    specs: dict[int, bytes] = field(default_factory=dict)
    values: dict[int, bytes] = field(default_factory=dict)
    same: dict[int, int] = field(default_factory=dict)
    producer: dict[int, NewTask] = field(default_factory=dict)
    highest: int = 0


def stage_chunk(session: Session, chunk: SubmitChunk) -> None:
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
    plan = _read(session, staged.chunks)
    _check_inputs(session, plan)
    _apply(state, session, plan)


def _read(session: Session, chunks: list[SubmitChunk]) -> Plan:
    plan = Plan()
    try:
        for chunk in chunks:
            plan.templates += [Template(packed) for packed in chunk.templates]
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidSubmitError(f"a task template is not well formed: {error}") from error
    template_count = len(session.templates) + len(plan.templates)
    for chunk in chunks:
        _read_objects(session, chunk, plan)
        _read_tasks(session, chunk, plan, template_count)
    for number, flags in plan.flags.items():
        if bool(flags & HAS_DATA) == (number in plan.producer):
            why = "both data and a producer" if flags & HAS_DATA else "neither data nor a producer"
            raise InvalidSubmitError(f"data object {session.number}/{number} has {why}")
    return plan


def _check_ids(session: Session, plan: Plan, numbers: Sequence[int]) -> None:
    """New ids are in range and not in use; looked at one by one only where some are not beyond all known ones."""
    if not numbers:
        return
    graph = session.graph
    limit = min(MAX_ID, len(graph) + 2 * len(plan.tasks) + len(plan.flags) + (1 << 20))
    plan.highest = max(plan.highest, max(numbers))
    if min(numbers) >= max(len(graph), 1) and plan.highest < limit:
        return
    for number in numbers:
        if not 0 < number < limit:
            raise InvalidSubmitError(f"id {session.number}/{number} is out of range")
        if number < len(graph) and graph.kind[number]:
            raise InvalidSubmitError(f"id {session.number}/{number} is already in use")


def _read_objects(session: Session, chunk: SubmitChunk, plan: Plan) -> None:
    if len(chunk.objects) != len(chunk.object_flags):
        raise InvalidSubmitError("columns of data objects differ in length")
    values = iter(chunk.values)
    _check_ids(session, plan, chunk.objects)
    for position, number in enumerate(chunk.objects):
        taken = number in plan.numbers or number in plan.specs
        if taken or (number in plan.flags and number not in plan.producer):
            raise InvalidSubmitError(f"id {session.number}/{number} is used twice")
        flags = chunk.object_flags[position]
        plan.flags[number] = flags | plan.flags.get(number, 0)
        spec = chunk.object_specs[position] if chunk.object_specs else None
        if spec is not None:
            plan.specs[number] = spec
        if flags & (INLINE | SAME):
            value = next(values, None)
            if value is None:
                raise InvalidSubmitError(f"data object {session.number}/{number} has no data")
            if flags & SAME:
                plan.same[number] = _source_of(session, plan, number, value)
            else:
                plan.values[number] = value
        elif flags & UPLOADED:
            received, total = session.uploads.get(number, (0, -1))
            if received != total:
                raise InvalidSubmitError(f"data object {session.number}/{number} was not uploaded completely")


def _source_of(session: Session, plan: Plan, number: int, packed: bytes) -> int:
    """The constant whose value the object `number` shares; it is of this submit, or its data is still here."""
    source = int.from_bytes(packed, "little")
    graph = session.graph
    known = graph.is_object(source) and graph.flags[source] & CONSTANT and graph.at_server(source)
    if not known and (source == number or not plan.flags.get(source, 0) & (INLINE | UPLOADED)):
        raise InvalidSubmitError(f"data object {session.number}/{number} is equal to {source}, which has no data here")
    return source


def _read_tasks(session: Session, chunk: SubmitChunk, plan: Plan, template_count: int) -> None:
    all_inputs, all_outputs = chunk.inputs.tolist(), chunk.outputs.tolist()
    args = chunk.args
    count = len(chunk.tasks)
    if not (len(chunk.task_templates) == len(chunk.input_counts) == len(chunk.output_counts) == count) or (
        len(args) not in (0, count) or len(chunk.output_flags) != len(all_outputs)
    ):
        raise InvalidSubmitError("columns of tasks differ in length")
    if sum(chunk.input_counts) != len(all_inputs) or sum(chunk.output_counts) != len(all_outputs):
        raise InvalidSubmitError("columns of tasks differ in length")
    _check_ids(session, plan, chunk.tasks)
    _check_ids(session, plan, chunk.outputs)
    numbers = plan.numbers
    at_input = at_output = 0
    last_inputs: tuple[int, ...] = ()
    for position, number in enumerate(chunk.tasks):
        template = chunk.task_templates[position]
        if template >= template_count:
            raise InvalidSubmitError(f"task {session.number}/{number} names an unknown template")
        end_input, end_output = at_input + chunk.input_counts[position], at_output + chunk.output_counts[position]
        inputs = tuple(all_inputs[at_input:end_input])
        if inputs == last_inputs:
            inputs = last_inputs
        last_inputs = inputs
        outputs = tuple(all_outputs[at_output:end_output])
        task = NewTask(number, template, args[position] if args else None, inputs, outputs)
        if number in numbers or number in plan.flags:
            raise InvalidSubmitError(f"id {session.number}/{number} is used twice")
        numbers.add(number)
        plan.tasks.append(task)
        for k, obj in enumerate(outputs):
            if obj in plan.producer:
                raise InvalidSubmitError(f"data object {session.number}/{obj} is the output of two tasks")
            if obj in numbers:
                raise InvalidSubmitError(f"id {session.number}/{obj} is used twice")
            plan.producer[obj] = task
            plan.flags[obj] = plan.flags.get(obj, 0) | (chunk.output_flags[at_output + k] & KEEP)
        at_input, at_output = end_input, end_output


def _check_inputs(session: Session, plan: Plan) -> None:
    """Every input exists, and the new part is acyclic; sets the levels."""
    graph, flags, producer = session.graph, plan.flags, plan.producer
    done: set[int] = set()
    late: list[NewTask] = []
    for task in plan.tasks:
        level = 0
        for obj in task.inputs:
            made_by = producer.get(obj)
            if made_by is not None:
                if made_by.number not in done:
                    level = -1
                    break
                if made_by.level >= level:
                    level = made_by.level + 1
            elif obj not in flags:
                known = _level_of_known(session, graph, task, obj)
                if known > level:
                    level = known
        if level < 0:
            late.append(task)
        else:
            task.level = level
            done.add(task.number)
    if late:
        _order_late(session, plan, late, done)


def _level_of_known(session: Session, graph: Graph, task: NewTask, obj: int) -> int:
    """Level that an input of an earlier submit implies."""
    if not graph.is_object(obj):
        raise InvalidSubmitError(f"input {session.number}/{obj} of task {session.number}/{task.number} does not exist")
    if not graph.is_kept(obj):
        raise InvalidSubmitError(
            f"input {session.number}/{obj} of task {session.number}/{task.number} comes from an earlier submit and "
            "is not kept: call keep() before its submit"
        )
    made_by = graph.producer[obj]
    return graph.level[made_by] + 1 if made_by else 0


def _order_late(session: Session, plan: Plan, late: list[NewTask], done: set[int]) -> None:
    """Levels of tasks that come before their inputs' producers; refuses cycles."""
    waiting: dict[int, int] = {}
    followers: dict[int, list[NewTask]] = {}
    for task in late:
        before = {made_by.number for obj in task.inputs if (made_by := plan.producer.get(obj)) is not None}
        before -= done
        waiting[task.number] = len(before)
        for number in before:
            followers.setdefault(number, []).append(task)
    free = [task for task in late if not waiting[task.number]]
    placed = 0
    while free:
        task = free.pop()
        placed += 1
        level = 0
        for obj in task.inputs:
            made_by = plan.producer.get(obj)
            if made_by is not None:
                level = max(level, made_by.level + 1)
            elif obj not in plan.flags:
                level = max(level, _level_of_known(session, session.graph, task, obj))
        task.level = level
        for follower in followers.get(task.number, ()):
            waiting[follower.number] -= 1
            if not waiting[follower.number]:
                free.append(follower)
    if placed < len(late):
        stuck = min(number for number, count in waiting.items() if count)
        raise InvalidSubmitError(f"task {session.number}/{stuck} is part of a cycle")


def _apply(state: ServerState, session: Session, plan: Plan) -> None:
    graph = session.graph
    graph.grow(plan.highest + 1)
    session.templates += plan.templates
    graph.spec.update(plan.specs)
    for number in plan.flags:
        graph.kind[number] = OBJECT
    for number, flags in plan.flags.items():
        graph.flags[number] = flags & KEEP
        if flags & (INLINE | UPLOADED):
            _apply_constant(state, session, number, flags, plan)
    for number, source in plan.same.items():
        _share_constant(state, session, number, source)
    for task in plan.tasks:
        _apply_task(session, task)
    session.unfinished += len(plan.tasks)
    if state.options.test_mode and plan.specs:
        place_constants(state, session, plan.specs)
    if session.blame:
        abort_submitted(state, session, [task.number for task in plan.tasks])
    for task in plan.tasks:
        if graph.state[task.number] == NOT_ASSIGNED and not graph.missing[task.number]:
            state.make_ready(session, task.number)
    for number, flags in plan.flags.items():
        if flags & HAS_DATA and not graph.is_needed(number):
            object_unneeded(state, session, number)


def _apply_constant(state: ServerState, session: Session, number: int, flags: int, plan: Plan) -> None:
    graph = session.graph
    graph.flags[number] |= CONSTANT
    graph.state[number] = FINISHED
    if flags & UPLOADED:
        graph.size[number] = session.uploads.pop(number)[1]
        graph.flags[number] |= AT_STORE
        return
    value = plan.values[number]
    graph.size[number] = len(value)
    if len(value) < state.options.constant_memory:
        graph.value[number] = value
    else:
        graph.flags[number] |= AT_STORE
        state.actions.append(WriteConstant(session.number, number, 0, len(value), value))


def _share_constant(state: ServerState, session: Session, number: int, source: int) -> None:
    graph = session.graph
    graph.flags[number] |= CONSTANT | (graph.flags[source] & AT_STORE)
    graph.state[number] = FINISHED
    graph.size[number] = graph.size[source]
    graph.value[number] = graph.value[source]
    if graph.flags[source] & AT_STORE:
        state.actions.append(ShareConstant(session.number, number, source))


def _apply_task(session: Session, task: NewTask) -> None:
    graph, number = session.graph, task.number
    graph.kind[number] = TASK
    graph.state[number] = NOT_ASSIGNED
    graph.template[number] = task.template
    graph.args[number] = task.args
    graph.set_outputs(number, task.outputs)
    graph.level[number] = task.level
    for obj in task.outputs:
        graph.producer[obj] = number
        graph.state[obj] = UNFINISHED
    missing = 0
    for obj in graph.set_inputs(number, task.inputs):
        graph.add_consumer(obj, number)
        graph.needed[obj] += 1
        graph.pins[obj] += 1
        if graph.state[obj] != FINISHED:
            missing += 1
    graph.missing[number] = missing
    graph.group[number] = _group(session, task)


def _group(session: Session, task: NewTask) -> int:
    """Tasks with the same function are expected to take the same time, others by template."""
    template = session.templates[task.template]
    key = (template.type, task.inputs[0]) if template.is_python and task.inputs else task.template
    group = session.group_keys.get(key)
    if group is None:
        group = session.group_keys[key] = len(session.groups)
        session.groups.append(DurationGroup())
    return group
