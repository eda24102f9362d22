"""Why tasks and objects are in their state; stories; dumps."""

from __future__ import annotations

import pytest

from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.protocol import messages as m
from rain.server.core import explain, inspection
from rain.server.core.failing import fail_session
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32

LARGEST = (1 << 32) - 1
TRACEBACK = """Traceback (most recent call last):
  File "f.py", line 1, in f
    raise ValueError("boom")
ValueError: boom"""


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory, builder: SubmitBuilder, on_failure: str = "continue") -> tuple[int, int]:
    client = story.client()
    story.say(client, m.NewSession(story.seq(), "test", on_failure, False))
    session = story.take_one(client, m.SessionCreated).session
    story.submit(client, session, builder)
    return client, session


def explained(story: ServerStory, client: int, session: int, *ids: int) -> list[str]:
    story.say(client, m.Explain(story.seq(), session, u32(ids)))
    return story.take_one(client, m.Explained).texts


def test_the_usual_path(story: ServerStory) -> None:
    builder = SubmitBuilder().task(11, [], [10], name="make").task(13, [10], [12], keep=True, name="use")
    client, session = opened(story, builder)
    first, second = explained(story, client, session, 11, 13)
    assert first == "Task 'make' (1/11) is ready: no worker is connected."
    assert second.splitlines() == [
        "Task 'use' (1/13) is notAssigned: 1 of its 1 inputs are not finished.",
        "  1/10: made by task 'make' (1/11), which is ready",
    ]
    worker = story.worker()
    assert "given to 10.0.0.2:9000, which has 0 other tasks" in explained(story, client, session, 11)[0]
    story.started(worker, session, 11)
    story.now += 2
    assert explained(story, client, session, 11)[0].endswith("run 1 runs on 10.0.0.2:9000 for 2.0 s.")
    assert "which is running on 10.0.0.2:9000" in explained(story, client, session, 13)[0]
    assert "unfinished. Made by:\nTask 'make'" in explained(story, client, session, 10)[0]
    story.done(worker, session, 11)
    assert "is finished: run 1 took 0.2 s on 10.0.0.2:9000." in explained(story, client, session, 11)[0]
    text = "Data object 1/10 is finished: 1 bytes at 10.0.0.2:9000; not kept, needed by 1 unfinished tasks."
    assert explained(story, client, session, 10) == [text]


def test_waiting_for_room_and_infeasible(story: ServerStory) -> None:
    builder = SubmitBuilder().task(11, [], [10], resources={"cpus": 2}).task(13, [], [12], resources={"cpus": 9})
    builder.task(15, [], [14], resources={"cpus": 2, "gpus": 1})
    client, session = opened(story, builder)
    story.worker(cpus=2, gpus=[0])
    texts = explained(story, client, session, 15, 13)
    assert "it needs cpus=2, gpus=1 and waits for a worker with room" in texts[0] or "given to" in texts[0]
    assert "no worker can ever run it: needs cpus=9; largest worker offers cpus=2 (1 worker)." in texts[1]
    assert "10.0.0.2:9000: cpus 0 of 2 free (too little)" in texts[1]


def test_history_of_runs(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().task(11, [], [10], keep=True, retries=1, name="f"))
    worker = story.worker()
    story.started(worker, session, 11)
    story.now += 1
    story.fail(worker, session, 11, "boom\nwith details")
    story.now += 1
    story.started(worker, session, 11)
    story.leave(worker, "connection lost")
    other = story.worker()
    story.fail(other, session, 11, "again")
    story.now += 3
    lines = explained(story, client, session, 11)[0].splitlines()
    assert lines == [
        "Task 'f' (1/11) is failed: again",
        "What happened to it:",
        "  4.0 s ago: run 1 failed on 10.0.0.2:9000: boom; runs again",
        "  3.0 s ago: run was lost when 10.0.0.2:9000 was lost (connection lost)",
        "  3.0 s ago: failed for good on 10.0.0.3:9000: again",
    ]


def test_aborted_cancelled_recomputed_withdrawn(story: ServerStory) -> None:
    builder = SubmitBuilder().task(11, [], [10]).task(13, [10], [12]).task(15, [], [14], keep=True)
    client, session = opened(story, builder)
    worker = story.worker(cpus=2)
    story.done(worker, session, 15)
    story.say(client, m.Cancel(story.seq(), session, u32([11])))
    texts = explained(story, client, session, 11, 13, 12)
    assert "0.0 s ago: cancelled" in texts[0]
    assert "aborted, because of task 1/11" in texts[1]
    assert "is aborted" in texts[2]
    story.leave(worker)
    assert "runs again: a result of it was lost" in explained(story, client, session, 15)[0]


def test_a_cancelled_run_that_has_not_stopped_yet(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().task(11, [], [10], keep=True))
    worker = story.worker()
    story.started(worker, session, 11)
    story.say(client, m.Cancel(story.seq(), session, u32([11])))
    first = explained(story, client, session, 11)[0].splitlines()[0]
    assert first.endswith("Its run is still being stopped on 10.0.0.2:9000.")
    story.say(worker, m.TasksStopped(session, u32([11]), u32([1])))
    assert "still being stopped" not in explained(story, client, session, 11)[0]


def test_one_answer_is_bounded(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().array(10, 300))
    assert len(explained(story, client, session, *range(310, 510))) == 200
    story.say(client, m.Explain(story.seq(), session, u32(range(310, 511))))
    assert "at most 200 ids" in story.failure(client).message


def test_stories_are_bounded(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().task(11, [], [10], keep=True, retries=100))
    worker = story.worker()
    for _ in range(50):
        story.fail(worker, session, 11)
    assert len(explained(story, client, session, 11)[0].splitlines()) <= 20


def test_members_of_arrays(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().array(10, 20))
    task, output = explained(story, client, session, 35, 15)
    assert task.startswith("1/35 is member 5 of a task array and goes with 19 others of it.\nTask 1/30 is ready")
    assert output.startswith("Data object 1/15 is unfinished. Made by task 1/35:\n")


def test_other_sessions_and_unknown_ids(story: ServerStory) -> None:
    _, session = opened(story, SubmitBuilder().task(11, [], [10]))
    other = story.client()
    assert "is ready" in explained(story, other, session, 11)[0]
    story.say(other, m.Explain(story.seq(), session, u32([99])))
    assert "1/99 does not exist" in story.failure(other).message
    story.say(other, m.Explain(story.seq(), 7, u32([1])))
    assert story.failure(other).message == "Session 7 is closed or never was; open sessions: 1"
    story.say(other, m.ExplainTasks(story.seq(), 7, 1, 2))
    assert story.failure(other).message == "Session 7 is closed or never was; open sessions: 1"


def test_a_failed_session_says_why(story: ServerStory) -> None:
    builder = SubmitBuilder().task(11, [], [10], retries=1, name="f").task(13, [10], [12])
    client, session = opened(story, builder, "fail")
    worker = story.worker()
    story.fail(worker, session, 11, "flaky")
    story.now += 1
    story.fail(worker, session, 11, TRACEBACK)
    story.now += 2
    text = (
        "Task 'f' (1/11) is failed, and with it its session: ValueError: boom\nWhat happened to it:\n"
        "  3.0 s ago: run 1 failed on 10.0.0.2:9000: flaky; runs again\n"
        "  2.0 s ago: failed for good on 10.0.0.2:9000: ValueError: boom"
    )
    other = "Session 1 failed because of task 'f' (1/11), everything in it was stopped: ValueError: boom"
    assert explained(story, client, session, 11, 13) == [text, other]
    assert in_range(story, client, session, 0, 99) == ([(11, 1)], [text], 0)
    story.say(client, m.ExplainTasks(story.seq(), session, 12, 99))
    assert story.failure(client).message == other


def test_a_session_that_failed_by_a_defect_of_rain(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder().task(11, [], [10]), "fail")
    fail_session(story.core.state, story.record(session), Failure("internal", "internal error 1"))
    assert explained(story, client, session, 11) == ["Session 1 failed: internal error 1"]
    story.say(client, m.ExplainTasks(story.seq(), session, 0, 99))
    assert story.failure(client).message == "Session 1 failed: internal error 1"


def in_range(
    story: ServerStory, client: int, session: int, first: int, last: int
) -> tuple[list[tuple[int, int]], list[str], int]:
    story.say(client, m.ExplainTasks(story.seq(), session, first, last))
    answer = story.take_one(client, m.TasksExplained)
    return list(zip(answer.ids, answer.counts, strict=True)), answer.texts, answer.next


def test_ranges(story: ServerStory) -> None:
    builder = SubmitBuilder().task(11, [], [10]).array(12, 20).task(53, [], [52], name="last")
    client, session = opened(story, builder)
    spans, texts, following = in_range(story, client, session, 0, LARGEST)
    assert (spans, following) == ([(11, 1), (32, 20), (53, 1)], 0)
    assert texts[0].startswith("Task 1/11 is ready")
    assert texts[1].startswith("1/32 to 1/51 are members of a task array and go together.\nTask 1/32 is ready")
    assert texts[2].startswith("Task 'last' (1/53)")
    assert in_range(story, client, session, 34, 53)[0] == [(34, 18), (53, 1)]
    assert in_range(story, client, session, 12, 31) == ([], [], 0)
    assert in_range(story, client, session, 54, LARGEST) == ([], [], 0)
    assert in_range(story, client, session, LARGEST, LARGEST) == ([], [], 0)


def test_tasks_of_an_empty_session(story: ServerStory) -> None:
    client, session = opened(story, SubmitBuilder())
    assert in_range(story, client, session, 0, LARGEST) == ([], [], 0)


@pytest.mark.parametrize("limit", ["MOST", "LONGEST", "WINDOW"])
def test_long_ranges_come_in_portions(story: ServerStory, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(explain, limit, {"MOST": 3, "LONGEST": 100, "WINDOW": 5}[limit])
    builder = SubmitBuilder()
    for number in range(10, 30, 2):
        builder.task(number + 1, [], [number])
    builder.array(30, 20)
    client, session = opened(story, builder)
    found, first, answers = [], 0, 0
    while True:
        spans, texts, following = in_range(story, client, session, first, LARGEST)
        assert len(texts) == len(spans)
        found += spans
        answers += 1
        if not following:
            break
        assert following > first
        first = following
    assert answers > 3
    assert [number for number, count in found for number in range(number, number + count)] == [
        *range(11, 30, 2),
        *range(50, 70),
    ]


def test_one_line_of_a_traceback() -> None:
    assert one_line(TRACEBACK) == "ValueError: boom"
    assert one_line("Traceback (most recent call last):\nKeyError: 1") == "KeyError: 1"
    assert one_line("... (cut)\n    x = y\nNameError: y\nnote") == "NameError: y"
    assert one_line("Traceback (most recent call last):") == "Traceback (most recent call last):"
    assert one_line("plain\nmore") == "plain"
    assert one_line("x" * 400) == "x" * 297 + "..."


def test_dump(story: ServerStory) -> None:
    builder = SubmitBuilder().constant(9, b"secret value").task(11, [9], [10]).task(13, [10], [12])
    client, session = opened(story, builder)
    gone = story.worker()
    story.leave(gone, "gone away")
    worker = story.worker()
    story.say(client, m.GetDump(story.seq()))
    request = story.take_one(worker, m.GetWorkerInfo)
    assert request.full
    story.say(worker, m.WorkerInfo(request.seq, {"state": {"x": 1}, "log": ["line"]}))
    dump = story.take_one(client, m.Dump).dump
    assert "gone away" in dump["server"]["gone_workers"][0]
    (entry,) = dump["workers"]
    assert (entry["log"], entry["state"], entry["answered"]) == (["line"], {"x": 1}, True)
    assert "tasks" not in entry
    assert entry["at_server"]["assigned"] == {str(session): 1}
    (found,) = dump["sessions"]
    assert found["tasks"] == {"assigned": 1, "notAssigned": 1}
    assert any("1/13" in text for text in found["explained"])
    assert "secret value" not in repr(dump)


def dump_of(story: ServerStory, client: int, answers: dict[int, dict[str, object]]) -> dict:
    """A dump for which these workers answer."""
    story.say(client, m.GetDump(story.seq()))
    for worker, info in answers.items():
        story.say(worker, m.WorkerInfo(story.take_one(worker, m.GetWorkerInfo).seq, info))
    story.pass_time(3)
    return story.take_one(client, m.Dump).dump


def test_a_dump_without_the_answer_of_a_worker(story: ServerStory) -> None:
    client = story.client()
    first, _ = story.worker(), story.worker()
    workers = dump_of(story, client, {first: {"state": {"x": 1}, "log": []}})["workers"]
    assert [worker["answered"] for worker in workers] == [True, False]
    assert "state" not in workers[1]
    assert workers[1]["at_server"]["story"]


def test_dumps_are_bounded(story: ServerStory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "WORKERS_ROOM", 1000)
    monkeypatch.setattr(inspection, "TEXTS_ROOM", 500)
    builder = SubmitBuilder()
    for number in range(10, 60, 2):
        builder.task(number + 1, [], [number], resources={"cpus": 9})
    client, _ = opened(story, builder)
    opened(story, builder)
    large, small = story.worker(), story.worker()
    dump = dump_of(story, client, {large: {"state": {"x": "y" * 2000}}, small: {"state": {"x": 1}}})
    assert "left_out" in dump["workers"][0]
    assert dump["workers"][1]["state"] == {"x": 1}
    first, second = (session["explained"] for session in dump["sessions"])
    assert 0 < len(first) < 25
    assert second == []
