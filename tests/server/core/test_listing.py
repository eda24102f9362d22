"""Lists of sessions, tasks and objects, and specs."""

from __future__ import annotations

from array import array
from typing import Any

import msgpack
import pytest

from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core import listing, task_specs
from rain.testing.server_builders import ServerStory, SubmitBuilder, block_result, u32

LARGEST = (1 << 32) - 1


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory, builder: SubmitBuilder | None = None, on_failure: str = "continue") -> tuple[int, int]:
    client = story.client()
    story.say(client, m.NewSession(story.seq(), "name", on_failure, False))
    session = story.take_one(client, m.SessionCreated).session
    if builder is not None:
        story.submit(client, session, builder)
    return client, session


def sessions(story: ServerStory, client: int, number: int = 0) -> dict[str, Any]:
    story.say(client, m.ListSessions(story.seq(), number))
    return story.take_one(client, m.SessionList).sessions


def tasks(
    story: ServerStory, client: int, session: int, first: int = 0, last: int = LARGEST, states: str = "", name: str = ""
) -> m.TaskList:
    wanted = bytes(TaskState[state] for state in states.split())
    story.say(client, m.ListTasks(story.seq(), session, first, last, wanted, name))
    return story.take_one(client, m.TaskList)


def objects(
    story: ServerStory, client: int, session: int, first: int = 0, last: int = LARGEST, kept: int = 0, label: str = ""
) -> m.ObjectList:
    story.say(client, m.ListObjects(story.seq(), session, first, last, kept, label))
    return story.take_one(client, m.ObjectList)


def told(found: m.TaskList) -> list[tuple[int, str]]:
    return [(number, TaskState(state).name) for number, state in zip(found.ids, found.states, strict=True)]


def told_objects(found: m.ObjectList) -> list[tuple[int, str, bool, int]]:
    columns = zip(found.ids, found.states, found.kept, found.producers, strict=True)
    return [(number, DataObjectState(state).name, bool(kept), producer) for number, state, kept, producer in columns]


def specs(story: ServerStory, client: int, session: int, *ids: int) -> list[dict[str, Any]]:
    story.say(client, m.GetSpecs(story.seq(), session, u32(ids)))
    return [msgpack.unpackb(packed) for packed in story.take_one(client, m.Specs).specs]


def chain() -> SubmitBuilder:
    """Constant 10; tasks 12 (makes 11) and 14 (makes 13, kept)."""
    builder = SubmitBuilder().constant(10, b"abc").task(12, [10], [11], name="make")
    return builder.task(14, [11], [13], keep=True, task_type="buildin/concat")


def labelled(*outputs: dict[str, Any], keep: bool = False) -> SubmitBuilder:
    """Task 12 with outputs from 10 on, whose specs are in the template."""
    builder = SubmitBuilder()
    ids = tuple(range(10, 10 + len(outputs)))
    builder.tasks.append((12, builder.template(outputs=list(outputs)), None, (), ids, bytes([keep]) * len(ids)))
    return builder


# --- sessions ---


def test_sessions(story: ServerStory) -> None:
    client, session = opened(story, chain())
    story.pass_time(2)
    other_client, other = opened(story)
    entries = sessions(story, other_client)
    assert entries == {
        "sessions": [
            {
                "session": session,
                "name": "name",
                "state": "open",
                "client": f"10.0.0.{client}:1000",
                "on_failure": "continue",
                "age": pytest.approx(2.0),
                "tasks": {"notAssigned": 1, "ready": 1},
                "objects": {"unfinished": 2, "finished": 1},
            },
            {
                "session": other,
                "name": "name",
                "state": "open",
                "client": f"10.0.0.{other_client}:1000",
                "on_failure": "continue",
                "age": 0.0,
                "tasks": {},
                "objects": {},
            },
        ],
        "total": 2,
    }


def test_no_session(story: ServerStory) -> None:
    assert sessions(story, story.client()) == {"sessions": [], "total": 0}


def test_more_sessions_than_are_listed(story: ServerStory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones."""
    monkeypatch.setattr(listing, "MANY", 2)
    client = story.client()
    numbers = [story.session(client) for _ in range(3)]
    found = sessions(story, client)
    assert ([entry["session"] for entry in found["sessions"]], found["total"]) == (numbers[1:], 3)


def test_a_long_name_is_whole_where_one_session_is_asked_for(story: ServerStory) -> None:
    client = story.client()
    story.say(client, m.NewSession(story.seq(), "x" * 5000, "fail", False))
    session = story.take_one(client, m.SessionCreated).session
    assert len(sessions(story, client)["sessions"][0]["name"]) == listing.LONGEST_NAME
    assert len(sessions(story, client, session)["sessions"][0]["name"]) == 5000


def test_all_about_a_session(story: ServerStory) -> None:
    client, session = opened(story, chain())
    worker = story.worker()
    story.done(worker, session, 12)
    story.done(worker, session, 14, size=7)
    (entry,) = sessions(story, story.client(), session)["sessions"]
    assert entry["kept"] == [{"id": 13, "label": "", "size": 7, "state": "finished"}]
    assert (entry["kept_total"], entry["error"], entry["tasks"]) == (1, None, {"finished": 2})
    assert entry["objects"] == {"finished": 1, "removed": 2}
    assert entry["client"] == f"10.0.0.{client}:1000"


def test_labels_of_kept_objects(story: ServerStory) -> None:
    client, session = opened(story, labelled({"label": "a"}, {"label": "b"}, keep=True))
    (entry,) = sessions(story, client, session)["sessions"]
    assert [(kept["id"], kept["label"], kept["state"]) for kept in entry["kept"]] == [
        (10, "a", "unfinished"),
        (11, "b", "unfinished"),
    ]


def test_an_unknown_session(story: ServerStory) -> None:
    client, session = opened(story)
    story.say(client, m.ListSessions(1, 7))
    assert story.failure(client).message == f"Session 7 is closed or never was; open sessions: {session}"
    for message in (
        m.ListTasks(1, 7, 0, 9, b"", ""),
        m.ListObjects(1, 7, 0, 9, 0, ""),
        m.GetSpecs(1, 7, u32([1])),
    ):
        story.say(client, message)
        assert story.failure(client) == Failure("session", "Session 7 is closed", session=7)


def test_a_failed_session(story: ServerStory) -> None:
    """The list tells its error, the others are refused with it."""
    client, session = opened(story, chain(), "fail")
    story.fail(story.worker(), session, 12, "boom\nmore")
    (entry,) = sessions(story, client, session)["sessions"]
    assert (entry["state"], entry["error"]) == ("failed", "boom\nmore")
    assert (entry["tasks"], entry["objects"], entry["kept"], entry["kept_total"]) == ({}, {}, [], 0)
    for message in (
        m.ListTasks(1, session, 0, 9, b"", ""),
        m.ListObjects(1, session, 0, 9, 0, ""),
        m.GetSpecs(1, session, u32([12])),
    ):
        story.say(client, message)
        assert (story.failure(client).kind, story.sent[client]) == ("task", [])


def test_the_first_failure_of_a_session_that_goes_on(story: ServerStory) -> None:
    client, session = opened(story, chain())
    story.fail(story.worker(), session, 12, "boom")
    (entry,) = sessions(story, client, session)["sessions"]
    assert (entry["state"], entry["error"]) == ("open", "boom")
    assert entry["tasks"] == {"failed": 1, "aborted": 1}
    assert entry["objects"] == {"removed": 1, "aborted": 2}


# --- tasks ---


def test_tasks(story: ServerStory) -> None:
    client, session = opened(story, chain())
    worker = story.worker()
    story.started(worker, session, 12)
    story.pass_time(3)
    found = tasks(story, story.client(), session)
    assert told(found) == [(12, "running"), (14, "notAssigned")]
    assert found.names == ["make", ""]
    assert found.types == ["py/", "buildin/concat"]
    assert found.workers == [f"10.0.0.{worker}:9000", ""]
    assert (list(found.starts), list(found.durations), found.next) == ([0.0, 0.0], [3.0, 0.0], 0)
    story.done(worker, session, 12, seconds=0.25)
    found = tasks(story, client, session, 12, 12)
    assert (told(found), list(found.starts), list(found.durations)) == ([(12, "finished")], [1.0], [0.25])
    assert found.workers == [f"10.0.0.{worker}:9000"]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0, LARGEST, [12, 14]), (12, 13, [12]), (13, 14, [14]), (15, LARGEST, []), (LARGEST, LARGEST, []), (14, 12, [])],
)
def test_ranges_of_tasks(story: ServerStory, first: int, last: int, expected: list[int]) -> None:
    client, session = opened(story, chain())
    found = tasks(story, client, session, first, last)
    assert (list(found.ids), found.next) == (expected, 0)


def test_chosen_tasks(story: ServerStory) -> None:
    client, session = opened(story, chain())
    assert list(tasks(story, client, session, states="ready").ids) == [12]
    assert list(tasks(story, client, session, states="notAssigned finished").ids) == [14]
    assert list(tasks(story, client, session, name="make").ids) == [12]
    assert list(tasks(story, client, session, states="notAssigned", name="make").ids) == []
    assert list(tasks(story, client, session, name="mak").ids) == []


def many(count: int) -> SubmitBuilder:
    builder = SubmitBuilder()
    for number in range(10, 10 + 2 * count, 2):
        builder.task(number + 1, [], [number], name="n" * 100)
    return builder


def in_portions(story: ServerStory, client: int, session: int, kind: Any) -> tuple[list[int], int]:
    """All ids, and the number of answers."""
    ids: list[int] = []
    first = portions = 0
    while True:
        found = kind(story, client, session, first)
        ids += found.ids
        portions += 1
        assert portions < 100
        if not found.next:
            return ids, portions
        assert found.next > first
        first = found.next


@pytest.mark.parametrize(("limit", "value"), [("MOST", 3), ("LONGEST", 500), ("WINDOW", 7)])
@pytest.mark.parametrize(("kind", "first"), [(tasks, 11), (objects, 10)])
def test_portions(
    story: ServerStory, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, kind: Any, first: int
) -> None:
    monkeypatch.setattr(listing, limit, value if kind is tasks or limit != "LONGEST" else 150)
    client, session = opened(story, many(10))
    ids, portions = in_portions(story, client, session, kind)
    assert ids == list(range(first, 30, 2))
    assert 2 < portions < 9


@pytest.mark.parametrize("kind", [tasks, objects])
def test_portions_of_an_array(story: ServerStory, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(listing, "MOST", 30)
    client, session = opened(story, SubmitBuilder().array(10, 100))
    ids, portions = in_portions(story, client, session, kind)
    assert ids == (list(range(110, 210)) if kind is tasks else list(range(10, 110)))
    assert portions == 4


def test_members_of_arrays(story: ServerStory) -> None:
    """Blocks and single members are single tasks and objects alike."""
    builder = SubmitBuilder().constant(10).array(11, 40, [10], name="member").task(92, [15], [91], keep=True)
    client, session = opened(story, builder)
    assert told(tasks(story, client, session)) == [*((n, "ready") for n in range(51, 91)), (92, "notAssigned")]
    worker = story.worker()
    for _ in range(60):
        measure(story, session)
        for task, count in story.blocks(worker):
            if count:
                story.block_done(worker, session, task, block_result(count, seconds=0.5))
            else:
                story.done(worker, session, task)
    found = tasks(story, client, session)
    assert told(found) == [*((n, "finished") for n in range(51, 91)), (92, "finished")]
    assert set(found.workers) == {f"10.0.0.{worker}:9000"}
    assert found.names == ["member"] * 40 + [""]
    assert min(found.durations) > 0
    assert min(found.starts) >= 1.0
    everything = told_objects(objects(story, client, session))
    assert everything[1:41] == [(n, "finished", True, n + 40) for n in range(11, 51)]
    assert everything[41:] == [(91, "finished", True, 92)]
    (entry,) = sessions(story, client, session)["sessions"]
    assert entry["objects"].get("finished", 0) + entry["objects"].get("removed", 0) == 42
    assert entry["kept_total"] == 41
    assert [kept["id"] for kept in entry["kept"]] == [*range(11, 51), 91]


def measure(story: ServerStory, session: int) -> None:
    """All tasks are known to be short, so that members of arrays run in blocks."""
    for group in story.record(session).groups:
        group.seconds = 0.001


def in_blocks(story: ServerStory, keep: bool = True) -> tuple[int, int, int]:
    """A finished task array of 20 members with ids 10-29 and 30-49; client, session, worker."""
    client, session = opened(story, SubmitBuilder().array(10, 20, keep=keep))
    measure(story, session)
    worker = story.worker()
    while blocks := story.blocks(worker):
        for task, count in blocks:
            assert count
            story.block_done(worker, session, task, block_result(count, seconds=0.5, value=b"abc"))
    assert story.record(session).graph.blocks
    return client, session, worker


def test_finished_blocks(story: ServerStory) -> None:
    client, session, worker = in_blocks(story)
    found = tasks(story, client, session, 32, 33)
    assert told(found) == [(32, "finished"), (33, "finished")]
    assert (list(found.durations), found.workers) == ([0.5, 0.5], [f"10.0.0.{worker}:9000"] * 2)
    assert found.starts[1] == found.starts[0] + 0.5
    (entry,) = sessions(story, client, session)["sessions"]
    assert (entry["objects"], entry["kept_total"]) == ({"finished": 20}, 20)
    assert entry["kept"][3] == {"id": 13, "label": "", "size": 3, "state": "finished"}


def test_unkept_members_of_blocks(story: ServerStory) -> None:
    client, session, _ = in_blocks(story)
    story.say(client, m.UnkeepObjects(story.seq(), session, u32([11, 12])))
    story.take_one(client, m.Accepted)
    (entry,) = sessions(story, client, session)["sessions"]
    assert (entry["objects"], entry["kept_total"]) == ({"finished": 18, "removed": 2}, 18)
    assert [kept["id"] for kept in entry["kept"][:2]] == [10, 13]
    assert told_objects(objects(story, client, session, 10, 12)) == [
        (10, "finished", True, 30),
        (11, "removed", False, 31),
        (12, "removed", False, 32),
    ]
    assert list(objects(story, client, session, kept=2).ids) == [11, 12]


def test_a_block_without_kept_outputs(story: ServerStory) -> None:
    client, session, _ = in_blocks(story, keep=False)
    (entry,) = sessions(story, client, session)["sessions"]
    assert (entry["objects"], entry["kept_total"], entry["kept"]) == ({"removed": 20}, 0, [])


def test_a_cancelled_block(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().array(10, 20))
    story.say(client, m.Cancel(story.seq(), session, u32()))
    story.take_one(client, m.Cancelled)
    assert set(tasks(story, client, session).states) == {TaskState.cancelled}
    assert sessions(story, client, session)["sessions"][0]["objects"] == {"aborted": 20}


def test_kept_objects_that_are_too_many(story: ServerStory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MANY", 5)
    client, session = opened(story, SubmitBuilder().constant(9, keep=True).array(10, 20))
    (entry,) = sessions(story, client, session)["sessions"]
    assert [kept["id"] for kept in entry["kept"]] == [9, 10, 11, 12, 13]
    assert entry["kept_total"] == 21


# --- objects ---


def test_objects(story: ServerStory) -> None:
    client, session = opened(story, chain())
    found = objects(story, client, session)
    assert told_objects(found) == [
        (10, "finished", False, 0),
        (11, "unfinished", False, 12),
        (13, "unfinished", True, 14),
    ]
    assert (list(found.sizes), found.labels, found.next) == ([3, 0, 0], ["", "", ""], 0)
    assert list(objects(story, client, session, kept=1).ids) == [13]
    assert list(objects(story, client, session, kept=2).ids) == [10, 11]
    assert list(objects(story, client, session, 11, 12).ids) == [11]


def test_objects_by_label(story: ServerStory) -> None:
    builder = labelled({"label": "a"}, {"label": "b"})
    builder.objects.append((9, m.INLINE, msgpack.packb({"label": "b"}), b"x"))
    client, session = opened(story, builder)
    assert objects(story, client, session).labels == ["b", "a", "b"]
    assert list(objects(story, client, session, label="b").ids) == [9, 11]
    assert list(objects(story, client, session, label="c").ids) == []


def test_an_output_of_an_array_that_is_an_input(story: ServerStory) -> None:
    """It keeps its producer and its label when its value is there."""
    builder = SubmitBuilder()
    client, session = opened(story, builder.array(10, 20, keep=False).task(52, [14, 16], [51]))
    measure(story, session)
    expected = [(14, "unfinished", False, 34), (15, "unfinished", False, 35), (16, "unfinished", False, 36)]
    assert told_objects(objects(story, client, session, 14, 16)) == expected
    worker = story.worker()
    while True:
        blocks = [(task, count) for task, count in story.blocks(worker) if task != 52]
        for task, count in blocks:
            story.block_done(worker, session, task, block_result(count))
        if not blocks:
            break
    found = told_objects(objects(story, client, session, 14, 16))
    assert found == [(14, "finished", False, 34), (15, "removed", False, 35), (16, "finished", False, 36)]
    assert specs(story, client, session, 16) == [{"id": 16, "producer": 36}]
    assert sessions(story, client, session)["sessions"][0]["objects"]["removed"] == 18


# --- specs ---


def test_specs_of_tasks(story: ServerStory) -> None:
    options = {
        "task_type": "buildin/run",
        "resources": {"cpus": 2},
        "user": {"a": 1},
        "retries": 3,
        "timeout": 1.5,
        "priority": -1,
        "env": {"PASSWORD": "secret"},
        "labels": [None, "b"],
    }
    builder = SubmitBuilder().constant(10).constant(11)
    builder.task(13, [10, 11], [12], args=msgpack.packb({"args": ["ls"]}), name="list", **options)
    client, session = opened(story, builder)
    assert specs(story, client, session, 13) == [
        {
            "id": 13,
            "task_type": "buildin/run",
            "name": "list",
            "resources": {"cpus": 2},
            "config": {"args": ["ls"]},
            "inputs": [10, 11],
            "input_labels": [None, "b"],
            "outputs": [12],
            "user": {"a": 1},
            "retries": 3,
            "timeout": 1.5,
            "priority": -1,
        }
    ]


def test_arguments_of_python_calls_are_not_told(story: ServerStory) -> None:
    args = msgpack.packb(([b"top secret"], {}))
    builder = SubmitBuilder().task(11, [], [10], args=args).task(13, [], [12], args=args, config={"encode": None})
    client, session = opened(story, builder.array(14, 3, config={"encode": None}))
    assert specs(story, client, session, 11, 13, 18) == [
        {"id": 11, "task_type": "py/", "inputs": [], "outputs": [10]},
        {"id": 13, "task_type": "py/", "inputs": [], "outputs": [12], "config": {"encode": None}},
        {"id": 18, "task_type": "py/", "inputs": [], "outputs": [15], "config": {"encode": None}},
    ]


def test_specs_of_objects(story: ServerStory) -> None:
    spec = {"label": "l", "content_type": "json", "data_type": "dir", "user": {"u": [1]}, "size_hint": 2.5}
    builder = labelled({}, spec, keep=True)
    builder.objects.append((9, m.INLINE, msgpack.packb({"label": "own", "surplus": 1}), b"x"))
    client, session = opened(story, builder)
    assert specs(story, client, session, 11, 9, 10) == [
        {**spec, "id": 11, "producer": 12, "kept": True},
        {"id": 9, "label": "own"},
        {"id": 10, "producer": 12, "kept": True},
    ]


def test_specs_of_members(story: ServerStory) -> None:
    builder = SubmitBuilder().constant(9).array(10, 20, [9], task_type="other/x", name="n", priority=4)
    client, session = opened(story, builder)
    task = {"task_type": "other/x", "name": "n", "priority": 4, "inputs": [9]}
    assert specs(story, client, session, 12, 35) == [
        {"id": 12, "producer": 32, "kept": True},
        {**task, "id": 35, "outputs": [15], "config": [[5], {}]},
    ]
    story.worker()  # members run one by one at first
    assert specs(story, client, session, 30) == [{**task, "id": 30, "outputs": [10], "config": [[0], {}]}]


def test_what_was_dropped_is_said_to_be(story: ServerStory) -> None:
    builder = SubmitBuilder().constant(10).task(12, [10], [11], args=msgpack.packb(5), task_type="a/b")
    client, session = opened(story, builder)
    assert "released" not in specs(story, client, session, 12)[0]
    story.done(story.worker(), session, 12)
    assert specs(story, client, session, 12) == [
        {"id": 12, "task_type": "a/b", "inputs": [], "outputs": [11], "released": True}
    ]


def test_what_may_run_again_is_not_dropped(story: ServerStory) -> None:
    client, session = opened(story, chain())
    story.done(story.worker(), session, 12)
    assert "released" not in specs(story, client, session, 12)[0]
    story.say(client, m.Cancel(story.seq(), session, u32()))
    assert [spec.get("released") for spec in specs(story, client, session, 12, 14)] == [True, True]


def test_members_of_finished_blocks(story: ServerStory) -> None:
    client, session, _ = in_blocks(story)
    assert specs(story, client, session, 31, 11) == [
        {"id": 31, "task_type": "py/", "inputs": [], "outputs": [11], "released": True},
        {"id": 11, "producer": 31, "kept": True},
    ]


@pytest.mark.parametrize("wrong", [0, 9, 15, LARGEST])
def test_specs_of_unknown_ids(story: ServerStory, wrong: int) -> None:
    client, session = opened(story, chain())
    story.say(client, m.GetSpecs(story.seq(), session, u32([12, wrong])))
    assert story.failure(client).message == f"id {session}/{wrong} does not exist"


def test_portions_of_specs(story: ServerStory, monkeypatch: pytest.MonkeyPatch) -> None:
    client, session = opened(story, many(10))
    monkeypatch.setattr(task_specs, "MOST", 4)
    assert [spec["id"] for spec in specs(story, client, session, *range(11, 30, 2))] == [11, 13, 15, 17]
    monkeypatch.setattr(task_specs, "LONGEST", 200)
    assert [spec["id"] for spec in specs(story, client, session, 13, 13, 11, 15)] == [13, 13]
    assert specs(story, client, session) == []


def test_other_answers_stay_small(story: ServerStory) -> None:
    """A million members cost no more than a portion."""
    members = 100_000
    client, session = opened(story, SubmitBuilder().array(10, members))
    found = tasks(story, client, session, 10 + members)
    assert (len(found.ids), found.next) == (listing.MOST, 10 + members + listing.MOST)
    assert isinstance(found.ids, array)
