"""All about one task: from the columns of its session, and from the log what is kept only there."""

from __future__ import annotations

from array import array
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rain.common.units import format_duration
from rain.common.unpacking import unpack_bounded
from rain.dashboard.states import (
    ABORTED,
    CANCELLED,
    CONSTANT,
    FAILED,
    FINISHED,
    NOTHING,
    OBJECT,
    STATES,
    UNKEPT,
    UnknownError,
)
from rain.eventlog.expanding import expand
from rain.eventlog.linked import member_at
from rain.eventlog.plain import json_ready
from rain.eventlog.reader import LoggedEvent, StoredBatch
from rain.eventlog.records import RunsFinished, Submitted
from rain.protocol.messages import SubmitBlock, SubmitChunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.dashboard.session_view import Note, SessionView, SubmitPlace
    from rain.eventlog.linked import Member
    from rain.eventlog.reader import EventReader

Answer = dict[str, Any]

_LONGEST_LINE = 500
_ENDED = (FAILED, CANCELLED, ABORTED)


class TaskDetails:
    """Makes the answer about one task.

    Args:
        reader: of the log.
        session: which has the task.
        task: its id.
        workers: ids of workers by number.
    """

    def __init__(self, reader: EventReader, session: SessionView, task: int, workers: Sequence[str]) -> None:
        self._reader = reader
        self._session = session
        self._task = task
        self._workers = workers
        self._state = session.state(task)
        self._run = session.numbers[task]
        self._notes = session.notes.get(task, [])
        self._events = {note.event: self._single(note.event) for note in self._notes if note.event}

    def answer(self) -> Answer:
        """All of it."""
        session, task = self._session, self._task
        place, submit = self._submit()
        spec, objects = self._spec(submit)
        info = self._info()
        return {
            **basic_answer(session, task, self._workers),
            "session": session.number,
            "attempts": info.get("attempts") or session.retries.get(task, 0) + (1 if self._run else 0),
            "error": info.get("error"),
            "debug": info.get("debug"),
            "user": info.get("user"),
            "spec": spec,
            "inputs": self._inputs(spec),
            "outputs": self._outputs(spec, objects),
            "history": self._history(place),
        }

    # --- the log ---

    def _stored(self, event: int) -> StoredBatch | LoggedEvent | None:
        return next(self._reader.records(event - 1), None)

    def _single(self, event: int) -> Answer:
        found = self._stored(event)
        return found.event if isinstance(found, LoggedEvent) else {}

    def _submit(self) -> tuple[SubmitPlace | None, Submitted | None]:
        """Where the task was submitted, and the submit without everything else."""
        for place in reversed(self._session.submits):
            if place.lowest <= self._task <= place.highest:
                found = self._stored(place.event)
                record = found.record if isinstance(found, StoredBatch) else None
                for chunk in record.chunks if isinstance(record, Submitted) else ():
                    alone = alone_in(chunk, self._task)
                    if alone is not None:
                        return place, Submitted(self._session.number, 0, [alone])
        return None, None

    def _spec(self, submit: Submitted | None) -> tuple[Answer, list[Answer]]:
        """Spec of the task, specs of its outputs."""
        if submit is None:
            return {}, []
        number = self._session.number

        def template(wanted: int) -> bytes | None:
            found = self._reader.templates(number, wanted)
            return found[0] if found else None

        event = next(expand(submit, template))
        return event["tasks"][0], event["dataobjs"]

    def _info(self) -> Answer:
        """What is known of its end besides the figures."""
        if self._state == FAILED:
            ends = [event for event in self._events.values() if event.get("type") == "TaskFinished"]
            return ends[-1].get("info") or {} if ends else {}
        if self._state != FINISHED:
            return {}
        for event, tasks in reversed(self._session.infos):
            if self._task in tasks:
                found = self._stored(event)
                record = found.record if isinstance(found, StoredBatch) else None
                packed = record.infos[record.tasks.index(self._task)] if isinstance(record, RunsFinished) else None
                value = json_ready(unpack_bounded(packed)) if packed else None
                return value if isinstance(value, dict) else {}
        return {}

    # --- objects ---

    def _inputs(self, spec: Answer) -> list[Answer]:
        session = self._session
        labels = spec.get("labels") or []
        answers = []
        for place, (_, obj) in enumerate(spec.get("inputs", [])):
            is_output = obj < len(session.kinds) and OBJECT <= session.kinds[obj] < CONSTANT
            answers.append(
                {
                    "id": obj,
                    "state": object_state(session, obj),
                    "producer": session.links[obj] if is_output else None,
                    "label": labels[place] if place < len(labels) else None,
                    "size": known_size(session, obj),
                }
            )
        return answers

    def _outputs(self, spec: Answer, objects: list[Answer]) -> list[Answer]:
        session = self._session
        specs = {entry["id"][1]: entry for entry in objects}
        answers = []
        for _, obj in spec.get("outputs", []):
            entry = specs.get(obj, {})
            is_unkept = obj < len(session.kinds) and session.kinds[obj] == UNKEPT
            answers.append(
                {
                    "id": obj,
                    "state": object_state(session, obj),
                    "size": known_size(session, obj),
                    "label": entry.get("label"),
                    "kept": bool(entry.get("keep")) and not is_unkept,
                    "content_type": entry.get("content_type"),
                }
            )
        return answers

    # --- history ---

    def _history(self, place: SubmitPlace | None) -> list[Answer]:
        session = self._session
        lines = [(place.time, "submitted")] if place is not None else []
        lines += [self._line(note) for note in self._notes]
        runs = session.runs
        if self._run:
            start = runs.starts[self._run]
            lines.append(self._run_line(self._run))
            if self._state == FINISHED:
                seconds = runs.durations[self._run]
                lines.append((start + seconds, f"finished after {format_duration(seconds)}"))
        kinds = {event.get("type") for event in self._events.values()}
        if self._state in _ENDED and not kinds & {"TaskFinished", "TaskCancelled", "TaskAborted"}:
            lines.append((self._ended_at(), STATES[self._state - 1]))
        return [{"time": time, "text": text} for time, text in sorted(lines, key=itemgetter(0))]

    def _ended_at(self) -> float:
        for time, firsts, counts in self._session.endings:
            if any(first <= self._task < first + count for first, count in zip(firsts, counts, strict=True)):
                return time
        return self._session.ended or 0.0

    def _run_line(self, run: int) -> tuple[float, str]:
        runs = self._session.runs
        return runs.starts[run], f"started on {self._workers[runs.workers[run]]}"

    def _line(self, note: Note) -> tuple[float, str]:
        if not note.event:
            return self._run_line(note.run)
        event = self._events[note.event]
        reason = str(event.get("reason") or "")
        text = {
            "TaskRetried": f"runs again: {reason}",
            "TaskInfeasible": f"cannot run: {reason}",
            "TaskCancelled": "cancelled",
            "TaskAborted": "aborted",
        }.get(str(event.get("type")))
        if text is None:
            error = str((event.get("info") or {}).get("error") or "").strip()
            text = f"failed: {error.splitlines()[-1]}" if error else "finished"
        return note.time, text[:_LONGEST_LINE]


def basic_answer(session: SessionView, task: int, workers: Sequence[str]) -> Answer:
    """What lists of tasks show.

    Raises:
        UnknownError: the session has no such task.
    """
    state = session.state(task)
    if state == NOTHING:
        raise UnknownError(f"session {session.number} has no task {task}")
    run, runs, template = session.numbers[task], session.runs, session.links[task]
    has_ended = run and not runs.is_running(run)
    return {
        "id": task,
        "name": session.names.texts[template],
        "type": session.names.types[template],
        "state": STATES[state - 1],
        "worker": workers[runs.workers[run]] if run else None,
        "start": runs.starts[run] if run else None,
        "duration": runs.durations[run] if has_ended else None,
    }


def object_state(session: SessionView, obj: int) -> str:
    """State of an object, which follows from that of its producer."""
    kind = session.kinds[obj] if obj < len(session.kinds) else NOTHING
    if kind == CONSTANT:
        return "finished"
    producer = session.state(session.links[obj]) if kind in (OBJECT, UNKEPT) else NOTHING
    if producer == FINISHED:
        return "finished"
    return "aborted" if producer in _ENDED else "unfinished"


def known_size(session: SessionView, obj: int) -> int | None:
    """Bytes of an object that has been made by a task."""
    is_output = obj < len(session.kinds) and session.kinds[obj] in (OBJECT, UNKEPT)
    return session.size_of(obj) if is_output and object_state(session, obj) == "finished" else None


def alone_in(chunk: SubmitChunk | SubmitBlock, task: int) -> SubmitChunk | SubmitBlock | None:
    """The chunk as if it held this task only; None if it does not hold it."""
    if isinstance(chunk, SubmitBlock):
        position = task - chunk.first - chunk.members
        if chunk.start <= position < chunk.start + len(chunk.arg_sizes):
            alone = replace(chunk, start=position, arg_sizes=array("I", [0]))
            return _unlinked(alone, member_at(chunk, position - chunk.start)) if chunk.link else alone
        return None
    if task not in chunk.tasks:
        return None
    at = chunk.tasks.index(task)
    before_inputs, before_outputs = sum(chunk.input_counts[:at]), sum(chunk.output_counts[:at])
    own = slice(before_outputs, before_outputs + chunk.output_counts[at])
    outputs = set(chunk.outputs[own])
    kept = [place for place, obj in enumerate(chunk.objects) if obj in outputs]
    return replace(
        chunk,
        templates=[],
        tasks=chunk.tasks[at : at + 1],
        task_templates=chunk.task_templates[at : at + 1],
        args=chunk.args[at : at + 1],
        input_counts=chunk.input_counts[at : at + 1],
        inputs=chunk.inputs[before_inputs : before_inputs + chunk.input_counts[at]],
        output_counts=chunk.output_counts[at : at + 1],
        outputs=chunk.outputs[own],
        output_flags=chunk.output_flags[own],
        objects=array("I", [chunk.objects[place] for place in kept]),
        object_flags=bytes(chunk.object_flags[place] for place in kept),
        object_specs=[chunk.object_specs[place] for place in kept] if chunk.object_specs else [],
        values=[],
    )


def _unlinked(block: SubmitBlock, member: Member) -> SubmitBlock:
    """A block of one member of a linked one."""
    inputs = array("I", member.inputs)
    return replace(block, template=member.template, inputs=inputs, keep=member.is_kept, link=b"", keeps=b"")
