"""Submits: new tasks and objects of a session."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from rain.common.unpacking import unpack_bounded
from rain.dashboard.session_view import SEVERAL, Extent, SubmitPlace
from rain.dashboard.states import CONSTANT, NOTHING, OBJECT, WAITING
from rain.eventlog.linked import members, read_link
from rain.protocol.messages import INLINE, SAME, UPLOADED, SubmitBlock, SubmitChunk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.dashboard.session_view import SessionView
    from rain.eventlog.records import Submitted

MOST_IDS = 1 << 26
"""Of a session; tasks and objects with larger ids are not shown."""

_HAS_VALUE = INLINE | SAME | UPLOADED
_UNREADABLE = "?"


def add_templates(session: SessionView, templates: Iterable[bytes]) -> None:
    """The next templates of the session."""
    for packed in templates:
        try:
            data = unpack_bounded(packed)
            task_type, name = data["task_type"], data.get("name")
        except (ValueError, TypeError, KeyError, AttributeError):
            task_type, name = _UNREADABLE, None
        session.names.add_template(str(task_type), str(name or task_type))


def highest_template(record: Submitted) -> int:
    """The largest number of a template in use; -1 if there is none."""
    return max(map(_highest_in, record.chunks), default=-1)


def _highest_in(chunk: SubmitChunk | SubmitBlock) -> int:
    if isinstance(chunk, SubmitBlock):
        return max(read_link(chunk).templates) if chunk.link else chunk.template
    return max(chunk.task_templates, default=-1)


def submitted(session: SessionView, event: int, time: float, record: Submitted) -> None:
    """A submit was taken; its templates are known."""
    session.submitted += 1
    ids = _ids(record)
    if ids is None or ids[1] >= MOST_IDS:
        return
    _complete_templates(session, record)
    for chunk in record.chunks:
        if isinstance(chunk, SubmitBlock):
            _add_block(session, chunk)
        else:
            _add_chunk(session, chunk)
    for chunk in record.chunks:
        _add_edges(session, chunk)
    session.submits.append(SubmitPlace(*ids, event, time))


def _ids(record: Submitted) -> tuple[int, int] | None:
    """The smallest and the largest id of it; None if there is none."""
    ids: list[int] = []
    for chunk in record.chunks:
        if isinstance(chunk, SubmitBlock):
            ids += (chunk.first, chunk.first + 2 * chunk.members - 1)
        else:
            for column in (chunk.tasks, chunk.outputs, chunk.objects):
                ids += (min(column), max(column)) if column else ()
    return (min(ids), max(ids)) if ids else None


def _complete_templates(session: SessionView, record: Submitted) -> None:
    """A damaged log may lack some."""
    missing = highest_template(record) + 1 - len(session.names.leaves)
    add_templates(session, [b""] * missing)


def _add_chunk(session: SessionView, chunk: SubmitChunk) -> None:
    tasks, outputs, leaves = chunk.tasks, chunk.outputs, session.names.leaves
    session.grow(max((max(ids) for ids in (tasks, outputs, chunk.objects) if ids), default=-1) + 1)
    kinds, links = session.kinds, session.links
    for template, count in Counter(chunk.task_templates).items():
        leaves[template].move(NOTHING, WAITING, count)
    at = 0
    for task, template, count in zip(tasks, chunk.task_templates, chunk.output_counts, strict=True):
        kinds[task] = WAITING
        links[task] = template
        for obj in outputs[at : at + count]:
            kinds[obj] = OBJECT
            links[obj] = task
        at += count
    session.objects += len(outputs)
    for obj, flags in zip(chunk.objects, chunk.object_flags, strict=True):
        if flags & _HAS_VALUE:
            kinds[obj] = CONSTANT
            session.objects += 1


def _add_block(session: SessionView, block: SubmitBlock) -> None:
    count = len(block.arg_sizes)
    session.grow(block.first + 2 * block.members)
    if not session.arrays or session.arrays[-1].first != block.first:
        session.arrays.append(Extent(block.first, block.members, SEVERAL if block.link else block.template))
    output = block.first + block.start
    task = output + block.members
    session.kinds[output : output + count] = bytes([OBJECT]) * count
    session.kinds[task : task + count] = bytes([WAITING]) * count
    session.links[output : output + count] = array("I", range(task, task + count))
    templates = _templates_of(block)
    session.links[task : task + count] = templates
    for template, of_it in Counter(templates).items():
        session.names.leaves[template].move(NOTHING, WAITING, of_it)
    session.objects += count


def _templates_of(block: SubmitBlock) -> array[int]:
    """Template of each member."""
    if not block.link:
        return array("I", [block.template]) * len(block.arg_sizes)
    link = read_link(block)
    return array("I", map(link.template, range(len(block.arg_sizes))))


def _add_edges(session: SessionView, chunk: SubmitChunk | SubmitBlock) -> None:
    """Which names use what tasks of which other names make."""
    if not chunk.inputs:
        return
    kinds, links, leaves, edges = session.kinds, session.links, session.names.leaves, session.edges
    known = len(kinds)
    if isinstance(chunk, SubmitBlock) and chunk.link:
        pairs = [(obj, member.template, 1) for member in members(chunk) for obj in member.inputs]
    elif isinstance(chunk, SubmitBlock):
        pairs = [(obj, chunk.template, len(chunk.arg_sizes)) for obj in chunk.inputs]
    else:
        templates = chunk.task_templates
        users = (template for template, count in zip(templates, chunk.input_counts, strict=True) for _ in range(count))
        pairs = [(obj, template, 1) for obj, template in zip(chunk.inputs, users, strict=True)]
    for obj, template, times in pairs:
        if obj < known and OBJECT <= kinds[obj] < CONSTANT:
            key = leaves[links[links[obj]]].index << 32 | leaves[template].index
            edges[key] = edges.get(key, 0) + times
