"""Answers to GetSpecs, and what the spec of a single object says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.task_template import read_spec_map
from rain.common.unpacking import unpack_bounded
from rain.protocol.messages import GetSpecs, Specs
from rain.server.core.blocks import spec_of_output
from rain.server.core.graph import REMOVED, TASK, TASK_FINISHED
from rain.server.core.linked import inputs_of, template_of
from rain.server.core.waits import pieces_of, unknown_id

if TYPE_CHECKING:
    from rain.server.core.session import Session
    from rain.server.core.state import ClientPeer, ServerState

MOST, LONGEST = 5000, 4 << 20
"""Ids, and bytes after which no further one begins, in one answer about many."""

_OF_TEMPLATE = ("task_type", "name", "resources", "user", "retries", "timeout", "priority")


def get_specs(state: ServerState, session: Session, client: ClientPeer, message: GetSpecs) -> None:
    """Specs of tasks and objects, as many as there is room for."""
    ids = message.ids[:MOST]
    failure = unknown_id(session, ids)
    if failure is not None:
        state.refuse(client.peer, message.seq, failure)
        return
    reader, specs, size = _Reader(session), list[bytes | None](), 0
    for piece in pieces_of(session, ids):
        for position in range(piece.start, piece.stop):
            if size > LONGEST:
                break
            number = piece.number(session.graph.numbering, position)
            packed: bytes = msgpack.packb(reader.spec(number))
            specs.append(packed)
            size += len(packed)
    state.send(client.peer, Specs(message.seq, specs))


class _Reader:
    """Reads specs; what many tasks have in common it reads once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._templates: dict[int, dict[str, Any]] = {}

    def spec(self, number: int) -> dict[str, Any]:
        """That of a task or an object."""
        graph = self._session.graph
        row = graph.numbering.row(number)
        if row >= 0:
            return self._task(row) if graph.kind[row] == TASK else _object_spec(self._session, row)
        member = graph.numbering.member(number)
        assert member is not None
        block, index, is_task = member
        members = block.array
        if not is_task:
            spec = spec_of_packed(spec_of_output(self._session, block, index))
            spec |= {"id": number, "producer": members.task(index)}
            return spec | {"kept": True} if block.is_kept(index) else spec
        args = None if block.args is None else block.args.one(index - block.origin)
        template, inputs = template_of(self._session, block, index), inputs_of(self._session, block, index)
        return self._described(block.row, template, number, inputs, [members.output(index)], args)

    def _task(self, row: int) -> dict[str, Any]:
        graph = self._session.graph
        outputs = list(graph.numbering.ids(graph.outputs_of(row)))
        inputs = list(graph.numbering.ids(graph.inputs[row]))
        return self._described(row, graph.template[row], graph.numbering.id(row), inputs, outputs, graph.args[row])

    def _described(
        self, row: int, template_number: int, number: int, inputs: list[int], outputs: list[int], args: bytes | None
    ) -> dict[str, Any]:
        """The spec of the task `number`, which has what is in `row`, or is a member of the block there."""
        template = self._template(template_number)
        spec = {name: template[name] for name in _OF_TEMPLATE if template.get(name) is not None}
        spec |= {"id": number, "inputs": inputs, "outputs": outputs}
        labels = template.get("labels")
        if labels and inputs:
            spec["input_labels"] = labels
        if "config" in template:
            spec["config"] = template["config"]
        elif args is not None and not self._session.templates[template_number].is_python:
            spec["config"] = unpack_bounded(args)
        if _is_released(self._session, row):
            spec["released"] = True
        return spec

    def _template(self, number: int) -> dict[str, Any]:
        known = self._templates.get(number)
        if known is None:
            known = self._templates[number] = unpack_bounded(self._session.templates[number].packed)
        return known


def _is_released(session: Session, row: int) -> bool:
    """Whether inputs and config of a task were dropped, since it cannot run again."""
    graph = session.graph
    if graph.state[row] != TASK_FINISHED:
        return graph.state[row] > TASK_FINISHED
    if row in graph.blocks:
        return not graph.inputs[row]
    return all(graph.state[out] == REMOVED and not graph.pins[out] for out in graph.outputs_of(row))


def _object_spec(session: Session, row: int) -> dict[str, Any]:
    graph = session.graph
    spec = spec_of_packed(packed_spec_of(session, row))
    spec["id"] = graph.numbering.id(row)
    producer, _ = producer_of(session, row)
    if producer:
        spec["producer"] = producer
    if graph.is_kept(row):
        spec["kept"] = True
    return spec


def spec_of_packed(packed: bytes | None) -> dict[str, Any]:
    """The fields of an object spec that clients get; what is no spec says nothing."""
    if packed is None:
        return {}
    try:
        data = read_spec_map(packed)
    except ValueError:
        return {}
    return {name: data[name] for name in ("label", "content_type", "data_type", "user", "size_hint") if data.get(name)}


def packed_spec_of(session: Session, row: int) -> bytes | None:
    """The packed spec of an object: its own, else what its producer's template says."""
    own = session.graph.spec.get(row)
    if own is not None:
        return own
    number, task = producer_of(session, row)
    if not number:
        return None
    outputs = session.graph.outputs_of(task)
    return _template_output(session, task, outputs.index(row) if row in outputs and len(outputs) > 1 else 0)


def _template_output(session: Session, task: int, position: int) -> bytes | None:
    specs = session.templates[session.graph.template[task]].output_specs
    return specs[position] if position < len(specs) else None


def producer_of(session: Session, row: int) -> tuple[int, int]:
    """Id of the task that makes an object, and the row of the task or its block; (0, 0) of a constant."""
    graph = session.graph
    numbering = graph.numbering
    number = numbering.id(row)
    members = numbering.array_of(number)
    if members is not None:  # an output that others need has no producer any more once it is there
        task = members.task(number - members.first)
        member = numbering.member(task)
        return task, numbering.row(task) if member is None else member[0].row
    producer = graph.producer[row]
    return (numbering.id(producer), producer) if producer else (0, 0)
