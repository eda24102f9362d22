"""Defects of Rain (made here by hand) do not let anybody wait for ever."""

from __future__ import annotations

import pytest

from rain.protocol import messages as m
from rain.protocol.worker_messages import run_digest
from rain.server.core.actions import Drop, Log
from rain.server.core.events import PeerSaid, Tick
from rain.server.core.graph import ASSIGNED, NOT_ASSIGNED, READY
from rain.server.core.watchdog import PATIENCE, SLICE
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def running(story: ServerStory, cpus: int = 1) -> tuple[int, int, int]:
    """A client waits for a session of two tasks, 11 -> 10 -> 13 -> 12."""
    client = story.client()
    session = story.session(client)
    worker = story.worker(cpus=cpus)
    builder = SubmitBuilder().task(11, [], [10], name="first").task(13, [10], [12], keep=True)
    story.submit(client, session, builder)
    story.say(client, m.Wait(story.seq(), session, m.WAIT_SESSION, u32()))
    return client, session, worker


def ticks(story: ServerStory, count: int = PATIENCE) -> None:
    """Ticks without the sanity check, which would find the defect itself."""
    for _ in range(count):
        story.now += 0.5
        for action in story.core.handle([Tick()], story.now):
            message = getattr(action, "message", None)
            if message is not None:
                story.sent.setdefault(action.peer, []).append(message)  # type: ignore[union-attr]
            else:
                story.other_actions.append(action)


def reported(story: ServerStory, client: int) -> str:
    """The text for the user; the log has the story."""
    failure = story.failure(client)
    assert failure.kind == "internal"
    assert any("Task " in getattr(action, "text", "") for action in story.other_actions)
    return failure.message


def test_ready_but_nowhere_queued(story: ServerStory) -> None:
    client, session, worker = running(story)
    record = story.record(session)
    assigned = story.core.state.workers[1]
    assigned.release(session, 11, record.templates[record.graph.template[11]].request)
    record.graph.worker[11], record.graph.state[11] = 0, READY
    record.ready += 1
    ticks(story, PATIENCE - 1)
    assert not story.take(client, m.Refused)
    ticks(story, 1)
    assert "found 1 tasks ready but nowhere queued, first 'first' (1/11)" in reported(story, client)
    assert story.take_one(worker, m.EndSession)


def test_inputs_that_nothing_makes(story: ServerStory) -> None:
    client, session, worker = running(story)
    story.done(worker, session, 11)
    record = story.record(session)
    graph = record.graph
    story.core.state.workers[1].release(session, 13, record.templates[graph.template[13]].request)
    graph.worker[13], graph.state[13], graph.missing[13] = 0, NOT_ASSIGNED, 1
    ticks(story)
    assert "waiting for inputs that nothing makes" in reported(story, client)


def test_assigned_to_a_worker_that_is_gone(story: ServerStory) -> None:
    client, session, _ = running(story)
    graph = story.graph(session)
    graph.state[13], graph.worker[13] = ASSIGNED, 77
    ticks(story, 1)
    assert "found 1 tasks assigned to a worker that is gone, first 1/13" in reported(story, client)


def test_a_long_graph_is_looked_at_in_slices(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    story.worker()
    builder = SubmitBuilder()
    for number in range(10, 10 + 3 * SLICE, 2):
        builder.task(number + 1, [], [number])
    story.submit(client, session, builder)
    graph = story.graph(session)
    graph.state[3 * SLICE - 1], graph.worker[3 * SLICE - 1] = ASSIGNED, 77
    ticks(story, 2)
    assert story.record(session).failure is None
    ticks(story, 2)
    assert story.record(session).failure is not None


def test_a_healthy_cluster_is_left_alone(story: ServerStory) -> None:
    client, session, worker = running(story)
    story.pass_time(30)
    story.done(worker, session, 11)
    story.pass_time(30)
    story.done(worker, session, 13)
    assert story.take_one(client, m.WaitDone)


class TestDigests:
    def digest(self, story: ServerStory, *runs: tuple[int, int, int], heard: int | None = None) -> m.WorkerDigest:
        told = story.core.state.workers[1].told
        combined = 0
        for run in runs:
            combined ^= run_digest(*run)
        return m.WorkerDigest(told if heard is None else heard, len(runs), combined)

    def say_runs(self, story: ServerStory, worker: int, *runs: tuple[int, int, int]) -> None:
        told = story.core.state.workers[1].told
        columns = [u32(column) for column in zip(*runs, strict=True)] or [u32(), u32(), u32()]
        message = m.WorkerRuns(told, *columns)
        for action in story.core.handle([PeerSaid(worker, message)], story.now):
            if (sent := getattr(action, "message", None)) is not None:
                story.sent.setdefault(action.peer, []).append(sent)  # type: ignore[union-attr]
            else:
                story.other_actions.append(action)

    def test_agreement(self, story: ServerStory) -> None:
        _, session, worker = running(story)
        for _ in range(5):
            story.say(worker, self.digest(story, (session, 11, 1)))
        assert not story.take(worker, m.ListRuns)

    def test_nothing_is_compared_while_messages_are_under_way(self, story: ServerStory) -> None:
        _, _, worker = running(story)
        for _ in range(5):
            story.say(worker, self.digest(story, heard=1))
        assert not story.take(worker, m.ListRuns)

    def test_a_task_the_worker_does_not_have(self, story: ServerStory) -> None:
        _, session, worker = running(story)
        for _ in range(PATIENCE):
            assert not story.take(worker, m.ListRuns)
            story.say(worker, self.digest(story))
        assert story.take_one(worker, m.ListRuns)
        self.say_runs(story, worker)
        (dropped,) = [action for action in story.other_actions if isinstance(action, Drop)]
        assert (dropped.peer, dropped.reason.startswith("1 tasks assigned to 10.0.0.2:9000")) == (worker, True)
        logged = [action.text for action in story.other_actions if isinstance(action, Log)]
        (text,) = [text for text in logged if "internal error 1:" in text]
        assert "Task 'first' (1/11) is assigned" in text
        story.leave(worker)
        assert story.assigned(story.worker()) == [11]
        assert story.record(session).failure is None

    def test_a_run_nobody_asked_for(self, story: ServerStory) -> None:
        _, session, worker = running(story)
        for _ in range(PATIENCE):
            story.say(worker, self.digest(story, (session, 11, 1), (9, 44, 2)))
        assert story.take_one(worker, m.ListRuns)
        self.say_runs(story, worker, (session, 11, 1), (9, 44, 2))
        order = story.take_one(worker, m.CancelTasks)
        assert (order.session, list(order.tasks), list(order.runs)) == (9, [44], [2])
        assert any("holds 1 runs nobody asked for: 9/44" in getattr(a, "text", "") for a in story.other_actions)
        assert story.record(session).failure is None
