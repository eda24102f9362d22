"""Workers stopped while the cluster goes on (spec 9.4)."""

from __future__ import annotations

import pytest

from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.draining import COPY_ROUNDS, COPY_SECONDS
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def stop(story: ServerStory, client: int, *peers: int, now: bool = False) -> int:
    names = [story.core.state.workers[story.core.state.worker_of_peer[peer]].worker_id for peer in peers]
    seq = story.seq()
    story.say(client, m.StopWorkers(seq, names, now))
    return seq


def test_an_idle_worker_stops(story: ServerStory) -> None:
    client, worker = story.client(), story.worker()
    seq = stop(story, client, worker)
    story.pass_time(0.5)
    story.take_one(worker, m.StopWorker)
    assert not story.take(client, m.Accepted)
    story.leave(worker)
    assert story.take_one(client, m.Accepted).seq == seq


def test_what_runs_is_finished_and_what_waits_runs_elsewhere(story: ServerStory) -> None:
    client, session, worker = story.client(), 0, story.worker(cpus=2)
    session = story.session(client)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True).task(13, [], [12], keep=True))
    assert story.assigned(worker) == [11, 13]
    story.started(worker, session, 11)
    stop(story, client, worker)
    assert list(story.take_one(worker, m.WithdrawTasks).tasks) == [13]
    story.say(worker, m.TasksReturned(session, u32([13]), u32([1])))
    story.pass_time(1)
    assert story.task_state(session, 13) == TaskState.ready, "a worker that is to end gets no tasks"
    assert not story.take(worker, m.StopWorker)
    other = story.worker()
    assert story.assigned(other) == [13]
    story.done(worker, session, 11)
    story.pass_time(0.5)
    copy = story.take_one(other, m.AssignTasks)
    assert (list(copy.tasks), list(copy.objects)) == ([], [10])
    story.pass_time(5)
    assert not story.take(worker, m.StopWorker)
    story.say(other, m.ObjectsStored(session, u32([10])))
    story.pass_time(0.5)
    story.take_one(worker, m.StopWorker)
    story.leave(worker)
    assert story.object_state(session, 10) == DataObjectState.finished
    assert story.task_state(session, 11) == TaskState.finished
    story.take_one(client, m.Accepted)


def test_now_means_as_if_lost_but_the_runs_are_not_to_blame(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    story.started(worker, session, *story.assigned(worker))
    stop(story, client, worker, now=True)
    story.take_one(worker, m.StopWorker)
    story.leave(worker)
    story.take_one(client, m.Accepted)
    other = story.worker()
    assignment = story.take_one(other, m.AssignTasks)
    assert (list(assignment.tasks), list(assignment.runs), list(assignment.solo)) == ([11], [2], [])


def test_without_another_worker_it_stops_and_its_objects_are_recomputed_later(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    story.done(worker, session, *story.assigned(worker))
    stop(story, client, worker)
    story.pass_time(1)
    story.take_one(worker, m.StopWorker)
    story.leave(worker)
    assert story.task_state(session, 11) == TaskState.ready


def test_copying_is_tried_again_and_given_up_in_the_end(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True))
    story.done(worker, session, *story.assigned(worker))
    other = story.worker()
    stop(story, client, worker)
    for _ in range(COPY_ROUNDS):
        story.pass_time(0.5)
        assert list(story.take_one(other, m.AssignTasks).objects) == [10]
        story.pass_time(COPY_SECONDS)
        story.say(other, m.WorkerDigest(0, 0, 0))
    story.pass_time(1)
    story.take_one(worker, m.StopWorker)


def test_unknown_workers_are_refused_and_nothing_stops(story: ServerStory) -> None:
    client, worker = story.client(), story.worker()
    known = story.core.state.workers[1].worker_id
    story.say(client, m.StopWorkers(story.seq(), [known, "10.9.9.9:1"], True))
    failure = story.failure(client)
    assert failure.message == f"there is no worker 10.9.9.9:1; connected workers: {known}"
    assert not story.take(worker, m.StopWorker)


def test_a_client_that_leaves_does_not_end_the_draining(story: ServerStory) -> None:
    client, worker = story.client(), story.worker()
    stop(story, client, worker)
    story.leave(client)
    story.pass_time(1)
    story.take_one(worker, m.StopWorker)
    assert not story.core.state.stop_requests or story.leave(worker) is None


def test_two_ask_for_the_same(story: ServerStory) -> None:
    first, second, worker = story.client(), story.client(), story.worker()
    stop(story, first, worker)
    stop(story, second, worker, now=True)
    story.pass_time(1)
    assert len(story.take(worker, m.StopWorker)) == 1
    story.leave(worker)
    story.take_one(first, m.Accepted)
    story.take_one(second, m.Accepted)


def test_tasks_that_only_draining_workers_could_run_are_infeasible(story: ServerStory) -> None:
    client, small, large = story.client(), story.worker(cpus=1), story.worker(cpus=4)
    session = story.session(client)
    stop(story, client, large)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], resources={"cpus": 4}))
    story.pass_time(1)
    warning = story.take_one(client, m.SessionWarning)
    assert warning.text == f"Task {session}/11 cannot run: needs cpus=4; largest worker offers cpus=1 (1 worker)"
    stop(story, client, small)
    story.say(client, m.Explain(story.seq(), session, u32([11])))
    assert "needs cpus=4; all 2 workers are to stop" in story.take_one(client, m.Explained).texts[0]
