"""How many tasks and objects are in which state."""

from __future__ import annotations

import pytest

from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32

LARGEST = (1 << 32) - 1


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory, builder: SubmitBuilder, on_failure: str = "continue") -> tuple[int, int]:
    client = story.client()
    story.say(client, m.NewSession(story.seq(), "test", on_failure, False))
    session = story.take_one(client, m.SessionCreated).session
    story.submit(client, session, builder)
    return client, session


def ask(story: ServerStory, client: int, session: int, *parts: tuple[int, int]) -> None:
    firsts, counts = u32([first for first, _ in parts]), u32([count for _, count in parts])
    story.say(client, m.GetCounts(story.seq(), session, firsts, counts))


def counted(story: ServerStory, client: int, session: int, *parts: tuple[int, int]) -> tuple[dict[str, int], str]:
    ask(story, client, session, *parts)
    reply = story.take_one(client, m.Counts)
    found = {state.name: reply.tasks[state] for state in TaskState if reply.tasks[state]}
    found |= {
        f"object {status.name}": number for status, number in zip(DataObjectState, reply.objects, strict=True) if number
    }
    return found, reply.failure


def refused(story: ServerStory, client: int, session: int, *parts: tuple[int, int]) -> Failure:
    ask(story, client, session, *parts)
    return Failure.from_map(story.take_one(client, m.Refused).failure)


CHAIN = SubmitBuilder().constant(10).task(12, [10], [11], name="make").task(14, [11], [13], keep=True)


def test_all_tasks(story: ServerStory) -> None:
    client, session = opened(story, CHAIN)
    worker = story.worker()
    story.started(worker, session, 12)
    assert counted(story, client, session) == ({"notAssigned": 1, "running": 1}, "")
    story.done(worker, session, 12)
    story.done(worker, session, 14)
    assert counted(story, client, session) == ({"finished": 2}, "")


def test_stretches(story: ServerStory) -> None:
    client, session = opened(story, CHAIN)
    ready = {"ready": 1, "object finished": 1, "object unfinished": 1}
    assert counted(story, client, session, (10, 3)) == (ready, "")
    assert counted(story, client, session, (10, 1), (12, 0), (13, 2)) == (
        {"notAssigned": 1, "object unfinished": 1, "object finished": 1},
        "",
    )


def test_a_failed_task(story: ServerStory) -> None:
    client, session = opened(story, CHAIN)
    story.fail(story.worker(), session, 12, "Traceback (most recent call last):\n  x\nValueError: boom")
    assert counted(story, client, session) == (
        {"failed": 1, "aborted": 1},
        "Task 'make' (1/12) failed: ValueError: boom",
    )


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([(14, 2)], "not all of the ids 1/14 to 15 exist"),
        ([(0, 11)], "not all of the ids 1/0 to 10 exist"),
        ([(LARGEST, LARGEST)], "not all of the ids"),
        ([(12, 2), (13, 1)], "begins with 13 follows one that ends with 13"),
        ([(13, 1), (12, 1)], "must rise"),
    ],
)
def test_refused(story: ServerStory, parts: list[tuple[int, int]], text: str) -> None:
    client, session = opened(story, CHAIN)
    failure = refused(story, client, session, *parts)
    assert (failure.kind, text in failure.message) == ("invalid", True), failure.message


def test_ids_of_an_array(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().constant(10).array(11, 100, [10]).task(212, [15], [211]))
    waiting = counted(story, client, session)[0]
    assert sum(waiting.values()) == 101
    assert counted(story, client, session, (111, 100))[0] == {"ready": 100}
    assert counted(story, client, session, (110, 2))[0] == {"ready": 1, "object unfinished": 1}
    assert counted(story, client, session, (10, 203))[0] == {
        "ready": 100,
        "notAssigned": 1,
        "object finished": 1,
        "object unfinished": 101,
    }
    assert "not all of the ids" in refused(story, client, session, (111, 200)).message


def test_a_session_that_failed_or_is_unknown(story: ServerStory) -> None:
    client, session = opened(story, CHAIN, "fail")
    story.fail(story.worker(), session, 12, "boom")
    assert refused(story, client, session).kind == "task"
    assert refused(story, client, session + 1).kind == "session"
