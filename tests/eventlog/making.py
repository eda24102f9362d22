"""Records of all kinds, and what they mean, said in the simplest way."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from typing import Any

import msgpack
from hypothesis import strategies as st

from rain.eventlog.packing import Batch
from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)
from rain.protocol import messages as m
from rain.testing.linking import LinkedMember, linked_block

NUMBERS = st.integers(0, (1 << 32) - 1)
SIZES = st.integers(0, (1 << 64) - 1)
SECONDS = st.floats(0, 1e9)
TEXTS = st.text(max_size=8)
WORKERS = st.sampled_from(["127.0.0.1:40000", "[::1]:7", "host:1"])
SESSIONS = st.integers(1, 1000)


def u32(numbers: Any = ()) -> array[int]:
    """A column of ids."""
    return array("I", numbers)


def columns(count: int) -> st.SearchStrategy[array[int]]:
    """Any numbers, or evenly rising ones, which are stored in another way."""
    steps = st.tuples(st.integers(0, 1 << 20), st.integers(0, 3))
    even = steps.map(lambda pair: u32(pair[0] + pair[1] * k for k in range(count)))
    return st.one_of(st.lists(NUMBERS, min_size=count, max_size=count).map(u32), even)


@st.composite
def runs_finished(draw: st.DrawFn) -> RunsFinished:
    count = draw(st.integers(0, 6))
    counts = draw(st.one_of(st.none(), st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    outputs = count if counts is None else sum(counts)
    infos = st.one_of(st.none(), st.just(b"\xc1"), st.builds(lambda u, d: pack(user=u, debug=d), USER, TEXTS))
    seconds = st.lists(SECONDS, min_size=count, max_size=count)
    return RunsFinished(
        draw(SESSIONS),
        draw(WORKERS),
        draw(columns(count)),
        draw(columns(count)),
        array("d", draw(seconds)),
        array("d", draw(seconds)),
        draw(st.one_of(st.just([]), st.lists(infos, min_size=count, max_size=count))),
        u32(counts or ()) if outputs or counts else u32(),
        draw(columns(outputs)),
        array("Q", draw(st.lists(SIZES, min_size=outputs, max_size=outputs))),
        u32(sorted(draw(st.sets(st.integers(0, count - 1))))) if count else u32(),
    )


@st.composite
def members_finished(draw: st.DrawFn) -> MembersFinished:
    count = draw(st.integers(1, 6))
    return MembersFinished(
        draw(SESSIONS),
        draw(WORKERS),
        draw(st.integers(0, 1 << 31)),
        draw(st.integers(0, 1 << 31)),
        draw(st.integers(1, 9)),
        draw(SECONDS),
        array("f", draw(st.lists(st.floats(0, 100, width=32), min_size=count, max_size=count))),
        array("I", draw(columns(count))),
        draw(st.booleans()),
    )


@st.composite
def runs_started(draw: st.DrawFn) -> RunsStarted:
    count = draw(st.integers(0, 6))
    return RunsStarted(draw(SESSIONS), draw(WORKERS), draw(columns(count)), draw(columns(count)))


@st.composite
def tasks_ended(draw: st.DrawFn) -> TasksEnded:
    counts = draw(st.lists(st.integers(0, 4), max_size=4))
    firsts = u32(draw(st.integers(0, 1 << 20)) for _ in counts)
    return TasksEnded(draw(SESSIONS), draw(st.sampled_from(["TaskCancelled", "TaskAborted"])), firsts, u32(counts))


@st.composite
def objects_unkept(draw: st.DrawFn) -> ObjectsUnkept:
    return ObjectsUnkept(draw(SESSIONS), draw(columns(draw(st.integers(1, 5)))))


USER = st.dictionaries(TEXTS, st.one_of(st.none(), st.booleans(), st.integers(0, 99), TEXTS), max_size=2)
SPECS = st.fixed_dictionaries({}, optional={"label": TEXTS, "content_type": TEXTS, "user": USER})


def pack(**fields: Any) -> bytes:
    """A packed map."""
    packed: bytes = msgpack.packb(fields)
    return packed


@st.composite
def templates(draw: st.DrawFn) -> bytes:
    """Of tasks whose args are their config, or of Python calls."""
    fields = draw(st.fixed_dictionaries({"task_type": TEXTS}, optional={"name": TEXTS, "user": USER, "config": USER}))
    return pack(**fields, outputs=draw(st.lists(SPECS, max_size=2)))


@st.composite
def submits(draw: st.DrawFn) -> Submitted:
    """One chunk, perhaps followed by a block, which may be linked."""
    packed = draw(st.lists(templates(), min_size=1, max_size=3))
    first_template = draw(st.integers(0, 5))
    numbers = st.integers(first_template, first_template + len(packed) - 1)
    session, next_id = draw(SESSIONS), 10
    columns: dict[str, list[Any]] = {name: [] for name in m.SubmitChunk.__slots__}
    constants = draw(st.integers(0, 3))
    objects = list(range(next_id, next_id + constants))
    next_id += constants
    flags = draw(st.lists(st.sampled_from([m.INLINE, m.SAME | m.KEEP, m.UPLOADED]), min_size=constants, max_size=9))
    flags = flags[:constants]
    for _ in range(draw(st.integers(0, 3))):
        inputs = draw(st.lists(st.sampled_from([7, *objects]), max_size=3))
        outputs = list(range(next_id, next_id + draw(st.integers(0, 2))))
        columns["outputs"] += outputs
        columns["output_counts"].append(len(outputs))
        columns["inputs"] += inputs
        columns["input_counts"].append(len(inputs))
        next_id += len(outputs)
        columns["tasks"].append(next_id)
        next_id += 1
        columns["task_templates"].append(draw(numbers))
        columns["args"].append(draw(st.one_of(st.none(), USER.map(lambda user: pack(**user)))))
    if columns["outputs"] and draw(st.booleans()):
        objects.append(columns["outputs"][0])
        flags.append(m.KEEP)
    specs = [draw(st.one_of(st.none(), SPECS.map(lambda spec: pack(**spec)))) for _ in objects]
    keep = draw(st.lists(st.sampled_from([0, m.KEEP]), min_size=len(columns["outputs"]), max_size=99))
    numeric = ("tasks", "task_templates", "input_counts", "inputs", "output_counts", "outputs")
    chunk = m.SubmitChunk(
        session=session,
        templates=packed,
        args=columns["args"] if any(arg is not None for arg in columns["args"]) else [],
        output_flags=bytes(keep[: len(columns["outputs"])]),
        objects=u32(objects),
        object_flags=bytes(flags),
        object_specs=specs if any(specs) else [],
        values=[b"value"] * sum(1 for flag in flags if flag & (m.INLINE | m.SAME)),
        **{name: u32(columns[name]) for name in numeric},
    )
    chunks: list[m.SubmitChunk | m.SubmitBlock] = [chunk]
    if draw(st.booleans()):
        chunks.append(draw(linked_blocks(session, numbers)))
    elif draw(st.booleans()):
        members = draw(st.integers(1, 9))
        start = draw(st.integers(0, members - 1))
        sizes = u32([1] * draw(st.integers(1, members - start)))
        args = b"\x90" * len(sizes)
        inputs = u32([7])
        template = draw(numbers)
        block = m.SubmitBlock(session, [], template, 100, members, start, inputs, draw(st.booleans()), args, sizes)
        chunks.append(block)
    return Submitted(session, first_template, chunks)


@st.composite
def linked_blocks(draw: st.DrawFn, session: int, numbers: st.SearchStrategy[int]) -> m.SubmitBlock:
    first, start, count = 100, draw(st.integers(0, 3)), draw(st.integers(1, 6))
    chosen = []
    for position in range(count):
        usable = [7, 8, 9, *range(first + start, first + start + position)]
        inputs = (draw(st.sampled_from([7, 8])), *draw(st.lists(st.sampled_from(usable), max_size=3)))
        chosen.append(LinkedMember(draw(numbers), inputs, draw(st.booleans()), b"\x90"))
    return linked_block(session, [], first, start + count + draw(st.integers(0, 2)), start, chosen)


BATCHES: dict[str, st.SearchStrategy[Batch]] = {
    "finished": runs_finished(),
    "members": members_finished(),
    "started": runs_started(),
    "ended": tasks_ended(),
    "unkept": objects_unkept(),
    "submit": submits(),
}
ANY_BATCH = st.one_of(*BATCHES.values())


@st.composite
def single_events(draw: st.DrawFn) -> Event:
    session = draw(st.one_of(st.none(), SESSIONS))
    return Event(draw(st.sampled_from(["WorkerNew", "SessionNew", "TaskFinished"])), session, {"note": draw(TEXTS)})


# --- what they mean ---


def moment(seconds: float) -> str:
    """RFC 3339."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def templates_of(record: Batch) -> dict[int, bytes]:
    """By number."""
    if not isinstance(record, Submitted):
        return {}
    packed = [template for chunk in record.chunks for template in chunk.templates]
    return dict(enumerate(packed, record.first_template))


def config_templates(record: Batch) -> set[int]:
    """Templates whose tasks' args are their config."""
    return {number for number, packed in templates_of(record).items() if "config" not in msgpack.unpackb(packed)}


def meaning(record: Batch) -> list[dict[str, Any]]:
    """All events of a record."""
    if isinstance(record, RunsFinished):
        return _of_runs(record)
    if isinstance(record, MembersFinished):
        return _of_members(record)
    if isinstance(record, RunsStarted):
        return [_started(record, task, {}) for task in record.tasks]
    if isinstance(record, TasksEnded):
        tasks = [
            task for first, count in zip(record.firsts, record.counts, strict=True) for task in _range(first, count)
        ]
        return [{"type": record.type, "task": [record.session, task]} for task in tasks]
    if isinstance(record, ObjectsUnkept):
        return [{"type": "ClientUnkeep", "dataobjs": [[record.session, obj] for obj in record.objects]}]
    return [_of_submit(record)]


def _range(first: int, count: int) -> range:
    return range(first, first + count)


def _started(record: Any, task: int, info: dict[str, Any]) -> dict[str, Any]:
    names = {"worker": record.worker, "governor": record.worker}
    return {"type": "TaskStarted", "task": [record.session, task], **names, "info": info}


def _stored(record: Any, obj: int, size: int) -> dict[str, Any]:
    names = {"worker": record.worker, "governor": record.worker}
    return {"type": "DataObjectFinished", "dataobject": [record.session, obj], **names, "size": size}


def _of_runs(record: RunsFinished) -> list[dict[str, Any]]:
    events = []
    outputs = list(zip(record.outputs, record.sizes, strict=True))
    for k, task in enumerate(record.tasks):
        start = moment(record.starts[k])
        if k not in record.announced:
            events.append(_started(record, task, {"start_time": start}))
        info = {"start_time": start, "duration": record.durations[k], "governor": record.worker}
        packed = record.infos[k] if record.infos else None
        if packed not in (None, b"\xc1"):
            info |= {key: value for key, value in msgpack.unpackb(packed).items() if value}
        events.append({"type": "TaskFinished", "task": [record.session, task], "info": info})
        for _ in range(record.output_counts[k] if record.output_counts else 1):
            events.append(_stored(record, *outputs.pop(0)))
    return events


def _of_members(record: MembersFinished) -> list[dict[str, Any]]:
    events = []
    offset = 0.0
    for k, duration in enumerate(record.durations):
        start = moment(record.start + offset)
        if k or not record.is_announced:
            events.append(_started(record, record.task + k, {"start_time": start}))
        info = {"start_time": start, "duration": duration, "governor": record.worker}
        events.append({"type": "TaskFinished", "task": [record.session, record.task + k], "info": info})
        events.append(_stored(record, record.output + k, record.sizes[k]))
        offset += duration
    return events


def _of_submit(record: Submitted) -> dict[str, Any]:
    session, packed = record.session, templates_of(record)
    tasks: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for chunk in record.chunks:
        if isinstance(chunk, m.SubmitBlock) and chunk.link:
            _add_linked(session, chunk, packed, tasks, objects)
            continue
        if isinstance(chunk, m.SubmitBlock):
            fields = msgpack.unpackb(packed[chunk.template])
            specs = fields.pop("outputs")
            first, count = chunk.first + chunk.start, len(chunk.arg_sizes)
            inputs = [[session, number] for number in chunk.inputs]
            entry = {"id": [session, first + chunk.members], "count": count, **fields, "inputs": inputs}
            tasks.append({**entry, "outputs": [[session, first]]})
            objects.append({"id": [session, first], "count": count, **(specs or [{}])[0], "keep": chunk.keep})
            continue
        listed = {number: k for k, number in enumerate(chunk.objects)}
        inputs, outputs, keep = list(chunk.inputs), list(chunk.outputs), list(chunk.output_flags)
        for k, task in enumerate(chunk.tasks):
            fields = msgpack.unpackb(packed[chunk.task_templates[k]])
            specs = fields.pop("outputs")
            if "config" not in fields and chunk.args and chunk.args[k] is not None:
                fields["config"] = msgpack.unpackb(chunk.args[k])
            own = [inputs.pop(0) for _ in range(chunk.input_counts[k])]
            made = [outputs.pop(0) for _ in range(chunk.output_counts[k])]
            pairs = {"inputs": [[session, i] for i in own], "outputs": [[session, i] for i in made]}
            tasks.append({"id": [session, task], **fields, **pairs})
            for place, number in enumerate(made):
                spec, flags = (specs[place] if place < len(specs) else {}), keep.pop(0)
                if number in listed:
                    flags |= chunk.object_flags[listed[number]]
                    override = chunk.object_specs[listed[number]] if chunk.object_specs else None
                    spec = spec if override is None else msgpack.unpackb(override)
                objects.append({"id": [session, number], **spec, "keep": bool(flags & m.KEEP)})
        for number, k in listed.items():
            if number not in chunk.outputs:
                override = chunk.object_specs[k] if chunk.object_specs else None
                spec = {} if override is None else msgpack.unpackb(override)
                keep_it = bool(chunk.object_flags[k] & m.KEEP)
                objects.append({"id": [session, number], **spec, "keep": keep_it, "constant": True})
    return {"type": "ClientSubmit", "session": session, "tasks": tasks, "dataobjs": objects}


def _add_linked(
    session: int, block: m.SubmitBlock, packed: dict[int, bytes], tasks: list[dict[str, Any]], objects: list[Any]
) -> None:
    templates, which, counts, references = msgpack.unpackb(block.link)
    left = list(array("H", references))
    for k, count in enumerate(counts):
        fields = msgpack.unpackb(packed[templates[which[k] if which else 0]])
        specs = fields.pop("outputs")
        own, left = left[:count], left[count:]
        first, outside = block.first + block.start, len(block.inputs)
        inputs = [[session, block.inputs[r] if r < outside else first + r - outside] for r in own]
        tasks.append({"id": [session, first + k + block.members], **fields, "inputs": inputs})
        tasks[-1]["outputs"] = [[session, first + k]]
        keep = block.keep and (not block.keeps or block.keeps[k] == m.KEEP)
        objects.append({"id": [session, first + k], **(specs or [{}])[0], "keep": keep})


def by_id(event: dict[str, Any]) -> dict[str, Any]:
    """The order of objects in a submit does not matter."""
    if event["type"] != "ClientSubmit":
        return event
    return {**event, "dataobjs": sorted(event["dataobjs"], key=lambda entry: entry["id"])}
