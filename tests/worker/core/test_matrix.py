"""Every event in every state of a task and of a block: the state after it, read from one table."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace

import pytest

from rain.common.blocks import FULL, LATE, STORED
from rain.common.failure import Failure
from rain.protocol.messages import (
    CancelTasks,
    DeleteObjects,
    EndSession,
    GetWorkerInfo,
    ListRuns,
    ProbePeers,
    ReadTaskLog,
    StopWorker,
    WithdrawTasks,
    WorkerWelcome,
)
from rain.testing.worker_builders import (
    WORKER_ID,
    BlockOf,
    InputOf,
    TaskOf,
    WorkerStory,
    assign_tasks,
    block_end,
    failure_of,
    packed_template,
    success,
)
from rain.worker.core import core as core_module
from rain.worker.core.actions import Run
from rain.worker.core.events import (
    BuiltinStopped,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    LimitExceeded,
    LookedUp,
    ObjectArrived,
    ObjectUnreachable,
    RunKept,
    RunsEnded,
    ServerLost,
    ServerSaid,
    StoreFailed,
    Tick,
    WorkerEvent,
)
from rain.worker.core.model import TASK_STATES

SHORT = 1e-5
TEMPLATES = {0: packed_template("py/f"), 1: packed_template("buildin/concat"), 2: packed_template("py/other")}
TASK = TaskOf(20, [10], [21])
BLOCK = BlockOf(20, [10], [21], members=5)
PRESENT_INPUT = [InputOf(10, b"x")]
KEY = (1, 20, 1)


def _warm() -> WorkerStory:
    story = WorkerStory()
    story.assign(TaskOf(1), templates=TEMPLATES)
    story.ready(1)
    story.succeed(1, *story.runs(1), duration=SHORT)
    return story


def waiting(subject: TaskOf) -> WorkerStory:
    story = _warm()
    story.assign(subject, objects=[InputOf(10)])
    return story


def ready(subject: TaskOf) -> WorkerStory:
    story = _warm()
    story.assign(TaskOf(19, template=2))
    story.assign(subject, objects=PRESENT_INPUT)
    return story


def looking(subject: TaskOf) -> WorkerStory:
    story = _warm()
    cached = {3: packed_template("py/f", cache=True)}
    story.assign(replace(subject, template=3), objects=PRESENT_INPUT, templates=cached)
    return story


def starting(subject: TaskOf) -> WorkerStory:
    story = WorkerStory()
    story.assign(subject, objects=PRESENT_INPUT, templates=TEMPLATES)
    return story


def running(subject: TaskOf) -> WorkerStory:
    story = _warm()
    story.assign(subject, objects=PRESENT_INPUT)
    return story


def in_batch(subject: TaskOf) -> WorkerStory:
    story = _warm()
    story.assign(TaskOf(19), subject, objects=PRESENT_INPUT)
    return story


def gone(subject: TaskOf) -> WorkerStory:
    story = running(subject)
    story.succeed(1, story.run_of(20), duration=SHORT)
    return story


STATES: dict[str, Callable[[TaskOf], WorkerStory]] = {
    "waiting": waiting, "looking": looking, "ready": ready, "starting": starting, "running": running,
    "in_batch": in_batch, "gone": gone,
}  # fmt: skip

RUN = Run(KEY, 0, {}, None, (), (21,))
BLOCK_RUN = Run(KEY, 0, {}, None, (), (21,), members=5)
OTHER_RUN = Run((1, 20, 9), 0, {}, None, (), (21,))
LOST = Failure("task", "Lost connection to executor")
TASKS, RUNS = array("I", [20]), array("I", [1])

EVENTS: dict[str, WorkerEvent] = {
    "WorkerWelcome": ServerSaid(WorkerWelcome(2, WORKER_ID)),
    "AssignTasks same run": ServerSaid(assign_tasks([TASK], objects=PRESENT_INPUT)),
    "AssignTasks new run": ServerSaid(assign_tasks([TaskOf(20, [10], [21], run=2, template=2)], objects=PRESENT_INPUT)),
    "WithdrawTasks": ServerSaid(WithdrawTasks(1, TASKS, RUNS)),
    "WithdrawTasks other run": ServerSaid(WithdrawTasks(1, TASKS, array("I", [2]))),
    "CancelTasks": ServerSaid(CancelTasks(1, TASKS, RUNS, 0.0)),
    "CancelTasks with grace": ServerSaid(CancelTasks(1, TASKS, RUNS, 2.0)),
    "CancelTasks other run": ServerSaid(CancelTasks(1, TASKS, array("I", [2]), 0.0)),
    "DeleteObjects input": ServerSaid(DeleteObjects(1, array("I", [10]))),
    "DeleteObjects output": ServerSaid(DeleteObjects(1, array("I", [21]))),
    "EndSession": ServerSaid(EndSession(1)),
    "GetWorkerInfo": ServerSaid(GetWorkerInfo(1)),
    "ListRuns": ServerSaid(ListRuns()),
    "ReadTaskLog": ServerSaid(ReadTaskLog(1, 1, 20, "stdout", 0, 100)),
    "ProbePeers": ServerSaid(ProbePeers(1, ["127.0.0.1:1"])),
    "StopWorker": ServerSaid(StopWorker()),
    "ServerLost": ServerLost(),
    "RunsEnded success": RunsEnded(1, [success(RUN, duration=SHORT)], []),
    "RunsEnded failure": RunsEnded(1, [failure_of(KEY)], []),
    "RunsEnded other run": RunsEnded(1, [success(OTHER_RUN)], []),
    "RunsEnded elsewhere": RunsEnded(0, [success(RUN)], []),
    "LookedUp in vain": LookedUp(KEY, None),
    "LookedUp found": LookedUp(KEY, success(RUN)),
    "LookedUp other run": LookedUp((1, 20, 9), None),
    "ExecutorReady": ExecutorReady(1),
    "ExecutorLost to blame": ExecutorLost(1, KEY, LOST),
    "ExecutorLost": ExecutorLost(1, None, LOST),
    "ExecutorStopped": ExecutorStopped(1),
    "BuiltinStopped": BuiltinStopped(KEY),
    "RunKept": RunKept(1, KEY),
    "LimitExceeded": LimitExceeded(KEY, "Memory limit of 1 B exceeded"),
    "LimitExceeded other run": LimitExceeded((1, 20, 9), "Memory limit of 1 B exceeded"),
    "ObjectArrived": ObjectArrived((1, 10), 5),
    "ObjectUnreachable": ObjectUnreachable((1, 10), ["a:1"], "refused"),
    "StoreFailed input": StoreFailed((1, 10), "disk full"),
    "StoreFailed output": StoreFailed((1, 21), "disk full"),
    "StoreFailed refused": StoreFailed((1, 10), "disk full", refused=True),
    "Tick": Tick(),
}

#: a block has other messages than a task where they tell of its form
BLOCK_EVENTS: dict[str, WorkerEvent] = {
    **EVENTS,
    "AssignTasks same run": ServerSaid(assign_tasks([BLOCK], objects=PRESENT_INPUT)),
    "AssignTasks new run": ServerSaid(
        assign_tasks([BlockOf(20, [10], [21], run=2, template=2, members=5)], objects=PRESENT_INPUT)
    ),
    "RunsEnded success": RunsEnded(1, [block_end(BLOCK_RUN, duration=SHORT)], []),
    "RunsEnded late": RunsEnded(1, [block_end(BLOCK_RUN, done=2, end=LATE)], []),
    "RunsEnded full": RunsEnded(1, [block_end(BLOCK_RUN, done=2, end=FULL)], []),
    "RunsEnded stored": RunsEnded(1, [block_end(BLOCK_RUN, done=2, end=STORED)], []),
    "RunsEnded stored first": RunsEnded(1, [block_end(BLOCK_RUN, done=0, end=STORED)], []),
    "RunsEnded as a task": RunsEnded(1, [success(RUN)], []),
}

# The columns are the states; `.` = unchanged. A run sent back after its executor was lost waits for a new one.
TABLE = """
                         waiting  looking  ready    starting running  in_batch gone
WorkerWelcome            .        .        .        .        .        .        .
AssignTasks same run     running  .        .        .        .        .        running
AssignTasks new run      running  running  .        .        starting ready    running
WithdrawTasks            gone     gone     gone     gone     .        .        .
WithdrawTasks other run  .        .        .        .        .        .        .
CancelTasks              gone     gone     gone     gone     gone     gone     .
CancelTasks with grace   gone     gone     gone     gone     gone     gone     .
CancelTasks other run    .        .        .        .        .        .        .
DeleteObjects input      .        .        .        .        .        .        .
DeleteObjects output     .        .        .        .        .        .        .
EndSession               gone     gone     gone     gone     gone     gone     .
GetWorkerInfo            .        .        .        .        .        .        .
ListRuns                 .        .        .        .        .        .        .
ReadTaskLog              .        .        .        .        .        .        .
ProbePeers               .        .        .        .        .        .        .
StopWorker               gone     gone     gone     gone     gone     gone     .
ServerLost               gone     gone     gone     gone     gone     gone     .
RunsEnded success        .        .        .        .        gone     gone     .
RunsEnded failure        .        .        .        .        gone     gone     .
RunsEnded other run      .        .        .        .        .        .        .
RunsEnded elsewhere      .        .        .        .        .        .        .
LookedUp in vain         .        running  .        .        .        .        .
LookedUp found           .        gone     .        .        .        .        .
LookedUp other run       .        .        .        .        .        .        .
ExecutorReady            .        .        .        running  .        .        .
ExecutorLost to blame    .        .        .        gone     gone     gone     .
ExecutorLost             .        .        .        gone     starting ready    .
ExecutorStopped          .        .        .        .        .        .        .
BuiltinStopped           .        .        .        .        .        .        .
RunKept                  .        .        .        .        .        .        .
LimitExceeded            .        .        .        .        gone     .        .
LimitExceeded other run  .        .        .        .        .        .        .
ObjectArrived            running  .        .        .        .        .        .
ObjectUnreachable        gone     .        .        .        .        .        .
StoreFailed input        gone     gone     gone     gone     .        .        .
StoreFailed output       .        .        .        .        .        .        .
StoreFailed refused      gone     gone     gone     gone     .        .        .
Tick                     .        .        .        .        .        .        .
"""


BLOCK_TABLE = f"""{TABLE}
RunsEnded late           .        .        .        .        gone     gone     .
RunsEnded full           .        .        .        .        gone     gone     .
RunsEnded stored         .        .        .        .        gone     gone     .
RunsEnded stored first   .        .        .        .        gone     gone     .
RunsEnded as a task      .        .        .        .        gone     gone     .
"""


def _rows(table: str, events: dict[str, WorkerEvent]) -> list[tuple[str, str, str]]:
    header, *lines = filter(None, table.splitlines())
    states = header.split()
    rows = []
    for line in lines:
        longest = max((n for n in events if line.startswith(n + " ")), key=len)
        cells = line[len(longest) :].split()
        rows += [(longest, state, cell) for state, cell in zip(states, cells, strict=True)]
    return rows


def _check(subject: TaskOf, name: str, event: WorkerEvent, before: str, after: str) -> None:
    story = STATES[before](subject)
    assert story.state(20) == before
    story.happens(event, after=0.001)
    assert story.state(20) == (before if after == "." else after)
    story.core.sanity_check()
    if name != "StopWorker":
        story.end()
        assert story.core.info() == {"tasks": [], "objects": [], "objects_to_delete": []}


@pytest.mark.parametrize(("event", "before", "after"), _rows(TABLE, EVENTS))
def test_state_after(event, before, after):
    _check(TASK, event, EVENTS[event], before, after)


BLOCK_ROWS = [row for row in _rows(BLOCK_TABLE, BLOCK_EVENTS) if row[1] != "looking"]  # blocks are never looked up


@pytest.mark.parametrize(("event", "before", "after"), BLOCK_ROWS)
def test_state_of_a_block_after(event, before, after):
    _check(BLOCK, event, BLOCK_EVENTS[event], before, after)


def test_the_table_is_complete():
    assert set(STATES) == set(TASK_STATES)
    assert {row[0] for row in _rows(TABLE, EVENTS)} == set(EVENTS)
    assert {row[0] for row in _rows(BLOCK_TABLE, BLOCK_EVENTS)} == set(BLOCK_EVENTS)
    tried = {type(event) for event in EVENTS.values()}
    assert tried == set(core_module._HANDLERS)
    messages = {type(event.message) for event in EVENTS.values() if isinstance(event, ServerSaid)}
    assert messages == set(core_module._MESSAGE_HANDLERS)
