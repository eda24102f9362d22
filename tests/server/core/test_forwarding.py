"""Questions that workers answer: who is asked, what becomes of the answer, and that everybody gets one."""

from __future__ import annotations

from typing import Any

import pytest

from rain.common.failure import Failure
from rain.protocol import messages as m
from rain.server.core.actions import Drop
from rain.server.core.failing import fail_session
from rain.server.core.forwarding import CHECK_SECONDS, LOG_SECONDS, LONGEST_LOG
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32

TASK, PROGRAM, CONCAT, LATER = 11, 13, 15, 17
FIRST, MEMBERS = 20, 100


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def submitted(story: ServerStory, on_failure: str = "continue") -> tuple[int, int, int]:
    """Client, session and worker of tasks that are all assigned, but LATER, which waits."""
    client, worker = story.client(), story.worker(cpus=4)
    story.say(client, m.NewSession(story.seq(), "test", on_failure, False))
    session = story.take_one(client, m.SessionCreated).session
    builder = SubmitBuilder().task(TASK, [], [10], keep=True, name="prints")
    builder.task(PROGRAM, [], [12], task_type="buildin/run").task(CONCAT, [], [14], task_type="buildin/concat")
    builder.task(LATER, [10], [16])
    story.submit(client, session, builder)
    story.assigned(worker)
    story.take(worker, m.AssignTasks)
    return client, session, worker


def ask(story: ServerStory, client: int, session: int, task: int = TASK, **more: Any) -> int:
    seq = story.seq()
    fields = {"stream": "stdout", "offset": 0, "limit": 100, **more}
    story.say(client, m.GetTaskLog(seq, session, task, **fields))
    return seq


def read(number: int, data: bytes = b"printed", **more: Any) -> m.TaskLogRead:
    return m.TaskLogRead(**{"offset": 0, "size": len(data), "ended": True, "hint": "", **more}, seq=number, data=data)


class TestLogs:
    @pytest.mark.parametrize("task", [TASK, PROGRAM])
    def test_the_worker_that_runs_it_is_asked(self, story: ServerStory, task: int) -> None:
        client, session, worker = submitted(story)
        story.started(worker, session, task)
        seq = ask(story, client, session, task, stream="stderr", offset=3, limit=5)
        asked = story.take_one(worker, m.ReadTaskLog)
        assert asked == m.ReadTaskLog(asked.seq, session, task, "stderr", 3, 5)
        story.say(worker, read(asked.seq, b"rest", offset=3, size=7, hint="as told"))
        assert story.take_one(client, m.TaskLog) == m.TaskLog(seq, b"rest", 3, 7, False, "as told")
        story.assert_nothing_unread()

    def test_it_has_ended_when_worker_and_server_say_so(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        story.done(worker, session, TASK)
        for ended in (True, False):
            ask(story, client, session)
            story.say(worker, read(story.take_one(worker, m.ReadTaskLog).seq, ended=ended))
            assert story.take_one(client, m.TaskLog).ended is ended

    def test_no_more_than_is_sound_is_asked_for(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        ask(story, client, session, limit=1 << 31)
        assert story.take_one(worker, m.ReadTaskLog).limit == LONGEST_LOG

    def test_a_task_that_was_not_told_to_have_begun(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        ask(story, client, session)
        story.say(worker, read(story.take_one(worker, m.ReadTaskLog).seq, b"", hint="nothing"))
        answer = story.take_one(client, m.TaskLog)
        assert (answer.hint, answer.ended) == ("the task has not begun yet", False)

    def test_members_of_a_block(self, story: ServerStory) -> None:
        client, worker = story.client(), story.worker()
        session = story.session(client)
        story.submit(client, session, SubmitBuilder().array(FIRST, MEMBERS))
        story.take(worker, m.AssignTasks)
        story.done(worker, session, FIRST + MEMBERS, seconds=0.001)
        assert story.blocks(worker)[-1][1] > 1
        member = FIRST + 2 * MEMBERS - 1
        ask(story, client, session, member)
        assert story.take_one(worker, m.ReadTaskLog).task == member

    def test_built_in_tasks_write_nothing(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        ask(story, client, session, CONCAT)
        answer = story.take_one(client, m.TaskLog)
        assert "buildin/concat; they write nothing" in answer.hint
        assert not answer.ended
        story.done(worker, session, CONCAT)
        ask(story, client, session, CONCAT)
        assert story.take_one(client, m.TaskLog).ended

    @pytest.mark.parametrize(
        ("task", "more", "text"),
        [
            (LATER, {}, "has not run: it is notAssigned"),
            (10, {}, "1/10 is no task"),
            (99, {}, "1/99 is no task"),
            (0, {}, "1/0 is no task"),
            ((1 << 32) - 1, {}, "is no task"),
            (TASK, {"stream": "+out"}, "no stream '+out', only stdout and stderr"),
        ],
    )
    def test_refused(self, story: ServerStory, task: int, more: dict[str, Any], text: str) -> None:
        client, session, _ = submitted(story)
        ask(story, client, session, task, **more)
        failure = story.failure(client)
        assert failure.kind == "invalid"
        assert text in failure.message

    def test_outputs_of_members_are_no_tasks(self, story: ServerStory) -> None:
        client = story.client()
        session = story.session(client)
        story.submit(client, session, SubmitBuilder().array(FIRST, MEMBERS))
        for number, text in ((FIRST, "is no task"), (FIRST + MEMBERS, "has not run: it is ready")):
            ask(story, client, session, number)
            assert text in story.failure(client).message

    def test_no_such_session(self, story: ServerStory) -> None:
        client = story.client()
        ask(story, client, 5)
        assert "Session 5 is closed or never was" in story.failure(client).message

    def test_the_worker_is_gone(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        story.done(worker, session, TASK)
        story.leave(worker)
        ask(story, client, session)
        answer = story.take_one(client, m.TaskLog)
        assert f"the worker 10.0.0.{worker}:9000, where the task ran, is gone" in answer.hint

    def test_the_worker_goes_meanwhile(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        story.started(worker, session, TASK)
        seq = ask(story, client, session)
        story.leave(worker)
        answer = story.take_one(client, m.TaskLog)
        assert (answer.seq, answer.ended) == (seq, False)
        assert "is gone" in answer.hint
        ask(story, client, session)
        assert "is gone" in story.take_one(client, m.TaskLog).hint

    def test_the_worker_hangs(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        ask(story, client, session)
        asked = story.take_one(worker, m.ReadTaskLog)
        story.pass_time(LOG_SECONDS - 0.5)
        assert not story.take(client, m.TaskLog)
        story.pass_time(0.5)
        assert "did not answer within 5 s" in story.take_one(client, m.TaskLog).hint
        story.say(worker, read(asked.seq))
        story.assert_nothing_unread()

    def test_the_client_left(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        other = story.client()
        ask(story, other, session)
        asked = story.take_one(worker, m.ReadTaskLog)
        story.leave(other)
        assert not story.core.state.log_requests
        story.say(worker, read(asked.seq))
        story.assert_nothing_unread()
        assert client in story.core.state.clients

    def test_a_cancelled_run(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        story.started(worker, session, TASK)
        story.say(client, m.Cancel(story.seq(), session, u32([TASK])))
        cancelled = story.take_one(worker, m.CancelTasks)
        story.say(worker, m.TasksStopped(session, cancelled.tasks, cancelled.runs))
        story.take_one(client, m.Cancelled)
        ask(story, client, session)
        story.say(worker, read(story.take_one(worker, m.ReadTaskLog).seq))
        assert story.take_one(client, m.TaskLog).ended


class TestFailedSessions:
    def test_the_task_to_blame(self, story: ServerStory) -> None:
        client, session, worker = submitted(story, "fail")
        story.fail(worker, session, TASK)
        story.take(worker, m.EndSession)
        ask(story, client, session)
        story.say(worker, read(story.take_one(worker, m.ReadTaskLog).seq))
        answer = story.take_one(client, m.TaskLog)
        assert (answer.data, answer.ended) == (b"printed", True)

    def test_others(self, story: ServerStory) -> None:
        client, session, worker = submitted(story, "fail")
        story.fail(worker, session, TASK)
        ask(story, client, session, PROGRAM)
        text = story.failure(client).message
        assert "Session 1 failed" in text
        assert "what task 'prints' (1/11) wrote, which failed, can be read" in text

    def test_it_never_ran(self, story: ServerStory) -> None:
        client, worker = story.client(), story.worker()
        session = story.session(client)
        story.submit(client, session, SubmitBuilder().task(TASK, [], [10], resources={"cpus": 99}))
        story.pass_time(61)
        ask(story, client, session)
        assert "failed without having run" in story.failure(client).message
        assert not story.take(worker, m.ReadTaskLog)

    def test_no_task_is_to_blame(self, story: ServerStory) -> None:
        client, session, _ = submitted(story, "fail")
        fail_session(story.core.state, story.record(session), Failure("internal", "error", session=session))
        ask(story, client, session)
        assert story.failure(client).message == "Session 1 failed, and with it all is forgotten about 1/11"


def dropped(story: ServerStory) -> list[str]:
    return [action.reason for action in story.other_actions if isinstance(action, Drop)]


class TestLies:
    @pytest.mark.parametrize(
        "lie",
        [
            {"data": b"x" * 101},
            {"data": b"xyz", "size": 2},
            {"data": b"xyz", "offset": 5, "size": 7},
            {"hint": "x" * 3000},
        ],
    )
    def test_logs(self, story: ServerStory, lie: dict[str, Any]) -> None:
        client, session, worker = submitted(story)
        ask(story, client, session)
        story.say(worker, read(story.take_one(worker, m.ReadTaskLog).seq, **lie))
        assert len(dropped(story)) == 1
        story.leave(worker)
        assert "is gone" in story.take_one(client, m.TaskLog).hint

    def test_a_log_of_another_worker(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        liar = story.worker()
        ask(story, client, session)
        asked = story.take_one(worker, m.ReadTaskLog)
        story.say(liar, read(asked.seq, b"forged"))
        assert len(dropped(story)) == 1
        story.say(worker, read(asked.seq))
        assert story.take_one(client, m.TaskLog).data == b"printed"

    def test_control_characters(self, story: ServerStory) -> None:
        client, session, worker = submitted(story)
        story.done(worker, session, TASK)
        ask(story, client, session)
        story.say(worker, read(story.take_one(worker, m.ReadTaskLog).seq, hint="a\x1b[31m\r\nb"))
        assert story.take_one(client, m.TaskLog).hint == "a?[31m?"

    @pytest.mark.parametrize("errors", [[], [""] * 3, ["x" * 3000]])
    def test_probes(self, story: ServerStory, errors: list[str]) -> None:
        client, one, _ = story.client(), story.worker(), story.worker()
        story.say(client, m.CheckNetwork(story.seq()))
        story.say(one, m.PeersProbed(story.take_one(one, m.ProbePeers).seq, errors))
        assert len(dropped(story)) == 1

    def test_a_second_answer(self, story: ServerStory) -> None:
        client, one, _ = story.client(), story.worker(), story.worker()
        story.say(client, m.CheckNetwork(story.seq()))
        answer = m.PeersProbed(story.take_one(one, m.ProbePeers).seq, [""])
        story.say(one, answer, answer)
        assert len(dropped(story)) == 1


def address(worker: int) -> str:
    return f"10.0.0.{worker}:9000"


class TestNetwork:
    def test_every_worker_tries_every_other(self, story: ServerStory) -> None:
        client, workers = story.client(), [story.worker() for _ in range(3)]
        story.say(client, m.CheckNetwork(77))
        for worker in workers:
            asked = story.take_one(worker, m.ProbePeers)
            assert asked.addresses == [address(other) for other in workers if other != worker]
            assert not story.take(client, m.NetworkChecked)
            story.say(worker, m.PeersProbed(asked.seq, ["", "no route" if worker == workers[1] else ""]))
        checked = story.take_one(client, m.NetworkChecked)
        assert checked.seq == 77
        failed = [{"to": address(workers[2]), "error": "no route"}]
        assert checked.result == {
            "workers": [
                {"worker_id": address(worker), "answered": True, "failures": failed if position == 1 else []}
                for position, worker in enumerate(workers)
            ]
        }
        story.assert_nothing_unread()

    @pytest.mark.parametrize("count", [0, 1])
    def test_nobody_to_be_tried(self, story: ServerStory, count: int) -> None:
        client, workers = story.client(), [story.worker() for _ in range(count)]
        story.say(client, m.CheckNetwork(story.seq()))
        wanted = [{"worker_id": address(worker), "answered": True, "failures": []} for worker in workers]
        assert story.take_one(client, m.NetworkChecked).result == {"workers": wanted}
        story.assert_nothing_unread()

    def test_one_hangs(self, story: ServerStory) -> None:
        client, one, other = story.client(), story.worker(), story.worker()
        story.say(client, m.CheckNetwork(story.seq()))
        asked = story.take_one(one, m.ProbePeers)
        story.say(one, m.PeersProbed(asked.seq, [""]))
        story.pass_time(CHECK_SECONDS - 0.5)
        assert not story.take(client, m.NetworkChecked)
        story.pass_time(0.5)
        found = story.take_one(client, m.NetworkChecked).result["workers"]
        assert [worker["answered"] for worker in found] == [True, False]
        story.say(other, m.PeersProbed(asked.seq, [""]))
        assert not dropped(story)

    def test_one_goes(self, story: ServerStory) -> None:
        client, one, other = story.client(), story.worker(), story.worker()
        story.say(client, m.CheckNetwork(story.seq()))
        story.say(one, m.PeersProbed(story.take_one(one, m.ProbePeers).seq, ["gone"]))
        story.leave(other)
        found = story.take_one(client, m.NetworkChecked).result["workers"]
        assert [worker["answered"] for worker in found] == [True, False]

    def test_two_ask(self, story: ServerStory) -> None:
        clients, worker, _ = [story.client(), story.client()], story.worker(), story.worker()
        for client in clients:
            story.say(client, m.CheckNetwork(story.seq()))
        story.take_one(worker, m.ProbePeers)
        story.leave(worker)
        story.pass_time(CHECK_SECONDS)
        for client in clients:
            assert len(story.take(client, m.NetworkChecked)) == 1

    def test_the_client_left(self, story: ServerStory) -> None:
        client, _, _ = story.client(), story.worker(), story.worker()
        story.say(client, m.CheckNetwork(story.seq()))
        story.leave(client)
        assert story.core.state.network_check is None
