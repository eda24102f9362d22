"""`on_failure="continue"` (spec 11.6) and cancelling (spec 11.9)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest

from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32

if TYPE_CHECKING:
    from rain.common.failure import Failure


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory, on_failure: str = "fail") -> tuple[int, int]:
    client = story.client()
    story.say(client, m.NewSession(story.seq(), "test", on_failure, False))
    return client, story.take_one(client, m.SessionCreated).session


def family() -> SubmitBuilder:
    """12 -> 11 -> 14 -> 13 -> 16 -> 15, and 18 -> 17 beside it; all outputs kept."""
    builder = SubmitBuilder().task(12, [], [11], keep=True).task(14, [11], [13], keep=True)
    return builder.task(16, [13], [15], keep=True).task(18, [], [17], keep=True)


def states(story: ServerStory, session: int) -> list[str]:
    return [story.task_state(session, task).name for task in (12, 14, 16, 18)]


def wait(story: ServerStory, client: int, session: int, mode: int, *ids: int) -> int:
    seq = story.seq()
    story.say(client, m.Wait(seq, session, mode, u32(ids)))
    return seq


def cancel(story: ServerStory, client: int, session: int, *ids: int) -> None:
    story.say(client, m.Cancel(story.seq(), session, u32(ids)))


def refused(story: ServerStory, client: int) -> Failure:
    return story.failure(client)


class TestContinue:
    def test_dependents_are_aborted_the_rest_goes_on(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        worker = story.worker(cpus=2)
        story.submit(client, session, family())
        assert story.assigned(worker) == [12, 18]
        wait(story, client, session, m.WAIT_ALL, 16)
        story.fail(worker, session, 12, "boom")
        assert states(story, session) == ["failed", "aborted", "aborted", "assigned"]
        assert [story.object_state(session, obj) for obj in (11, 13, 15)] == [DataObjectState.aborted] * 3
        failure = refused(story, client)
        assert (failure.task, failure.message, failure.kind) == (12, "boom", "task")
        wait(story, client, session, m.WAIT_SESSION)
        assert not story.take(client, m.Refused)
        story.done(worker, session, 18)
        assert refused(story, client).task == 12
        for message in (
            m.Wait(90, session, m.WAIT_ALL, u32([14])),
            m.Wait(91, session, m.WAIT_ALL, u32([18, 15])),
            m.FetchObjects(92, session, u32([15]), []),
        ):
            story.say(client, message)
            assert refused(story, client).task == 12
        story.assert_nothing_unread()

    def test_wait_some_counts_terminal_things(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        worker = story.worker()
        story.submit(client, session, family())
        wait(story, client, session, m.WAIT_SOME, 16, 15)
        story.fail(worker, session, *story.assigned(worker))
        assert list(story.take_one(client, m.WaitDone).ids) in ([16], [15])
        wait(story, client, session, m.WAIT_SOME, 18, 16, 14)
        assert list(story.take_one(client, m.WaitDone).ids) == [16, 14]

    def test_update_unkeep_and_submit_do_not_fail(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        worker = story.worker()
        story.submit(client, session, family())
        story.fail(worker, session, *story.assigned(worker))
        story.say(client, m.GetStates(story.seq(), session, u32([12, 14, 11])))
        assert list(story.take_one(client, m.States).states) == [5, 7, 3]
        story.say(client, m.GetInfos(story.seq(), session, u32([12, 14, 11])))
        assert b"boom" in (story.take_one(client, m.Infos).infos[0] or b"")
        story.say(client, m.UnkeepObjects(story.seq(), session, u32([13])))
        story.take_one(client, m.Accepted)
        story.submit(client, session, SubmitBuilder().task(21, [15, 17], [20]).task(23, [20], [22], keep=True))
        assert story.task_state(session, 21) == story.task_state(session, 23) == TaskState.aborted
        wait(story, client, session, m.WAIT_ALL, 23)
        assert refused(story, client).task == 12

    def test_retries_come_first(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        one, two = story.worker(), story.worker()
        story.submit(client, session, SubmitBuilder().task(12, [], [11], keep=True, retries=2))
        first, other = (one, two) if story.sent.get(one) else (two, one)
        story.assigned(first)
        story.fail(first, session, 12)
        assert story.assigned(other) == [12], "another worker is preferred"
        story.fail(other, session, 12)
        runner = one if story.sent.get(one) else two
        story.assigned(runner)
        story.fail(runner, session, 12)
        assert story.task_state(session, 12) == TaskState.failed

    def test_values_of_failed_branches_are_freed(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        worker = story.worker()
        story.submit(client, session, SubmitBuilder().constant(10).task(12, [10], [11]).task(14, [11, 10], [13]))
        story.fail(worker, session, *story.assigned(worker))
        assert story.object_state(session, 10) == DataObjectState.removed
        assert story.graph(session).value[10] is None

    def test_recomputation_that_fails(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        worker = story.worker()
        story.submit(client, session, family())
        for _ in range(4):
            story.done(worker, session, *story.assigned(worker))
        story.leave(worker)
        another = story.worker()
        story.fail(another, session, *story.assigned(another))
        assert states(story, session)[:3] == ["failed", "aborted", "aborted"]
        wait(story, client, session, m.WAIT_ALL, 15)
        assert refused(story, client).message.startswith("while recomputing a result lost with a worker: boom")

    def test_a_second_output_lost_after_its_producer_failed(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        first, second = story.worker(), story.worker()
        story.submit(client, session, SubmitBuilder().task(12, [], [10, 11], keep=True))
        runner, other = (first, second) if story.sent.get(first) else (second, first)
        story.done(runner, session, *story.assigned(runner), size=9)
        story.say(other, m.ObjectsStored(session, u32([10])))
        story.leave(runner)
        story.fail(other, session, *story.assigned(other))
        assert story.object_state(session, 10) == DataObjectState.finished
        story.leave(other)
        assert story.object_state(session, 10) == DataObjectState.aborted

    def test_crash_limit_fails_only_the_task(self, story: ServerStory) -> None:
        client, session = opened(story, "continue")
        story.submit(client, session, SubmitBuilder().task(12, [], [11], priority=1).task(14, [], [13]))
        for _ in range(3):
            worker = story.worker()
            assert story.assigned(worker) == [12]
            story.started(worker, session, 12)
            story.leave(worker)
        assert story.task_state(session, 12) == TaskState.failed
        assert story.assigned(story.worker()) == [14]

    def test_unknown_policy(self, story: ServerStory) -> None:
        client = story.client()
        story.say(client, m.NewSession(7, "x", "sometimes", False))
        assert "neither 'fail' nor 'continue'" in refused(story, client).message


class TestCancel:
    def test_waiting_tasks_at_once(self, story: ServerStory) -> None:
        client, session = opened(story)
        story.submit(client, session, family())
        cancel(story, client, session, 14)
        assert list(story.take_one(client, m.Cancelled).ids) == [14]
        assert states(story, session) == ["ready", "cancelled", "aborted", "ready"]
        wait(story, client, session, m.WAIT_ALL, 16)
        assert (refused(story, client).kind, story.record(session).failure) == ("cancelled", None)
        cancel(story, client, session, 14)
        assert not story.take_one(client, m.Cancelled).ids

    def test_running_tasks_when_the_worker_says_so(self, story: ServerStory) -> None:
        client, session = opened(story)
        worker = story.worker()
        story.submit(client, session, family())
        assert story.assigned(worker) == [12]
        story.started(worker, session, 12)
        cancel(story, client, session, 12, 12)
        order = story.take_one(worker, m.CancelTasks)
        assert (list(order.tasks), order.grace) == ([12], 2.0)
        assert not story.take(client, m.Cancelled)
        assert not story.assigned(worker), "the run keeps its cpu until it is gone"
        story.say(worker, m.TasksStopped(session, order.tasks, order.runs))
        assert list(story.take_one(client, m.Cancelled).ids) == [12]
        assert story.assigned(worker) == [18]
        story.done(worker, session, 18)
        wait(story, client, session, m.WAIT_SESSION)
        story.take_one(client, m.WaitDone)

    @pytest.mark.parametrize("end", ["done", "failed", "returned", "lost"])
    def test_other_ends_of_a_run_being_stopped(self, story: ServerStory, end: str) -> None:
        client, session = opened(story)
        worker = story.worker()
        story.submit(client, session, family())
        story.started(worker, session, *story.assigned(worker))
        cancel(story, client, session, 12)
        order = story.take_one(worker, m.CancelTasks)
        if end == "done":
            done = m.TasksDone(
                session, u32([12]), u32([1]), array("d", [0]), array("d", [0]), [], array("Q", [1]), [], []
            )
            story.say(worker, done)
            assert list(story.take_one(worker, m.DeleteObjects).objects) == [11]
        elif end == "failed":
            story.say(worker, m.TaskFailed(session, 12, 1, {"kind": "task", "message": "x"}, 0.0, 0.0))
        elif end == "returned":
            story.say(worker, m.TasksReturned(session, order.tasks, order.runs))
        else:
            story.leave(worker)
        assert list(story.take_one(client, m.Cancelled).ids) == [12]
        assert states(story, session)[:2] == ["cancelled", "aborted"]

    def test_the_whole_session(self, story: ServerStory) -> None:
        client, session = opened(story)
        worker = story.worker(cpus=2)
        story.submit(client, session, family())
        story.assigned(worker)
        story.done(worker, session, 12)
        story.take(worker, m.AssignTasks)
        wait(story, client, session, m.WAIT_SESSION)
        cancel(story, client, session)
        assert states(story, session) == ["finished", "cancelled", "cancelled", "cancelled"]
        story.take_one(client, m.WaitDone)
        for order in story.take(worker, m.CancelTasks):
            story.say(worker, m.TasksStopped(session, order.tasks, order.runs))
        assert list(story.take_one(client, m.Cancelled).ids) == [14, 16, 18]
        assert story.object_state(session, 11) == DataObjectState.finished
        story.submit(client, session, SubmitBuilder().task(21, [11], [20], keep=True))
        assert story.assigned(worker) == [21]

    def test_a_session_that_ends_meanwhile(self, story: ServerStory) -> None:
        client, session = opened(story)
        worker = story.worker()
        story.submit(client, session, family())
        story.assigned(worker)
        cancel(story, client, session, 12)
        story.take(worker, m.CancelTasks)
        story.say(client, m.CloseSession(story.seq(), session))
        assert "closed" in refused(story, client).message
        story.take_one(client, m.Accepted)

    def test_refusals(self, story: ServerStory) -> None:
        client, session = opened(story)
        story.submit(client, session, family())
        cancel(story, client, session, 99)
        assert "id 1/99 does not exist" in refused(story, client).message
        cancel(story, client, session, 11)
        assert refused(story, client).message == "1/11 is not a task"
