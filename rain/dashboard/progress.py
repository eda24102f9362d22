"""Batches of what became of tasks, taken into the columns of a session.

Ids of which nothing is known are passed over: a log may have gaps, where the disk was full.
"""

from __future__ import annotations

from array import array
from math import isfinite
from operator import mul
from typing import TYPE_CHECKING

from rain.dashboard.runs import LONGEST, sound_duration, sound_start
from rain.dashboard.session_view import LARGE
from rain.dashboard.states import ABORTED, CANCELLED, FAILED, FINISHED, NOTHING, OBJECT, RUNNING, UNKEPT, WAITING

if TYPE_CHECKING:
    from rain.dashboard.session_view import SessionView
    from rain.eventlog.records import MembersFinished, ObjectsUnkept, RunsFinished, RunsStarted, TasksEnded

FATES = {"TaskCancelled": CANCELLED, "TaskAborted": ABORTED}


def runs_started(session: SessionView, time: float, record: RunsStarted, worker: int) -> None:
    """Runs have begun."""
    for task in record.tasks:
        if session.state(task):
            session.begin(task, worker, time)


def runs_finished(session: SessionView, event: int, time: float, record: RunsFinished, worker: int) -> None:
    """Runs succeeded."""
    kinds, links, numbers, runs = session.kinds, session.links, session.numbers, session.runs
    known = len(kinds)
    moved: dict[tuple[int, int], list[float]] = {}
    for task, start, duration in zip(record.tasks, record.starts, record.durations, strict=True):
        kind = kinds[task] if task < known else NOTHING
        if not NOTHING < kind < OBJECT:
            continue
        start, duration = sound_start(start, time), sound_duration(duration)
        if kind == RUNNING:
            session.running.discard(task)
            runs.workers[numbers[task]] = worker
        elif kind != WAITING:
            session.reopen(task, start)
            kind = WAITING
        run = numbers[task] if kind == RUNNING else runs.begin(task, worker, start)
        numbers[task] = run
        runs.end(run, start, duration)
        kinds[task] = FINISHED
        sums = moved.setdefault((links[task], kind), [0, 0.0, 0.0])
        seconds = runs.durations[run]
        sums[0] += 1
        sums[1] += seconds
        sums[2] += seconds * seconds
    for (template, kind), (count, seconds, square) in moved.items():
        leaf = session.names.leaves[template]
        leaf.move(kind, FINISHED, int(count))
        leaf.add_seconds(seconds, square)
    for obj, size in zip(record.outputs, record.sizes, strict=True):
        session.set_size(obj, size)
    if record.infos:
        told = array("I", [task for task, info in zip(record.tasks, record.infos, strict=True) if info])
        session.infos.append((event, told))


def members_finished(session: SessionView, time: float, record: MembersFinished, worker: int) -> None:
    """Consecutive members of a task array succeeded."""
    task, output, start = record.task, record.output, sound_start(record.start, time)
    durations, sizes = record.durations, record.sizes
    if not all(map(isfinite, durations)) or min(durations) < 0 or sum(durations) > LONGEST:
        durations = array("f", map(sound_duration, durations))
    if session.state(task) == RUNNING:  # it was announced
        run_succeeded(session, task, worker, start, durations[0])
        session.set_size(output, sizes[0])
        task, output, start, durations, sizes = task + 1, output + 1, start + durations[0], durations[1:], sizes[1:]
    count = len(durations)
    end = task + count
    if session.kinds[task:end].count(WAITING) != count:
        _members_one_by_one(session, worker, task, output, start, durations, sizes)
    elif count:
        first = session.runs.add_sequence(task, worker, start, durations)
        session.numbers[task:end] = array("I", range(first, first + count))
        session.kinds[task:end] = bytes([FINISHED]) * count
        _count_members(session, task, session.runs.durations[first:])
        _set_sizes(session, output, sizes)


def _count_members(session: SessionView, task: int, seconds: array[float]) -> None:
    """Members that waited succeeded after so many seconds."""
    count, leaves = len(seconds), session.names.leaves
    templates = session.links[task : task + count]
    if templates.count(templates[0]) == count:
        leaf = leaves[templates[0]]
        leaf.move(WAITING, FINISHED, count)
        leaf.add_seconds(sum(seconds), sum(map(mul, seconds, seconds)))
        return
    of_template: dict[int, list[float]] = {}
    for template, own in zip(templates, seconds, strict=True):
        of_template.setdefault(template, []).append(own)
    for template, some in of_template.items():
        leaves[template].move(WAITING, FINISHED, len(some))
        leaves[template].add_seconds(sum(some), sum(map(mul, some, some)))


def _set_sizes(session: SessionView, output: int, sizes: array[int]) -> None:
    end = output + len(sizes)
    are_outputs = session.kinds[output:end].count(OBJECT) == len(sizes)
    if are_outputs and not any(session.numbers[output:end]) and max(sizes) < LARGE:
        session.numbers[output:end] = array("I", sizes)
        session.size += sum(sizes)
    else:
        for obj, size in enumerate(sizes, start=output):
            session.set_size(obj, size)


def _members_one_by_one(
    session: SessionView,
    worker: int,
    task: int,
    output: int,
    start: float,
    durations: array[float],
    sizes: array[int],
) -> None:
    """Some of them are not in the state in which they should be."""
    for position, (duration, size) in enumerate(zip(durations, sizes, strict=True)):
        if session.state(task + position):
            run_succeeded(session, task + position, worker, start, duration)
            session.set_size(output + position, size)
        start += duration


def run_succeeded(session: SessionView, task: int, worker: int, start: float, duration: float) -> None:
    """One task finished."""
    _run_ended(session, task, worker, start, duration)
    session.move(task, FINISHED)
    session.add_seconds(task, 1)


def run_failed(session: SessionView, task: int, worker: int | None, start: float, duration: float) -> None:
    """One task failed for good; worker: None if no run of it failed."""
    if worker is not None:
        _run_ended(session, task, worker, start, duration, is_failed=True)
    else:
        session.reopen(task, start)
    session.move(task, FAILED)


def _run_ended(
    session: SessionView, task: int, worker: int, start: float, duration: float, is_failed: bool = False
) -> None:
    if session.kinds[task] != RUNNING:
        session.begin(task, worker, start)
    session.running.discard(task)
    run = session.numbers[task]
    session.runs.workers[run] = worker
    session.runs.end(run, start, duration, is_failed)


def tasks_ended(session: SessionView, time: float, record: TasksEnded) -> None:
    """Stretches of tasks were cancelled or aborted."""
    fate = FATES[record.type]
    session.endings.append((time, record.firsts, record.counts))
    for first, count in zip(record.firsts, record.counts, strict=True):
        links = session.links[first : first + count]
        kinds = session.kinds[first : first + count]
        if count > 1 and kinds.count(WAITING) == count and links.count(links[0]) == count:
            session.leaf(first).move(WAITING, fate, count)
            session.kinds[first : first + count] = bytes([fate]) * count
        else:
            for task in range(first, min(first + count, len(session.kinds))):
                task_ended(session, task, time, fate)


def task_ended(session: SessionView, task: int, time: float, fate: int) -> None:
    """One task was cancelled or aborted."""
    if session.state(task) in (WAITING, RUNNING, CANCELLED, ABORTED):
        session.stop(task, time)
        session.move(task, fate)


def unkept(session: SessionView, record: ObjectsUnkept) -> None:
    """The client does not want these objects any more."""
    kinds = session.kinds
    known = len(kinds)
    for obj in record.objects:
        if obj < known and kinds[obj] == OBJECT:
            kinds[obj] = UNKEPT
