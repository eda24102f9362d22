"""Linked blocks: run as one while their members are tiny, dissolved into tasks with inputs of their own otherwise."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgpack
import pytest

from rain.common.blocks import FULL, LATE, STORED
from rain.common.failure import Failure
from rain.common.links import unpack_assigned
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.testing.server_builders import ServerStory, SubmitBuilder, block_result, u32

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.common.blocks import BlockResult

F, G = 8, 9
"""Two functions."""
FIRST, N = 11, 6
TASKS = FIRST + N
BEHIND = FIRST + 2 * N
INPUTS = [[F], [F], [G, FIRST, FIRST + 1], [F, FIRST + 2], [G, FIRST + 2, FIRST + 3], [F]]
"""Of each member."""
BOOM = Failure("task", "boom").to_map()


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


class Linked:
    """A session with an array of N members that use each other, and one worker."""

    def __init__(
        self,
        story: ServerStory,
        on_failure: str = "fail",
        per_block: int = 100,
        keep: Iterable[int] = (4, 5),
        cpus: int = 1,
        more: SubmitBuilder | None = None,
        **fields: object,
    ) -> None:
        self.story = story
        self.client = story.client()
        story.say(self.client, m.NewSession(story.seq(), "test", on_failure, False))
        self.session = story.take_one(self.client, m.SessionCreated).session
        builder = (more or SubmitBuilder()).constant(F, b"f", keep=True).constant(G, b"g", keep=True)
        names = ["one", "one", "two", "one", "two", "one"]
        builder.linked(FIRST, INPUTS, keep, names, per_block, **fields)
        story.submit(self.client, self.session, builder)
        self.worker = story.worker(cpus=cpus)

    def states(self, *ids: int) -> list[int]:
        self.story.say(self.client, m.GetStates(self.story.seq(), self.session, u32(ids)))
        return list(self.story.take_one(self.client, m.States).states)

    def tasks(self) -> list[str]:
        return [TaskState(state).name for state in self.states(*range(TASKS, TASKS + N))]

    def counts(self) -> dict[str, int]:
        return self.story.core.state.task_counts(self.story.record(self.session))

    def fetch(self, *ids: int) -> list[bytes | None]:
        self.story.say(self.client, m.FetchObjects(self.story.seq(), self.session, u32(ids), []))
        return self.story.take_one(self.client, m.ObjectsFetched).values

    def done(self, task: int, result: BlockResult | None = None) -> None:
        self.story.block_done(self.worker, self.session, task, result)

    def finish_all(self) -> list[tuple[int, int]]:
        """Run whatever is assigned until nothing is; returns what ran."""
        ran = []
        while found := self.story.blocks(self.worker):
            ran += found
            for task, members in found:
                if members:
                    self.done(task, some_done(members))
                else:
                    self.story.done(self.worker, self.session, task, seconds=1e-5)
        return ran


def some_done(done: int, end: object = None) -> BlockResult:
    """The first members succeeded with values that tell their positions."""
    result = block_result(done, end)  # type: ignore[arg-type]
    result.values, result.sizes = b"".join(b"%02d" % k for k in range(done)), u32([2] * done)
    result.durations = array("f", [1e-5] * done)
    return result


def test_the_block_is_assigned_as_one(story: ServerStory) -> None:
    linked = Linked(story)
    message = story.take_one(linked.worker, m.AssignTasks)
    assert (list(message.tasks), list(message.members)) == ([TASKS], [N])
    assert list(message.inputs) == [F, G]
    assert len(message.templates) == 2
    assert list(message.outputs) == [FIRST]
    (packed,) = message.links
    assert packed is not None
    link, wanted = unpack_assigned(packed, N, 2)
    assert wanted == bytes([0, 0, 0, 0, 1, 1])
    assert [list(link.references_of(k)) for k in range(N)] == [[0], [0], [1, 2, 3], [0, 4], [1, 4, 5], [0]]
    assert [link.template(k) - link.template(0) for k in range(N)] == [0, 0, 1, 0, 1, 0]
    linked.done(TASKS, some_done(N))
    assert linked.tasks() == ["finished"] * N
    removed, finished = DataObjectState.removed, DataObjectState.finished
    assert linked.states(*range(FIRST, TASKS)) == [removed] * 4 + [finished] * 2
    assert linked.fetch(FIRST + 4, FIRST + 5) == [b"04", b"05"]


def test_values_of_one_block_are_inputs_of_another(story: ServerStory) -> None:
    linked = Linked(story, per_block=3, cpus=2)
    message = story.take_one(linked.worker, m.AssignTasks)
    assert (list(message.tasks), list(message.members)) == ([TASKS], [3])
    assert unpack_assigned(message.links[0] or b"", 3, 2)[1] == bytes([0, 0, 1])
    linked.done(TASKS, some_done(3))
    message = story.take_one(linked.worker, m.AssignTasks)
    assert (list(message.tasks), list(message.members)) == ([TASKS + 3], [3])
    assert list(message.inputs) == [F, FIRST + 2, G]
    assert message.values[list(message.objects).index(FIRST + 2)] == b"02"
    linked.done(TASKS + 3, some_done(3))
    assert linked.tasks() == ["finished"] * N
    assert linked.states(FIRST + 2) == [DataObjectState.removed]


def test_a_failing_member_is_to_blame(story: ServerStory) -> None:
    linked = Linked(story)
    linked.done(TASKS, some_done(2, BOOM))
    story.say(linked.client, m.Wait(story.seq(), linked.session, m.WAIT_SESSION, array("I")))
    failure = story.failure(linked.client)
    assert (failure.task, failure.message) == (TASKS + 2, "boom")


def test_the_session_goes_on_without_what_depends_on_it(story: ServerStory) -> None:
    linked = Linked(story, "continue")
    linked.done(TASKS, some_done(2, BOOM))
    assert linked.tasks()[:5] == ["finished", "finished", "failed", "aborted", "aborted"]
    assert linked.finish_all() == [(TASKS, N), (TASKS + 5, 0)]
    assert linked.tasks() == ["finished", "finished", "failed", "aborted", "aborted", "finished"]


def test_a_failing_member_runs_again_with_the_values_of_the_others(story: ServerStory) -> None:
    linked = Linked(story, retries=1)
    linked.done(TASKS, some_done(2, BOOM))
    story.take(linked.worker, m.DeleteObjects)
    _, message = story.take(linked.worker, m.AssignTasks)
    assert sorted(message.tasks) == [TASKS + 2, TASKS + 3, TASKS + 5]  # one of them is sent ahead
    begin = sum(message.input_counts[: list(message.tasks).index(TASKS + 2)])
    assert list(message.inputs[begin : begin + 3]) == [G, FIRST, FIRST + 1]
    values = dict(zip(message.objects, message.values, strict=True))
    assert values[FIRST] == b"00"
    assert values[FIRST + 1] == b"01"
    story.done(linked.worker, linked.session, *message.tasks)
    linked.finish_all()
    assert linked.tasks() == ["finished"] * N
    story.say(linked.client, m.GetInfos(story.seq(), linked.session, u32(range(TASKS, TASKS + N))))
    infos = [msgpack.unpackb(info) for info in story.take_one(linked.client, m.Infos).infos if info is not None]
    assert [info["attempts"] for info in infos] == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("end", [LATE, FULL])
@pytest.mark.parametrize("done", range(1, N))
def test_what_is_left_runs_one_by_one(story: ServerStory, end: str, done: int) -> None:
    linked = Linked(story)
    linked.done(TASKS, some_done(done, end))
    assert linked.tasks()[:done] == ["finished"] * done
    assert sorted(linked.finish_all()[1:]) == [(TASKS + k, 0) for k in range(done, N)]
    assert linked.tasks() == ["finished"] * N
    assert linked.states(FIRST, FIRST + 4) == [DataObjectState.removed, DataObjectState.finished]


def test_a_large_value_in_the_middle(story: ServerStory) -> None:
    linked = Linked(story)
    result = some_done(2, STORED)
    result.start, result.duration = 1.0, 0.1
    linked.done(TASKS, result)
    assert linked.tasks()[:3] == ["finished"] * 3
    assert sorted(linked.finish_all()[1:]) == [(TASKS + k, 0) for k in (3, 4, 5)]
    assert linked.tasks() == ["finished"] * N


def test_a_run_that_fails_as_a_whole(story: ServerStory) -> None:
    linked = Linked(story)
    story.take(linked.worker, m.AssignTasks)
    run = story.runs[linked.session, TASKS]
    story.say(linked.worker, m.TaskFailed(linked.session, TASKS, run, Failure("task", "died").to_map(), 1.0, 0.1))
    assert sorted(linked.finish_all()) == [(TASKS + k, 0) for k in range(N)]
    assert linked.tasks() == ["finished"] * N


@pytest.mark.parametrize("is_running", [False, True])
def test_a_lost_worker(story: ServerStory, is_running: bool) -> None:
    linked = Linked(story)
    story.take(linked.worker, m.AssignTasks)
    if is_running:
        run = story.runs[linked.session, TASKS]
        story.say(linked.worker, m.TasksStarted(linked.session, u32([TASKS]), u32([run])))
    story.leave(linked.worker)
    linked.worker = story.worker()
    ran = linked.finish_all()
    assert sorted(ran) == ([(TASKS + k, 0) for k in range(N)] if is_running else [(TASKS, N)])
    assert linked.tasks() == ["finished"] * N


def test_a_block_of_measured_long_functions_is_dissolved(story: ServerStory) -> None:
    linked = Linked(story, per_block=2)
    result = block_result(2)
    result.durations = array("f", [0.01, 0.01])
    linked.done(TASKS, result)
    assert sorted(linked.finish_all()[1:]) == [(TASKS + k, 0) for k in range(2, N)]
    assert linked.tasks() == ["finished"] * N


def test_functions_are_measured_apart(story: ServerStory) -> None:
    linked = Linked(story)
    result = block_result(N)
    result.durations = array("f", [0.5, 0.25, 0.125, 0.5, 0.125, 0.75])
    linked.done(TASKS, result)
    groups = story.record(linked.session).groups
    assert [group.seconds for group in groups] == [0.5, 0.125]


@pytest.mark.parametrize("is_assigned", [False, True])
@pytest.mark.parametrize("cancelled", range(N))
def test_cancelling_a_member(story: ServerStory, is_assigned: bool, cancelled: int) -> None:
    linked = Linked(story, "continue", cpus=1)
    if not is_assigned:
        story.leave(linked.worker)
    story.say(linked.client, m.Cancel(story.seq(), linked.session, u32([TASKS + cancelled])))
    if is_assigned:
        story.take(linked.worker, m.AssignTasks)
        stop = story.take_one(linked.worker, m.CancelTasks)
        story.say(linked.worker, m.TasksStopped(linked.session, stop.tasks, stop.runs))
    else:
        linked.worker = story.worker()
    assert story.take_one(linked.client, m.Cancelled)
    linked.finish_all()
    gone = {0: {2, 3, 4}, 1: {2, 3, 4}, 2: {3, 4}, 3: {4}}.get(cancelled, set())
    expected = ["cancelled" if k == cancelled else "aborted" if k in gone else "finished" for k in range(N)]
    assert linked.tasks() == expected


def test_members_that_are_left_go_depth_first(story: ServerStory) -> None:
    linked = Linked(story, "continue")
    story.leave(linked.worker)
    graph = story.record(linked.session).graph
    base = graph.level[next(iter(graph.blocks))]
    story.say(linked.client, m.Cancel(story.seq(), linked.session, u32([TASKS + 5])))
    levels = [graph.level[graph.numbering.row(TASKS + k)] - base for k in range(N)]
    assert levels == [0, 0, 1, 2, 3, 0]


def test_cancelling_all(story: ServerStory) -> None:
    linked = Linked(story, "continue")
    story.say(linked.client, m.Cancel(story.seq(), linked.session, u32(range(TASKS, TASKS + N))))
    assert linked.tasks() == ["cancelled"] * N


def test_other_tasks_use_outputs_that_are_not_kept(story: ServerStory) -> None:
    more = SubmitBuilder().task(BEHIND, [FIRST + 1, FIRST + 3], [BEHIND + 1], keep=True)
    linked = Linked(story, more=more)
    message = story.take_one(linked.worker, m.AssignTasks)
    assert unpack_assigned(message.links[0] or b"", N, 2)[1] == bytes([0, 1, 0, 1, 1, 1])
    linked.done(TASKS, some_done(N))
    message = story.take_one(linked.worker, m.AssignTasks)
    assert dict(zip(message.objects, message.values, strict=True)) == {FIRST + 1: b"01", FIRST + 3: b"03"}
    story.done(linked.worker, linked.session, BEHIND)
    assert linked.states(FIRST + 1) == [DataObjectState.removed]


def test_unkeeping_outputs(story: ServerStory) -> None:
    linked = Linked(story, keep=range(N))
    story.say(linked.client, m.UnkeepObjects(story.seq(), linked.session, u32([FIRST, FIRST + 1, FIRST + 2])))
    story.leave(linked.worker)
    linked.worker = story.worker()
    message = story.take_one(linked.worker, m.AssignTasks)
    assert unpack_assigned(message.links[0] or b"", N, 2)[1] == bytes([0, 0, 0, 1, 1, 1])
    linked.done(TASKS, some_done(N))
    story.say(linked.client, m.UnkeepObjects(story.seq(), linked.session, u32([FIRST + 3])))
    removed, finished = DataObjectState.removed, DataObjectState.finished
    assert linked.states(*range(FIRST, TASKS)) == [removed] * 4 + [finished] * 2


def test_specs_and_lists_tell_of_each_member(story: ServerStory) -> None:
    linked = Linked(story)
    story.say(linked.client, m.GetSpecs(story.seq(), linked.session, u32([TASKS, TASKS + 2, FIRST + 4])))
    one, two, output = (msgpack.unpackb(spec) for spec in story.take_one(linked.client, m.Specs).specs)
    assert (one["name"], one["inputs"], one["outputs"]) == ("one", [F], [FIRST])
    assert (two["name"], two["inputs"], two["outputs"]) == ("two", [G, FIRST, FIRST + 1], [FIRST + 2])
    assert (output["producer"], output["kept"]) == (TASKS + 4, True)
    story.say(linked.client, m.ListTasks(story.seq(), linked.session, 0, 0xFFFFFFFF, b"", "two"))
    found = story.take_one(linked.client, m.TaskList)
    assert (list(found.ids), found.names) == ([TASKS + 2, TASKS + 4], ["two", "two"])


@pytest.mark.parametrize("end", [None, LATE])
def test_specs_after_the_run(story: ServerStory, end: str | None) -> None:
    linked = Linked(story)
    linked.done(TASKS, some_done(N if end is None else 3, end))
    linked.finish_all()
    story.say(linked.client, m.GetSpecs(story.seq(), linked.session, u32([TASKS + 2])))
    (packed,) = story.take_one(linked.client, m.Specs).specs
    spec = msgpack.unpackb(packed)
    assert (spec["name"], spec["released"]) == ("two", True)


def test_closing_the_session(story: ServerStory) -> None:
    linked = Linked(story)
    story.say(linked.client, m.CloseSession(story.seq(), linked.session))
    assert story.take(linked.worker, m.EndSession)


def test_refused(story: ServerStory) -> None:
    linked = Linked(story)
    linked.finish_all()

    def refused(builder: SubmitBuilder) -> str:
        return story.submit_refused(linked.client, linked.session, builder)

    assert "not complete" in refused(_without_last(SubmitBuilder().linked(BEHIND, [[F], [F, BEHIND]], per_block=1)))
    builder = SubmitBuilder().linked(BEHIND, [[BEHIND + 5], [F, BEHIND]])
    assert "does not exist" in refused(builder)
    messages = SubmitBuilder().linked(BEHIND, [[F], [F, BEHIND]]).messages(linked.session, 0)
    for change, text in (
        ({"link": b"\xc0"}, "malformed link"),
        ({"link": msgpack.packb(([0], b"", b"\1\2", array("H", [0, 0, 2]).tobytes()))}, "behind"),
        ({"link": msgpack.packb(([77], b"", b"\1\2", array("H", [0, 0, 1]).tobytes()))}, "one output"),
    ):
        _say(story, linked, messages, change)
        assert text in story.failure(linked.client).message
    with_two = SubmitBuilder()
    with_two.template(outputs=[{}, {}])
    messages = with_two.linked(BEHIND, [[F], [F, BEHIND]]).messages(linked.session, 2)
    _say(story, linked, messages, {"link": msgpack.packb(([2], b"", b"\1\2", array("H", [0, 0, 1]).tobytes()))})
    assert "one output" in story.failure(linked.client).message
    assert linked.tasks() == ["finished"] * N


def _without_last(builder: SubmitBuilder) -> SubmitBuilder:
    builder.links.pop()
    return builder


def _say(story: ServerStory, linked: Linked, messages: list[object], change: dict[str, object]) -> None:
    from dataclasses import replace

    chunk, block = messages
    story.say(linked.client, chunk, replace(block, **change), m.SubmitCommit(story.seq(), linked.session, False))  # type: ignore[arg-type, type-var]
