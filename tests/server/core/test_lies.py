"""Reports that cannot be true: the worker is dropped, the session goes on elsewhere."""

from __future__ import annotations

from array import array

import pytest

from rain.common.failure import Failure
from rain.common.states import TaskState
from rain.protocol import messages as m
from rain.server.core.actions import Drop, Log
from rain.server.core.events import PeerSaid
from rain.server.core.lies import ReportError, checked_info, told_info
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


def done(
    session: int, sizes: list[int], duration: float = 0.1, blocks: list[bytes | None] | None = None
) -> m.TasksDone:
    columns = array("d", [1.0]), array("d", [duration])
    return m.TasksDone(session, u32([1]), u32([1]), *columns, [], array("Q", sizes), [], [], blocks or [])


def failed(session: int, **fields: object) -> m.TaskFailed:
    return m.TaskFailed(session, 1, 1, {**Failure("task", "x").to_map(), **fields}, 1.0, 0.1)


LIES = {
    "too few outputs": lambda session: done(session, []),
    "negative duration": lambda session: done(session, [1, 1], -1.0),
    "duration without end": lambda session: done(session, [1, 1], float("inf")),
    "no duration": lambda session: done(session, [1, 1], float("nan")),
    "a block that is none": lambda session: done(session, [1, 1], blocks=[b"\xc1"]),
    "failure of another kind": lambda session: failed(session, kind="nonsense"),
    "failure with a number as text": lambda session: failed(session, message=5),
    "failure with an unknown field": lambda session: failed(session, further=5),
    "info without lists": lambda session: m.WorkerInfo(1, {"tasks": 5}),
}


@pytest.mark.parametrize("name", LIES)
def test_the_liar_is_dropped(name):
    story = ServerStory()
    client = story.client()
    liar = story.worker()
    session = story.session(client)
    story.submit(client, session, SubmitBuilder().task(1, outputs=(2, 3), keep=True))
    assert story.assigned(liar) == [1]
    story.say(client, m.GetServerInfo(story.seq()))
    story.take(liar, m.GetWorkerInfo)
    actions = story.core.handle([PeerSaid(liar, LIES[name](session))], story.now)
    assert [action.peer for action in actions if isinstance(action, Drop)] == [liar]
    assert not [action for action in actions if isinstance(action, Log) and action.level == "error"]
    story.core.sanity_check()
    story.leave(liar)
    honest = story.worker()
    assert story.assigned(honest) == [1]
    story.done(honest, session, 1)
    assert story.task_state(session, 1) == TaskState.finished


@pytest.mark.parametrize(
    "address", ["", "nowhere", ":5", "host:", "host:x", "host:70000", "a b:5", "a\n:5", "x" * 400 + ":5"]
)
def test_worker_without_an_address(address):
    story = ServerStory()
    peer = story._join("worker")
    hello = m.WorkerHello(address, {"cpus": 1}, "host", 1, "3.11.4")
    actions = story.core.handle([PeerSaid(peer, hello)], story.now)
    assert [action.peer for action in actions if isinstance(action, Drop)] == [peer]


def test_infos():
    assert checked_info({}) == {"tasks": [], "objects": [], "objects_to_delete": []}
    assert checked_info({"tasks": [[1, 2]], "worker_id": "stolen"})["tasks"] == [[1, 2]]
    for ids in (5, [5], [[1]], [[1, "2"]], [[1, 2, 3]], {}):
        with pytest.raises(ReportError, match="objects"):
            checked_info({"objects": ids})
    assert told_info(None) == told_info(b"\xc1") == told_info(b"\x90") == {}
    assert told_info(b"\x81\xa5debug\xa1x") == {"debug": "x"}


def nested(levels: int) -> dict[str, object]:
    return {"a": nested(levels - 1)} if levels else {}


def test_what_is_told_for_a_dump():
    state = {"a": [1, None, True, 0.5, "text", {"b": []}]}
    assert checked_info({"state": state, "log": ["line"], "tasks": 5}) == {"state": state, "log": ["line"]}
    assert checked_info({"state": {}}) == {"state": {}, "log": []}
    assert checked_info({"state": nested(14)})["state"] == nested(14)


@pytest.mark.parametrize(
    ("state", "log"),
    [
        ([], []),
        ({}, "line"),
        ({}, [1]),
        ({}, ["x" * 5000]),
        ({}, ["x"] * 2000),
        ({"a": b"bytes"}, []),
        ({"a": float("nan")}, []),
        ({"a": [float("inf")]}, []),
        ({"a": "x" * 5000}, []),
        ({"a": {b"key": 1}}, []),
        ({"k" * 400: 1}, []),
        ({"a": [0] * 300_000}, []),
        (nested(20), []),
    ],
)
def test_lies_for_a_dump(state, log):
    with pytest.raises(ReportError, match="for a dump"):
        checked_info({"state": state, "log": log})
