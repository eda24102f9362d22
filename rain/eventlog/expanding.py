"""From records to the events they stand for, one by one as they are asked for (spec 10.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from rain.common.unpacking import unpack_bounded
from rain.eventlog.linked import members
from rain.eventlog.plain import json_ready, start_text
from rain.eventlog.records import MembersFinished, ObjectsUnkept, RunsFinished, RunsStarted, Submitted, TasksEnded
from rain.protocol.messages import INLINE, KEEP, SAME, UPLOADED, SubmitBlock

if TYPE_CHECKING:
    from rain.eventlog.packing import Batch
    from rain.protocol.messages import SubmitChunk

EventMap: TypeAlias = dict[str, Any]
Templates: TypeAlias = Callable[[int], bytes | None]
"""The packed template with a number of the session, None if it is not known."""

_CONSTANT = INLINE | UPLOADED | SAME
_PER_MEMBER = 3


def expand(record: Batch, templates: Templates, skip: int = 0) -> Iterator[EventMap]:
    """The events of a record, ready for JSON.

    Args:
        record: what was packed, or what `unpack` gave.
        templates: of its session, needed for submits.
        skip: leave out so many at the beginning; costs little.
    """
    if isinstance(record, RunsFinished):
        return _runs_finished(record, skip)
    if isinstance(record, MembersFinished):
        return _members_finished(record, skip)
    if isinstance(record, RunsStarted):
        return _runs_started(record, skip)
    if isinstance(record, TasksEnded):
        return _tasks_ended(record, skip)
    if isinstance(record, ObjectsUnkept):
        ids = [[record.session, number] for number in record.objects]
        return iter([{"type": "ClientUnkeep", "dataobjs": ids}][skip:])
    return iter(() if skip else (_submit(record, templates),))


# --- runs ---


def _started(session: int, task: int, worker: str, info: EventMap) -> EventMap:
    return {"type": "TaskStarted", "task": [session, task], "worker": worker, "governor": worker, "info": info}


def _finished(session: int, task: int, info: EventMap) -> EventMap:
    return {"type": "TaskFinished", "task": [session, task], "info": info}


def _object_finished(session: int, obj: int, worker: str, size: int) -> EventMap:
    return {
        "type": "DataObjectFinished",
        "dataobject": [session, obj],
        "worker": worker,
        "governor": worker,
        "size": size,
    }


def _runs_started(record: RunsStarted, skip: int) -> Iterator[EventMap]:
    for position in range(skip, len(record.tasks)):
        yield _started(record.session, record.tasks[position], record.worker, {})


def _tasks_ended(record: TasksEnded, skip: int) -> Iterator[EventMap]:
    for first, count in zip(record.firsts, record.counts, strict=True):
        for task in range(first + min(skip, count), first + count):
            yield {"type": record.type, "task": [record.session, task]}
        skip = max(0, skip - count)


def _runs_finished(record: RunsFinished, skip: int) -> Iterator[EventMap]:
    announced = set(record.announced)
    at = 0
    for position in range(len(record.tasks)):
        outputs = record.output_counts[position] if record.output_counts else 1
        is_new = position not in announced
        events = is_new + 1 + outputs
        if skip >= events:
            skip -= events
        else:
            found = _events_of_run(record, position, range(at, at + outputs), is_new=is_new)
            yield from found[skip:]
            skip = 0
        at += outputs


def _events_of_run(record: RunsFinished, position: int, outputs: range, *, is_new: bool) -> list[EventMap]:
    session, worker, task = record.session, record.worker, record.tasks[position]
    start = start_text(record.starts[position])
    info = {"start_time": start, "duration": json_ready(record.durations[position]), "governor": worker}
    packed = record.infos[position] if record.infos else None
    if packed is not None:
        info |= _told(packed)
    events = [_started(session, task, worker, {"start_time": start})] if is_new else []
    events.append(_finished(session, task, info))
    for at in outputs:
        events.append(_object_finished(session, record.outputs[at], worker, record.sizes[at]))
    return events


def _told(packed: bytes) -> EventMap:
    """What a worker told besides; what is no info tells nothing."""
    info = map_of(packed)
    return {key: info[key] for key in ("user", "debug") if info.get(key)}


def _members_finished(record: MembersFinished, skip: int) -> Iterator[EventMap]:
    # Counted as if the first member's TaskStarted were there.
    first, skip = divmod(skip + record.is_announced, _PER_MEMBER)
    session, worker, durations = record.session, record.worker, record.durations
    offsets = islice(accumulate(durations, initial=0.0), first, None)
    for index, offset in zip(range(first, len(durations)), offsets, strict=False):
        task, start = record.task + index, start_text(record.start + offset)
        info = {"start_time": start, "duration": json_ready(durations[index]), "governor": worker}
        events = [
            _started(session, task, worker, {"start_time": start}),
            _finished(session, task, info),
            _object_finished(session, record.output + index, worker, record.sizes[index]),
        ]
        yield from events[skip:]
        skip = 0


# --- submits ---


def _submit(record: Submitted, templates: Templates) -> EventMap:
    session = record.session
    known = _Templates(templates)
    declared = _declared(record)
    tasks: list[EventMap] = []
    objects: list[EventMap] = []
    for chunk in record.chunks:
        if not isinstance(chunk, SubmitBlock):
            _add_tasks(session, chunk, known, declared, tasks, objects)
        elif chunk.link:
            _add_members(session, chunk, known, tasks, objects)
        else:
            tasks.append(_block(session, chunk, known))
            objects.append(_block_outputs(session, chunk, known))
    outputs = {obj for chunk in record.chunks if not isinstance(chunk, SubmitBlock) for obj in chunk.outputs}
    for number, (flags, spec) in declared.items():
        if number not in outputs:
            objects.append(_object(session, number, spec, flags))
    return {"type": "ClientSubmit", "session": session, "tasks": tasks, "dataobjs": objects}


class _Templates:
    """Templates as maps for JSON, each read once."""

    def __init__(self, packed: Templates) -> None:
        self._packed = packed
        self._known: dict[int, tuple[EventMap, list[EventMap]]] = {}

    def get(self, number: int) -> tuple[EventMap, list[EventMap]]:
        """Fields of tasks, specs of their outputs."""
        found = self._known.get(number)
        if found is None:
            fields = map_of(self._packed(number) or b"")
            specs = fields.pop("outputs", None)
            specs = [spec if isinstance(spec, dict) else {} for spec in specs] if isinstance(specs, list) else []
            found = self._known[number] = fields, specs
        return found


def _declared(record: Submitted) -> dict[int, tuple[int, EventMap | None]]:
    """Flags and specs of the objects that the chunks list, by id."""
    declared: dict[int, tuple[int, EventMap | None]] = {}
    for chunk in record.chunks:
        if isinstance(chunk, SubmitBlock):
            continue
        for position, number in enumerate(chunk.objects):
            packed = chunk.object_specs[position] if chunk.object_specs else None
            declared[number] = chunk.object_flags[position], None if packed is None else map_of(packed)
    return declared


def _add_tasks(
    session: int,
    chunk: SubmitChunk,
    known: _Templates,
    declared: dict[int, tuple[int, EventMap | None]],
    tasks: list[EventMap],
    objects: list[EventMap],
) -> None:
    inputs_at = outputs_at = 0
    for position, task in enumerate(chunk.tasks):
        fields, specs = known.get(chunk.task_templates[position])
        inputs = chunk.inputs[inputs_at : (inputs_at := inputs_at + chunk.input_counts[position])]
        end = outputs_at + chunk.output_counts[position]
        outputs = chunk.outputs[outputs_at:end]
        entry = {"id": [session, task], **fields}
        args = chunk.args[position] if chunk.args else None
        if args is not None and "config" not in fields:
            entry["config"] = _value_of(args)
        entry["inputs"] = [[session, number] for number in inputs]
        entry["outputs"] = [[session, number] for number in outputs]
        tasks.append(entry)
        for place, number in enumerate(outputs):
            flags, spec = declared.get(number, (0, None))
            if spec is None:
                spec = specs[place] if place < len(specs) else {}
            objects.append(_object(session, number, spec, (flags | chunk.output_flags[outputs_at + place]) & KEEP))
        outputs_at = end


def _object(session: int, number: int, spec: EventMap | None, flags: int) -> EventMap:
    entry = {"id": [session, number], **(spec or {}), "keep": bool(flags & KEEP)}
    if flags & _CONSTANT:
        entry["constant"] = True
    return entry


def _block(session: int, block: SubmitBlock, known: _Templates) -> EventMap:
    """One entry for its members."""
    fields, _ = known.get(block.template)
    return {
        "id": [session, block.first + block.members + block.start],
        "count": len(block.arg_sizes),
        **fields,
        "inputs": [[session, number] for number in block.inputs],
        "outputs": [[session, block.first + block.start]],
    }


def _block_outputs(session: int, block: SubmitBlock, known: _Templates) -> EventMap:
    _, specs = known.get(block.template)
    entry = _object(session, block.first + block.start, specs[0] if specs else {}, KEEP if block.keep else 0)
    return {"id": entry.pop("id"), "count": len(block.arg_sizes), **entry}


def _add_members(
    session: int, block: SubmitBlock, known: _Templates, tasks: list[EventMap], objects: list[EventMap]
) -> None:
    """An entry for each member of a linked block, whose inputs are its own."""
    for member in members(block):
        fields, specs = known.get(member.template)
        inputs = [[session, number] for number in member.inputs]
        entry = {"id": [session, member.task], **fields, "inputs": inputs}
        tasks.append({**entry, "outputs": [[session, member.output]]})
        objects.append(_object(session, member.output, specs[0] if specs else {}, KEEP if member.is_kept else 0))


def map_of(packed: bytes) -> EventMap:
    """A packed map, for JSON; empty if it is damaged."""
    value = _value_of(packed)
    return value if isinstance(value, dict) else {}


def _value_of(packed: bytes) -> Any:
    try:
        return json_ready(unpack_bounded(packed, strict_map_key=False))
    except ValueError:
        return None
