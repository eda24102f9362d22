"""Logs with gaps, and what workers may tell: nothing breaks, and the figures agree with each other."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from rain.dashboard.overview import Overview
from rain.dashboard.states import STATES
from rain.eventlog.reader import EventReader
from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    Record,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)
from rain.testing.server_builders import SubmitBuilder, u32
from tests.dashboard.stories import BEGIN, W1, W2, Story

IDS = st.integers(0, 130)
WORKERS = st.sampled_from([W1, W2])
TIMES = st.sampled_from([BEGIN, BEGIN + 1, 0.0, float("nan"), 1e300])
SECONDS = st.sampled_from([0.0, 0.5, 3.0, -1.0, float("inf")])


def columns(least: int = 0, most: int = 5) -> st.SearchStrategy[array[int]]:
    return st.lists(IDS, min_size=least, max_size=most).map(u32)


@st.composite
def submits(draw: st.DrawFn, place: int) -> Submitted:
    """With ids of its own, templates that are perhaps not known, and inputs that perhaps are not."""
    first = 30 * place
    builder = SubmitBuilder()
    for task in draw(st.sets(st.integers(first, first + 4))):
        objects = range(first + 5 + 2 * (task - first), first + 7 + 2 * (task - first))
        builder.task(
            task, draw(columns()), objects[: draw(st.integers(0, 2))], name=draw(st.sampled_from(["a", "a/x", "b"]))
        )
    builder.constant(first + 15)
    count = draw(st.integers(1, 6))
    if draw(st.booleans()):
        array_ids = range(first + 16, first + 16 + count)
        inputs = [[7, *array_ids[:k], *(i for i in draw(columns()) if i not in array_ids)] for k in range(count)]
        names = [draw(st.sampled_from(["a", "b/y"])) for _ in inputs]
        messages = builder.linked(first + 16, inputs, draw(columns()), names, per_block=4).messages(1)
    else:
        messages = builder.array(first + 16, count, draw(columns()), per_block=4).messages(1)
    if draw(st.booleans()):
        messages = [replace(message, templates=[]) for message in messages]
    return Submitted(1, 0, draw(st.sampled_from([messages, messages[:1], messages[-1:]])))


@st.composite
def finished(draw: st.DrawFn) -> RunsFinished:
    tasks, outputs = draw(columns(1)), draw(columns())
    count = len(tasks)
    return RunsFinished(
        session=1,
        worker=draw(WORKERS),
        tasks=tasks,
        runs=u32([1] * count),
        starts=array("d", draw(st.lists(TIMES, min_size=count, max_size=count))),
        durations=array("d", draw(st.lists(SECONDS, min_size=count, max_size=count))),
        infos=draw(st.sampled_from([[], [b"\xc1"] * count])),
        output_counts=u32([len(outputs)] + [0] * (count - 1)),
        outputs=outputs,
        sizes=array("Q", [1 << 40] * len(outputs)),
    )


MEMBERS = st.builds(
    lambda worker, task, output, start, seconds, is_announced: MembersFinished(
        1, worker, task, output, 1, start, array("f", seconds), array("I", [9] * len(seconds)), is_announced
    ),
    WORKERS,
    IDS,
    IDS,
    TIMES,
    st.lists(SECONDS, min_size=1, max_size=6),
    st.booleans(),
)
ENDED = st.builds(
    lambda type, stretches: TasksEnded(1, type, u32(first for first, _ in stretches), u32(n for _, n in stretches)),
    st.sampled_from(["TaskCancelled", "TaskAborted"]),
    st.lists(st.tuples(IDS, st.integers(1, 20)), min_size=1, max_size=3),
)
INFOS = st.sampled_from([{}, {"error": "boom"}, {"error": 3, "governor": W1, "duration": "x"}, {"governor": W2}])
TASK_EVENTS = st.builds(
    lambda type, task, info: Event(type, 1, {"task": [1, task], "worker": W1, "info": info}),
    st.sampled_from(["TaskStarted", "TaskFinished", "TaskRetried", "TaskInfeasible", "TaskCancelled", "TaskAborted"]),
    IDS,
    INFOS,
)
OTHER_EVENTS = st.sampled_from(
    [
        Event("SessionNew", 1, {"session": 1}),
        Event("SessionClosed", 1, {"session": 1, "reason": "Error", "message": "boom"}),
        Event("SessionClosed", 1, {"session": 1}),
        Event("DataObjectFinished", 1, {"dataobject": [1, 12], "size": 5}),
        Event("WorkerNew", None, {"worker": W1}),
        Event("WorkerNew", None, {"worker": 7}),
        Event("WorkerRemoved", None, {"worker": W1}),
        Event("Monitoring", None, {"worker": W2, "net_stat": {"eth0": [1, 2]}, "cpu_usage": []}),
        Event("Nonsense", 1, {"session": 1, "task": "x"}),
    ]
)
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(lambda worker, tasks: RunsStarted(1, worker, tasks, tasks), WORKERS, columns(1)),
    finished(),
    MEMBERS,
    ENDED,
    st.builds(ObjectsUnkept, st.just(1), columns(1)),
    TASK_EVENTS,
    OTHER_EVENTS,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_nothing_breaks(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    story = Story(tmp_path_factory.mktemp("log"))
    story.write()
    reader = EventReader(story.path)
    overview = Overview(reader)
    overview.apply(1, BEGIN, Event("SessionNew", 1, {"session": 1, "spec": {"name": "x"}}))
    number = 1
    for place in range(data.draw(st.integers(1, 4))):
        for record in [data.draw(submits(place)), *data.draw(st.lists(RECORDS, max_size=8))]:
            number += 1
            overview.apply(number, BEGIN + number, record)
    check(overview)
    reader.close()


def check(overview: Overview) -> None:
    answers = [overview.status(), overview.sessions(), overview.session(1), overview.groups(1), overview.stream(1)]
    answers += [overview.stream(), overview.workers(), overview.graph(1, limit=1)]
    tasks = overview.tasks(1, limit=1000)["tasks"]
    answers += [overview.task(1, task["id"]) for task in tasks[::5]]
    for answer in answers:
        json.dumps(answer, allow_nan=False)
    counts = answers[2]["tasks"]
    assert counts["total"] == sum(counts[state] for state in STATES)
    assert min(counts.values()) >= 0
    for state in STATES:
        assert sum(group[state] for group in answers[3]["groups"]) == counts[state]
