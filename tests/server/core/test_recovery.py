"""Loss of workers and of objects (spec 6.9)."""

from __future__ import annotations

from array import array

import pytest

from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.events import ConstantLost
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory) -> tuple[int, int]:
    client = story.client()
    return client, story.session(client)


def test_tasks_of_a_lost_worker_run_elsewhere_with_a_new_run_number(story: ServerStory) -> None:
    client, session = opened(story)
    first = story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    assert list(story.take_one(first, m.AssignTasks).runs) == [1]
    second = story.worker()
    story.leave(first)
    assignment = story.take_one(second, m.AssignTasks)
    assert (list(assignment.tasks), list(assignment.runs), list(assignment.solo)) == ([11], [2], [])
    story.done(second, session, 11)
    assert story.object_state(session, 10) == DataObjectState.finished


def test_results_of_superseded_runs_are_dropped(story: ServerStory) -> None:
    client, session = opened(story)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    story.assigned(worker)
    story.say(worker, m.TasksReturned(session, u32([11]), u32([1])))
    assert list(story.take_one(worker, m.AssignTasks).runs) == [2]
    old = m.TasksDone(session, u32([11]), u32([1]), array("d", [0]), array("d", [0]), [], array("Q", [1]), [], [])
    story.say(worker, old)
    assert story.task_state(session, 11) == TaskState.assigned


def test_lost_objects_are_recomputed_as_far_as_needed(story: ServerStory) -> None:
    client, session = opened(story)
    first = story.worker()
    builder = SubmitBuilder().constant(10).task(12, [10], [11]).task(14, [11], [13], keep=True)
    story.submit(client, session, builder.task(16, [], [15], keep=True).task(18, [], [17]))
    for _ in range(4):
        story.done(first, session, *story.assigned(first))
    assert story.object_state(session, 11) == DataObjectState.removed
    assert story.object_state(session, 17) == DataObjectState.removed
    story.leave(first)
    assert [story.task_state(session, task) for task in (12, 14, 16, 18)] == [
        TaskState.ready,
        TaskState.notAssigned,
        TaskState.ready,
        TaskState.finished,
    ]
    assert story.object_state(session, 10) == DataObjectState.finished, "the constant is still at the server"
    second = story.worker()
    assert story.assigned(second) == [12]
    story.done(second, session, 12)
    assert story.assigned(second) == [14]
    story.done(second, session, 14)
    story.done(second, session, *story.assigned(second))
    assert story.object_state(session, 13) == DataObjectState.finished
    assert story.record(session).unfinished == 0


def test_a_copy_elsewhere_saves_the_object(story: ServerStory) -> None:
    client, session = opened(story)
    first, second = story.worker(), story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    story.done(first, session, *story.assigned(first), size=100)
    story.say(second, m.ObjectsStored(session, u32([10])))
    story.leave(first)
    assert story.object_state(session, 10) == DataObjectState.finished


def test_a_rerun_does_not_replace_outputs_that_were_not_lost(story: ServerStory) -> None:
    client, session = opened(story)
    first, second = story.worker(), story.worker()
    story.submit(client, session, SubmitBuilder().task(12, [], [10, 11], keep=True))
    story.done(first, session, *story.assigned(first), size=5)
    story.say(second, m.ObjectsStored(session, u32([10])))
    story.leave(first)
    assert story.object_state(session, 10) == DataObjectState.finished
    assert story.object_state(session, 11) == DataObjectState.unfinished
    third = story.worker()
    runner = second if story.sent.get(second) else third
    assert story.assigned(runner) == [12]
    story.done(runner, session, 12, size=6)
    assert story.graph(session).size[10] == 5
    assert story.graph(session).size[11] == 6


def test_waiting_consumers_of_lost_objects_are_withdrawn(story: ServerStory) -> None:
    client, session = opened(story)
    first = story.worker(cpus=1)
    builder = SubmitBuilder().task(11, [], [10]).task(13, [10], [12], keep=True, resources={"gpus": 1})
    story.submit(client, session, builder)
    story.done(first, session, *story.assigned(first), size=1000)
    second = story.worker(cpus=1, gpus=[0])
    assert story.assigned(second) == [13]
    story.leave(first)
    withdrawn = story.take_one(second, m.WithdrawTasks)
    assert list(withdrawn.tasks) == [13]
    assert story.task_state(session, 13) == TaskState.assigned
    story.say(second, m.TasksReturned(session, u32([13]), withdrawn.runs))
    assert story.task_state(session, 13) == TaskState.notAssigned
    assert story.assigned(second) == [11]
    story.done(second, session, 11)
    assert story.assigned(second) == [13]


def test_crash_limit(story: ServerStory) -> None:
    client, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    story.say(client, m.Wait(story.seq(), session, m.WAIT_SESSION, u32()))
    for count in range(3):
        assert not story.take(client, m.Refused)
        worker = story.worker()
        assignment = story.take_one(worker, m.AssignTasks)
        assert list(assignment.solo) == ([11] if count else [])
        story.started(worker, session, 11)
        story.leave(worker)
    failure = story.failure(client)
    assert failure.message.startswith("The task was running on 3 workers when they were lost: 10.0.0.")


def test_waiting_tasks_do_not_count_against_the_crash_limit(story: ServerStory) -> None:
    client, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    for count in range(5):
        worker = story.worker()
        assignment = story.take_one(worker, m.AssignTasks)
        assert list(assignment.solo) == ([11] if count >= 2 else [])  # it may have run for a moment: watch it alone
        story.leave(worker)
    assert story.record(session).failure is None


def test_unreadable_copy_counts_as_lost(story: ServerStory) -> None:
    client, session = opened(story)
    holder = story.worker(cpus=1)
    builder = SubmitBuilder().task(11, [], [10]).task(13, [10], [12], keep=True, resources={"gpus": 1})
    story.submit(client, session, builder)
    story.done(holder, session, *story.assigned(holder), size=1000)
    other = story.worker(cpus=1, gpus=[0])
    assert story.assigned(other) == [13]
    story.say(
        other,
        m.ObjectsMissing(session, 10, [f"10.0.0.{holder}:9000"]),
        m.TasksReturned(session, u32([13]), u32([1])),
    )
    assert list(story.take_one(holder, m.DeleteObjects).objects) == [10]
    assert story.task_state(session, 11) in (TaskState.assigned, TaskState.ready)
    story.take(other, m.WithdrawTasks)


def test_an_object_nobody_can_ever_read_fails_the_session(story: ServerStory) -> None:
    client, session = opened(story)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().constant(10, keep=True).task(12, [10], [11]))
    story.say(client, m.Wait(story.seq(), session, m.WAIT_SESSION, u32()))
    for _ in range(21):
        story.say(worker, m.ObjectsMissing(session, 10, ["10.0.0.99:7210"]))
    failure = story.failure(client)
    assert failure.kind == "session"
    assert "could not be read 21 times" in failure.message


def test_an_object_which_stores_refuse_is_still_good(story: ServerStory) -> None:
    """Tasks fail where there is no room for it; neither the object nor its session is to blame."""
    client, session = opened(story)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().constant(10, keep=True).task(12, [10], [11]))
    for _ in range(30):
        story.say(worker, m.ObjectsMissing(session, 10, [f"10.0.0.{worker}:9000"], refused=True))
    assert story.object_state(session, 10) == DataObjectState.finished
    assert story.task_state(session, 12) == TaskState.assigned


def test_stored_copy_of_an_object_no_longer_needed_is_deleted(story: ServerStory) -> None:
    client, session = opened(story)
    worker, other = story.worker(), story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10]))
    runner = worker if story.sent.get(worker) else other
    idle = other if runner is worker else worker
    story.done(runner, session, *story.assigned(runner))
    assert story.object_state(session, 10) == DataObjectState.removed
    story.say(idle, m.ObjectsStored(session, u32([10])))
    assert list(story.take_one(idle, m.DeleteObjects).objects) == [10]


def test_a_constant_that_the_server_cannot_store_fails_its_session(story: ServerStory) -> None:
    client, session = opened(story)
    other = story.session(client)
    story.submit(client, session, SubmitBuilder().constant(10).task(12, [10], [11], keep=True))
    story.submit(client, other, SubmitBuilder().task(12, [], [11], keep=True))
    story.step(ConstantLost(session, 10, "no space at /somewhere"), ConstantLost(session, 10, "again"))
    story.step(ConstantLost(99, 10, "of a session that is gone"))
    failure = story.record(session).failure
    assert failure is not None
    assert failure.message == f"The server cannot store data object {session}/10: no space at /somewhere"
    assert story.record(other).failure is None


def test_lineage_outlives_an_output_that_nobody_needs(story: ServerStory) -> None:
    """One output of a task is given up last, the other one's consumer must run again: so must the task."""
    client = story.client()
    session = story.session(client)
    builder = SubmitBuilder().task(12, [], [10, 11], keep=True, args=b"arguments").task(14, [10], [13], keep=True)
    worker = story.worker()
    story.submit(client, session, builder)
    story.done(worker, session, 12)
    story.done(worker, session, 14)
    for obj in (10, 11):
        story.say(client, m.UnkeepObjects(story.seq(), session, u32([obj])))
    story.leave(worker)
    other = story.worker()
    again = story.take_one(other, m.AssignTasks)
    assert (list(again.tasks), again.args) == ([12], [b"arguments"])


def test_what_a_lost_result_needs_may_have_been_cancelled_while_it_was_recomputed(story: ServerStory) -> None:
    """Two lose their results one after the other; in between the maker of their input is cancelled."""
    client, session = opened(story)
    worker, other = story.worker(), story.worker()
    builder = SubmitBuilder().task(12, [], [11]).task(14, [11], [13], keep=True).task(16, [11], [15], keep=True)
    story.submit(client, session, builder)
    first, second = (worker, other) if story.sent.get(worker) else (other, worker)
    story.done(first, session, *story.assigned(first))
    for peer in (first, second):
        story.done(peer, session, *story.assigned(peer))
    story.leave(first)
    states = [story.task_state(session, task) for task in (12, 14, 16)]
    assert sorted(states[1:]) == [TaskState.notAssigned, TaskState.finished], "one is there, the other is recomputed"
    assert states[0] == TaskState.assigned
    story.say(client, m.Cancel(story.seq(), session, u32([12])))
    story.leave(second)
    assert {story.task_state(session, task) for task in (14, 16)} == {TaskState.aborted}
    assert {story.object_state(session, obj) for obj in (13, 15)} == {DataObjectState.aborted}
    assert story.record(session).unfinished == 0
