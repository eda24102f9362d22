"""Sessions: waits, fetches, retention, failure and end."""

from __future__ import annotations

from array import array

import pytest

from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core import core as core_module
from rain.server.core.actions import DropConstants, Exit, Log
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def chain(story: ServerStory) -> tuple[int, int, int]:
    """client, session, worker with constant 10, task 12 -> 11, task 14 -> 13 (kept); 12 is assigned."""
    client = story.client()
    session = story.session(client)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().constant(10).task(12, [10], [11]).task(14, [11], [13], keep=True))
    assert story.assigned(worker) == [12]
    return client, session, worker


def wait(story: ServerStory, client: int, session: int, mode: int, *ids: int) -> int:
    seq = story.seq()
    story.say(client, m.Wait(seq, session, mode, u32(ids)))
    return seq


def test_wait_is_answered_when_all_are_done(story: ServerStory) -> None:
    client, session, worker = chain(story)
    seq = wait(story, client, session, m.WAIT_ALL, 12, 13, 12)
    story.done(worker, session, 12)
    story.assigned(worker)
    assert not story.take(client, m.WaitDone)
    story.done(worker, session, 14)
    assert story.take_one(client, m.WaitDone).seq == seq
    wait(story, client, session, m.WAIT_ALL, 12, 13, 14, 10)
    assert story.take_one(client, m.WaitDone)


def test_wait_some_gives_the_finished_ones(story: ServerStory) -> None:
    client, session, worker = chain(story)
    wait(story, client, session, m.WAIT_SOME, 14, 12)
    assert not story.take(client, m.WaitDone)
    story.done(worker, session, 12)
    assert list(story.take_one(client, m.WaitDone).ids) == [12]
    wait(story, client, session, m.WAIT_SOME, 14, 12, 10)
    assert list(story.take_one(client, m.WaitDone).ids) == [12, 10]
    wait(story, client, session, m.WAIT_SOME)
    assert not story.take_one(client, m.WaitDone).ids
    assert not story.record(session).watch


def test_wait_for_the_session(story: ServerStory) -> None:
    client, session, worker = chain(story)
    wait(story, client, session, m.WAIT_SESSION)
    story.done(worker, session, 12)
    story.done(worker, session, 14)
    story.take_one(client, m.WaitDone)
    wait(story, client, session, m.WAIT_SESSION)
    story.take_one(client, m.WaitDone)


def test_wait_for_an_unknown_id(story: ServerStory) -> None:
    client, session, _ = chain(story)
    wait(story, client, session, m.WAIT_ALL, 12, 77)
    failure = story.failure(client)
    assert (failure.kind, failure.message) == ("invalid", "id 1/77 does not exist")


def test_stop_waiting(story: ServerStory) -> None:
    client, session, worker = chain(story)
    seq = wait(story, client, session, m.WAIT_ALL, 12, 14)
    story.say(client, m.StopWaiting(seq))
    assert not story.record(session).watch
    story.done(worker, session, 12)
    story.done(worker, session, 14)
    assert not story.take(client, m.WaitDone)


def test_fetch_names_the_holder_and_then_the_server(story: ServerStory) -> None:
    client, session, worker = chain(story)
    seq = story.seq()
    story.say(client, m.FetchObjects(seq, session, u32([13]), []))
    story.done(worker, session, 12)
    story.done(worker, session, 14, size=1 << 20)
    answer = story.take_one(client, m.ObjectsFetched)
    assert (answer.seq, list(answer.sizes), answer.values) == (seq, [1 << 20], [None])
    assert answer.holders == [[f"10.0.0.{worker}:9000", "10.0.0.99:7210"]]
    story.say(client, m.FetchObjects(story.seq(), session, u32([13]), [f"10.0.0.{worker}:9000"]))
    assert story.take_one(client, m.ObjectsFetched).holders == [["10.0.0.99:7210"]]


def test_small_kept_results_are_answered_by_the_server(story: ServerStory) -> None:
    client, session, worker = chain(story)
    story.done(worker, session, 12)
    message = m.TasksDone(
        session, u32([14]), u32([1]), array("d", [1]), array("d", [1]), [], array("Q", [3]), [b"\x80"], [b"abc"]
    )
    story.say(worker, message)
    story.say(client, m.FetchObjects(story.seq(), session, u32([13]), []))
    answer = story.take_one(client, m.ObjectsFetched)
    assert (answer.values, answer.infos, answer.holders) == ([b"abc"], [b"\x80"], [[]])
    story.leave(worker)
    assert story.task_state(session, 14) == TaskState.finished


@pytest.mark.parametrize(
    ("number", "text"),
    [(11, "data object 1/11 is not kept"), (12, "1/12 is a task, not a data object"), (77, "id 1/77 does not exist")],
)
def test_fetch_refusals(story: ServerStory, number: int, text: str) -> None:
    client, session, _ = chain(story)
    story.say(client, m.FetchObjects(story.seq(), session, u32([number]), []))
    assert story.failure(client).message == text


def test_objects_are_removed_when_not_needed(story: ServerStory) -> None:
    client, session, worker = chain(story)
    story.done(worker, session, 12)
    assert story.object_state(session, 10) == DataObjectState.removed
    assert list(story.take_one(worker, m.DeleteObjects).objects) == [10]
    story.done(worker, session, 14)
    assert story.object_state(session, 11) == DataObjectState.removed
    assert list(story.take_one(worker, m.DeleteObjects).objects) == [11]
    assert story.graph(session).value[10] is not None, "the constant is pinned by lineage"
    story.say(client, m.UnkeepObjects(story.seq(), session, u32([13])))
    story.take_one(client, m.Accepted)
    assert list(story.take_one(worker, m.DeleteObjects).objects) == [13]
    assert story.graph(session).value[10] is None, "nothing can be lost any more"
    assert story.graph(session).inputs[12] == ()


def test_unkeep_before_the_end(story: ServerStory) -> None:
    client, session, worker = chain(story)
    story.say(client, m.UnkeepObjects(story.seq(), session, u32([13])))
    story.take_one(client, m.Accepted)
    story.say(client, m.UnkeepObjects(story.seq(), session, u32([13])))
    assert story.failure(client).message == "1/13 is not a kept data object"
    story.done(worker, session, 12)
    story.done(worker, session, 14)
    assert story.object_state(session, 13) == DataObjectState.removed


def test_failure_fails_the_session_and_only_it(story: ServerStory) -> None:
    client, session, worker = chain(story)
    other = story.session(client)
    story.submit(client, other, SubmitBuilder().task(11, [], [10], keep=True))
    wait(story, client, session, m.WAIT_ALL, 14)
    wait(story, client, session, m.WAIT_SESSION)
    story.say(client, m.FetchObjects(story.seq(), session, u32([13]), []))
    story.fail(worker, session, 12, "ZeroDivisionError", debug="d", exception=b"p")
    refusals = story.take(client, m.Refused)
    assert len(refusals) == 3
    assert story.take_one(worker, m.EndSession).session == session
    assert story.assigned(worker) == [11]
    for message in (
        m.Wait(90, session, m.WAIT_SESSION, u32()),
        m.FetchObjects(91, session, u32([13]), []),
        m.UnkeepObjects(92, session, u32([13])),
        m.GetInfos(93, session, u32([12])),
        m.SubmitCommit(94, session, False),
    ):
        story.say(client, message)
        failure = story.failure(client)
        assert (failure.kind, failure.task, failure.message) == ("task", 12, "ZeroDivisionError")
        assert (failure.worker, failure.attempts) == (f"10.0.0.{worker}:9000", 1)
    story.say(client, m.CloseSession(95, session))
    story.take_one(client, m.Accepted)
    story.done(worker, other, 11)
    assert story.task_state(other, 11) == TaskState.finished


def test_late_messages_about_a_failed_session_change_nothing(story: ServerStory) -> None:
    _, session, worker = chain(story)
    story.fail(worker, session, 12)
    for message in (
        m.TasksDone(session, u32([12]), u32([1]), array("d", [0]), array("d", [0]), [], array("Q", [1]), [], []),
        m.TaskFailed(session, 12, 1, {"kind": "task", "message": "again"}, 0.0, 0.0),
        m.TasksReturned(session, u32([12]), u32([1])),
        m.ObjectsStored(session, u32([10])),
        m.ObjectsMissing(session, 10, ["x"]),
    ):
        story.say(worker, message)


def test_retries_run_the_task_again(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().task(11, [], [10], keep=True, retries=1))
    assert story.assigned(worker) == [11]
    story.fail(worker, session, 11)
    assert story.assigned(worker) == [11]
    story.fail(worker, session, 11)
    wait(story, client, session, m.WAIT_SESSION)
    assert story.failure(client).attempts == 2


def test_close_kills_and_forgets(story: ServerStory) -> None:
    client, session, worker = chain(story)
    seq = wait(story, client, session, m.WAIT_SESSION)
    story.say(client, m.CloseSession(story.seq(), session))
    refused = story.take_one(client, m.Refused)
    assert refused.seq == seq
    story.take_one(client, m.Accepted)
    assert story.take_one(worker, m.EndSession).session == session
    assert not story.core.state.sessions
    assert DropConstants(session, None) in story.other_actions
    wait(story, client, session, m.WAIT_SESSION)
    assert story.failure(client).message == "Session 1 is closed"


def test_a_client_that_leaves_takes_its_sessions_along(story: ServerStory) -> None:
    client, session, worker = chain(story)
    story.leave(client)
    assert story.take_one(worker, m.EndSession).session == session
    assert not story.core.state.sessions
    story.assert_nothing_unread()


def test_infos(story: ServerStory) -> None:
    client, session, worker = chain(story)
    story.done(worker, session, 12, seconds=0.25)
    story.say(client, m.GetInfos(story.seq(), session, u32([12, 14, 11, 13])))
    answer = story.take_one(client, m.Infos)
    assert list(answer.states) == [TaskState.finished, TaskState.assigned, DataObjectState.finished, 0]
    assert answer.infos[3] is None
    info = __import__("msgpack").unpackb(answer.infos[0])
    assert (info["attempts"], info["duration"], info["governor"]) == (1, 0.25, f"10.0.0.{worker}:9000")


def test_server_info_asks_every_worker(story: ServerStory) -> None:
    client, session, worker = chain(story)
    silent = story.worker()
    story.say(client, m.GetServerInfo(story.seq()))
    request = story.take_one(worker, m.GetWorkerInfo)
    story.take_one(silent, m.GetWorkerInfo)
    story.say(worker, m.WorkerInfo(request.seq, {"tasks": [[session, 12]]}))
    assert not story.take(client, m.ServerInfo)
    story.pass_time(2.0)
    info = story.take_one(client, m.ServerInfo).info
    assert [entry["tasks"] for entry in info["workers"]] == [[[session, 12]], []]
    assert info["server"]["sessions"] == 1


def test_stop_waits_for_the_workers(story: ServerStory) -> None:
    client, _, worker = chain(story)
    story.say(client, m.StopServer(story.seq()))
    story.take_one(worker, m.StopWorker)
    assert not story.take(client, m.Accepted)
    story.leave(worker)
    story.take_one(client, m.Accepted)
    assert Exit(0) in story.other_actions


def test_idle_server_ends() -> None:
    story = ServerStory(idle_timeout=3.0)
    client = story.client()
    story.pass_time(5)
    assert not story.other_actions
    story.leave(client)
    story.pass_time(4)
    assert Exit(0) in story.other_actions


def test_no_worker_is_told_once_and_only_to_who_waits(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    story.submit(client, session, SubmitBuilder().task(11, [], [10]))
    story.pass_time(10)
    assert not story.take(client, m.SessionWarning)
    wait(story, client, session, m.WAIT_SESSION)
    story.pass_time(4)
    assert not story.take(client, m.SessionWarning)
    story.pass_time(10)
    assert story.take_one(client, m.SessionWarning).text == "no worker is connected"


def test_python_versions_that_differ_are_told_once(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker()
    story.core.state.workers[1].python = "3.12.1"
    story.submit(client, session, SubmitBuilder().task(11, [], [10]))
    assert "Python 3.11.7, workers run Python 3.12.1" in story.take_one(client, m.SessionWarning).text
    story.submit(client, session, SubmitBuilder().task(13, [], [12]))
    assert not story.take(client, m.SessionWarning)
    story.assigned(worker)


def test_answers_of_fetches_are_bounded() -> None:
    story = ServerStory(message_budget=1000)
    client = story.client()
    session = story.session(client)
    builder = SubmitBuilder()
    for number in range(10, 14):
        builder.constant(number, b"x" * 400, keep=True)
    story.submit(client, session, builder)
    story.say(client, m.FetchObjects(story.seq(), session, u32(range(10, 14)), []))
    answer = story.take_one(client, m.ObjectsFetched)
    assert [value is None for value in answer.values] == [False, False, True, True]
    assert answer.holders[2] == ["10.0.0.99:7210"]


def test_an_internal_error_costs_one_session(story: ServerStory) -> None:
    client, session, worker = chain(story)
    other = story.session(client)
    story.submit(client, other, SubmitBuilder().task(11, [], [10], keep=True))
    seq = wait(story, client, session, m.WAIT_SESSION)
    story.graph(session).group[12] = 999  # a defect, made here
    story.say(worker, m.TasksDone(session, u32([12]), u32([1]), *[array("d", [1.0])] * 2, [], array("Q", [1]), [], []))
    refused = story.take_one(client, m.Refused)
    assert (refused.seq, refused.failure["kind"]) == (seq, "internal")
    assert "internal error 1 while handling TasksDone of session 1" in refused.failure["message"]
    assert story.record(other).failure is None
    assert any("Traceback" in getattr(action, "text", "") for action in story.other_actions)
    assert story.take_one(worker, m.EndSession).session == session
    assert story.assigned(worker) == [11]


def test_an_internal_error_of_a_request_without_a_session_costs_only_the_answer(
    story: ServerStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = story.client()
    session = story.session(client)

    def break_down(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setitem(core_module._PLAIN_REQUESTS, m.ListSessions, break_down)
    story.say(client, m.ListSessions(story.seq(), 0))
    what = "internal error 1 while handling ListSessions of 10.0.0.1:1000"
    assert story.failure(client).message == f"{what}; the server's log tells more under this number"
    (log,) = [action for action in story.other_actions if isinstance(action, Log)]
    assert "a defect" in log.text
    assert story.record(session).failure is None
