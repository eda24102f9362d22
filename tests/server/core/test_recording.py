"""What the core records for the event log (spec 10.2)."""

from __future__ import annotations

from array import array

import pytest

from rain.common.blocks import BlockResult
from rain.common.failure import Failure
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
from rain.server.core.events import PeerJoined, PeerLeft
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory) -> tuple[int, int, int]:
    client, worker = story.client(), story.worker(cpus=2)
    session = story.session(client)
    story.records.clear()
    return client, worker, session


def events(story: ServerStory) -> list[tuple[str, int | None]]:
    return [(record.type, record.session) for record in story.records if isinstance(record, Event)]


def test_comings_and_goings(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker(cpus=3)
    story.say(client, m.CloseSession(story.seq(), session))
    story.leave(worker, "connection reset")
    story.leave(client, "closed by the other side")
    kinds = [(record.type, record.session) for record in story.records if isinstance(record, Event)]
    assert kinds == [
        ("ClientNew", None),
        ("SessionNew", session),
        ("WorkerNew", None),
        ("SessionClosed", session),
        ("WorkerRemoved", None),
        ("ClientRemoved", None),
    ]
    fields = [record.fields for record in story.records if isinstance(record, Event)]
    new, opened_, joined, closed, removed, left = fields
    assert new == {"client": "10.0.0.1:1000"}
    spec = {"name": "test", "on_failure": "fail", "persistent": False}
    assert opened_ == {"session": session, "client": "10.0.0.1:1000", "spec": spec}
    worker_id = "10.0.0.2:9000"
    about = {"hostname": "host", "pid": 1, "resources": {"cpus": 3}}
    assert joined == {"worker": worker_id, "governor": worker_id, **about}
    assert closed == {"session": session, "reason": "ClientClose", "message": "closed by its client"}
    assert removed == {"worker": worker_id, "governor": worker_id, "error_msg": "connection reset"}
    assert left == {"client": "10.0.0.1:1000", "error_msg": "closed by the other side"}


def test_a_submit_and_its_runs(story: ServerStory) -> None:
    client, worker, session = opened(story)
    builder = SubmitBuilder().constant(10).task(12, [10], [11], keep=True).task(15, [11], [13, 14], keep=True)
    story.submit(client, session, builder)
    (submitted,) = story.records
    assert isinstance(submitted, Submitted)
    assert (submitted.session, submitted.first_template) == (session, 0)
    assert all(not chunk.values for chunk in submitted.chunks if isinstance(chunk, m.SubmitChunk))
    assert [list(chunk.tasks) for chunk in submitted.chunks if isinstance(chunk, m.SubmitChunk)] == [[12, 15]]
    story.records.clear()
    story.done(worker, session, 12, size=7)
    story.started(worker, session, 15)
    story.done(worker, session, 15)
    first, started, second = story.records
    assert isinstance(first, RunsFinished)
    assert isinstance(second, RunsFinished)
    assert first.worker == "10.0.0.2:9000"
    assert (list(first.tasks), list(first.runs), list(first.outputs)) == ([12], [1], [11])
    assert (list(first.output_counts), list(first.sizes), list(first.announced)) == ([], [7], [])
    assert started == RunsStarted(session, "10.0.0.2:9000", u32([15]), u32([1]))
    assert (list(second.outputs), list(second.output_counts), list(second.announced)) == ([13, 14], [2], [0])
    totals = story.core.metrics().totals
    assert [totals[name] for name in ("submitted", "started", "finished")] == [2, 2, 2]


def test_of_reports_partly_outdated_only_the_current_part_counts(story: ServerStory) -> None:
    client, worker, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True).task(13, [], [12], keep=True))
    story.assigned(worker)
    story.say(worker, m.TasksReturned(session, u32([11]), u32([1])))
    story.records.clear()
    sizes = array("Q", [1, 2])
    times = array("d", [1.0, 2.0]), array("d", [0.1, 0.2])
    story.say(worker, m.TasksDone(session, u32([11, 13]), u32([1, 1]), *times, [None, b"\x80"], sizes, [], []))
    (record,) = story.records
    assert record == RunsFinished(
        session, "10.0.0.2:9000", u32([13]), u32([1]), array("d", [2.0]), array("d", [0.2]), [b"\x80"], u32([]),
        u32([12]), array("Q", [2]),
    )  # fmt: skip


def test_a_failure_comes_before_the_end_of_its_session_and_that_only_once(story: ServerStory) -> None:
    client, worker, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10]))
    story.assigned(worker)
    story.records.clear()
    story.fail(worker, session, 11, "boom")
    story.say(client, m.CloseSession(story.seq(), session))
    assert events(story) == [("TaskStarted", session), ("TaskFinished", session), ("SessionClosed", session)]
    _, finished, closed = [record.fields for record in story.records if isinstance(record, Event)]
    assert finished["task"] == [session, 11]
    assert (finished["info"]["error"], finished["info"]["start_time"]) == ("boom", 1.0)
    assert (closed["reason"], closed["message"]) == ("Error", "boom")


def test_retries_and_lost_workers(story: ServerStory) -> None:
    client, worker, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True, retries=1))
    story.assigned(worker)
    story.records.clear()
    story.fail(worker, session, 11, "first")
    story.started(worker, session, *story.assigned(worker))
    story.leave(worker, "gone")
    other = story.worker()
    story.done(other, session, *story.assigned(other))
    story.leave(other, "gone too")
    retried = [record.fields for record in story.records if isinstance(record, Event) and record.type == "TaskRetried"]
    assert [fields["task"] for fields in retried] == [[session, 11]] * 3
    assert [fields["run"] for fields in retried] == [2, 3, 4]
    assert [fields["reason"] for fields in retried] == [
        "failed on 10.0.0.2:9000: first",
        "10.0.0.2:9000 was lost: gone",
        "a result of it was lost and is still needed",
    ]
    assert story.core.metrics().totals["recomputed"] == 1


def test_cancelled_and_aborted_tasks_in_stretches(story: ServerStory) -> None:
    client, _, session = opened(story)
    builder = SubmitBuilder().task(11, [], [10])
    for number in (13, 15, 17):
        builder.task(number, [10], [number - 1])
    story.submit(client, session, builder)
    story.records.clear()
    story.say(client, m.Cancel(story.seq(), session, u32([11])))
    ended = {record.type: record for record in story.records if isinstance(record, TasksEnded)}
    cancelled, aborted = ended["TaskCancelled"], ended["TaskAborted"]
    assert (list(cancelled.firsts), list(cancelled.counts)) == ([11], [1])
    assert (sorted(aborted.firsts), list(aborted.counts)) == ([13, 15, 17], [1, 1, 1])


def test_members_of_an_array(story: ServerStory) -> None:
    client, worker, session = opened(story)
    story.submit(client, session, SubmitBuilder().array(100, 20, keep=True))
    for _ in range(40):
        for task, count in story.blocks(worker):
            if count:
                story.block_done(worker, session, task)
            else:
                story.done(worker, session, task, seconds=0.001)
    finished = 0
    for record in story.records:
        if isinstance(record, MembersFinished):
            assert record.output == record.task - 20
            assert len(record.durations) == len(record.sizes)
            finished += len(record.durations)
        elif isinstance(record, RunsFinished):
            finished += len(record.tasks)
    assert finished == 20
    assert story.core.metrics().totals["finished"] == 20


def test_a_member_whose_value_stays_at_the_worker(story: ServerStory) -> None:
    client, worker, session = opened(story)
    story.submit(client, session, SubmitBuilder().array(100, 40, keep=True))
    while True:
        ((task, count), *_) = story.blocks(worker)
        if count:
            break
        story.done(worker, session, task, seconds=0.0001)
    story.records.clear()
    result = BlockResult(array("f", [0.1]), array("I", [1]), b"v", end="stored", start=5.0, duration=0.5)
    story.block_done(worker, session, task, result, size=100_000)
    members, single = [record for record in story.records if isinstance(record, MembersFinished | RunsFinished)]
    assert isinstance(members, MembersFinished)
    assert isinstance(single, RunsFinished)
    assert (members.task, len(members.durations)) == (task, 1)
    assert (list(single.tasks), list(single.outputs), list(single.sizes)) == ([task + 1], [task + 1 - 40], [100_000])
    assert (list(single.starts), list(single.durations)) == ([5.0], [0.5])


def test_unkept_infeasible_and_refused(story: ServerStory) -> None:
    client, _, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True, resources={"cpus": 99}))
    story.records.clear()
    story.pass_time(2)
    story.say(client, m.UnkeepObjects(story.seq(), session, u32([10])))
    story.say(client, m.UnkeepObjects(story.seq(), session, u32([10])))
    infeasible, unkept, refused = story.records
    assert isinstance(infeasible, Event)
    assert (infeasible.type, infeasible.fields["task"]) == ("TaskInfeasible", [session, 11])
    assert unkept == ObjectsUnkept(session, u32([10]))
    about = {"client": "10.0.0.1:1000", "error_msg": f"{session}/10 is not a kept data object"}
    assert refused == Event("ClientInvalidRequest", session, about)


def test_the_dashboard_is_no_client(story: ServerStory) -> None:
    story = ServerStory(idle_timeout=2.0)
    story.step(PeerJoined(77, "http", "dashboard", "10.0.0.99:7210", "3.11.7"))
    story.say(77, m.Explain(story.seq(), 9, u32([1])))
    assert Failure.from_map(story.take_one(77, m.Refused).failure).message.startswith("Session 9 is closed")
    assert story.core.metrics().clients == 0
    story.pass_time(3)
    assert story.other_actions, "nobody is there: the server ends"
    story.step(PeerLeft(77, "closed"))
    assert not story.records
