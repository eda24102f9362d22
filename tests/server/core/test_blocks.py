"""Blocks of task arrays: assigned together, taken apart where fates differ, invisible to clients."""

from __future__ import annotations

from array import array
from dataclasses import replace

import msgpack
import pytest

from rain.common.blocks import FULL, LATE, STORED
from rain.common.failure import Failure
from rain.common.number_arguments import number_arguments, read_marked
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.actions import Drop
from rain.testing.server_builders import ServerStory, SubmitBuilder, block_result, member_args, u32

FIRST, N = 11, 100
TASKS = FIRST + N
BEHIND = FIRST + 2 * N
"""First id behind the array; 10 is its function."""

BOOM = Failure("task", "boom").to_map()


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


class Mapped:
    """A session with an array of N members, one worker, and the first member done."""

    def __init__(
        self, story: ServerStory, on_failure: str = "fail", cpus: int = 1, keep: bool = True, **fields: object
    ) -> None:
        self.story = story
        self.client = story.client()
        story.say(self.client, m.NewSession(story.seq(), "test", on_failure, False))
        self.session = story.take_one(self.client, m.SessionCreated).session
        self.worker = story.worker(cpus=cpus)
        builder = SubmitBuilder().constant(10, b"function").array(FIRST, N, [10], keep=keep, **fields)
        story.submit(self.client, self.session, builder)
        assert story.blocks(self.worker) == [(TASKS + k, 0) for k in range(cpus)]
        for k in range(cpus):
            story.done(self.worker, self.session, TASKS + k, seconds=0.001)

    def states(self, *ids: int) -> list[int]:
        self.story.say(self.client, m.GetStates(self.story.seq(), self.session, u32(ids)))
        return list(self.story.take_one(self.client, m.States).states)

    def counts(self) -> dict[str, int]:
        return self.story.core.state.task_counts(self.story.record(self.session))

    def fetch(self, *ids: int) -> m.ObjectsFetched:
        self.story.say(self.client, m.FetchObjects(self.story.seq(), self.session, u32(ids), []))
        return self.story.take_one(self.client, m.ObjectsFetched)

    def wait(self, mode: int, *ids: int) -> None:
        self.story.say(self.client, m.Wait(self.story.seq(), self.session, mode, u32(ids)))

    def done(self, task: int, result: object = None) -> None:
        self.story.block_done(self.worker, self.session, task, result)  # type: ignore[arg-type]

    def finish_all(self) -> None:
        """Run whatever is assigned until nothing is."""
        while found := self.story.blocks(self.worker):
            for task, members in found:
                if members:
                    self.done(task)
                else:
                    self.story.done(self.worker, self.session, task, seconds=0.001)


def test_a_measured_array_is_assigned_in_blocks(story: ServerStory) -> None:
    mapped = Mapped(story)
    assignment = story.take_one(mapped.worker, m.AssignTasks)
    first = TASKS + 1
    assert list(zip(assignment.tasks, assignment.members, strict=True)) == [(first, 50), (first + 50, 49)]
    assert msgpack.unpackb(assignment.args[1]) == [[[index], {}] for index in range(51, 100)]
    assert list(assignment.outputs) == [FIRST + 1, FIRST + 51]
    assert list(assignment.inputs) == [10, 10]
    mapped.done(first)
    assert mapped.counts() == {"finished": 51, "assigned": 49}
    mapped.done(first + 50)
    assert mapped.counts() == {"finished": N}
    assert mapped.states() == [TaskState.finished] * N
    assert mapped.states(FIRST, FIRST + 99) == [DataObjectState.finished] * 2


def test_only_the_end_of_an_array_is_cut_for_the_cpus(story: ServerStory) -> None:
    mapped = Mapped(story, cpus=2, per_block=40)
    sizes = {}
    while found := story.blocks(mapped.worker):
        sizes.update((task - TASKS, members) for task, members in found)
        for task, members in found:
            if members:
                mapped.done(task)
            else:
                story.done(mapped.worker, mapped.session, task, seconds=0.001)
    assert sizes == {2: 38, 40: 30, 70: 10, 80: 10, 90: 8, 98: 0, 99: 0}
    assert mapped.counts() == {"finished": N}


def test_columns_of_arguments(story: ServerStory) -> None:
    client = story.client()
    session = story.session(client)
    builder = SubmitBuilder().constant(10, b"function").array(FIRST, N, [10])
    chunk, block = builder.messages(session)
    assert isinstance(block, m.SubmitBlock)
    numbers = number_arguments(range(N))
    assert numbers is not None
    column = replace(block, args=numbers.data, arg_sizes=numbers.sizes, column=numbers.code)
    story.say(client, chunk, column, m.SubmitCommit(story.seq(), session, False))
    worker = story.worker()
    single = story.take_one(worker, m.AssignTasks)
    assert single.args == [member_args(0)]
    story.done(worker, session, TASKS, seconds=0.001)
    blocks = story.take_one(worker, m.AssignTasks)
    assert [read_marked(args or b"") for args in blocks.args] == [list(range(1, 51)), list(range(51, N))]
    story.say(client, m.GetSpecs(story.seq(), session, u32([TASKS + 60])))
    (packed,) = story.take_one(client, m.Specs).specs
    assert "config" not in msgpack.unpackb(packed or b"")


def test_values_and_infos_of_members(story: ServerStory) -> None:
    mapped = Mapped(story)
    story.take(mapped.worker, m.AssignTasks)
    result = block_result(50)
    result.values, result.sizes = b"".join(b"%02d" % k for k in range(50)), u32([2] * 50)
    result.durations = array("f", [0.25 * k for k in range(50)])
    result.infos, result.kinds = [None, b"\x80"], bytes([0] * 49 + [1])
    mapped.done(TASKS + 1, result)
    reply = mapped.fetch(FIRST + 50, FIRST + 1, FIRST + 2)
    assert reply.values == [b"49", b"00", b"01"]
    assert reply.infos == [b"\x80", None, None]
    assert list(reply.sizes) == [2, 2, 2]
    story.say(mapped.client, m.GetInfos(story.seq(), mapped.session, u32([TASKS + 3, FIRST + 3])))
    infos = story.take_one(mapped.client, m.Infos).infos
    task, output = (msgpack.unpackb(info) for info in infos if info is not None)
    assert (task["attempts"], task["duration"], task["start_time"]) == (1, 0.5, 1.25)
    assert output == {"size": 2}
    assert story.core.value(mapped.session, FIRST + 4) == b"03"


def test_long_members_run_one_by_one(story: ServerStory) -> None:
    client, session = story.client(), 0
    session = story.session(client)
    worker = story.worker(cpus=2)
    story.submit(client, session, SubmitBuilder().constant(10).array(FIRST, N, [10]))
    assert story.blocks(worker) == [(TASKS, 0), (TASKS + 1, 0)]
    story.done(worker, session, TASKS, seconds=1.0)
    assert story.blocks(worker) == [(TASKS + 2, 0)]


@pytest.mark.parametrize("fields", [{"timeout": 5.0}, {"resources": {"cpus": 2}}, {"resources": {"memory": 1000}}])
def test_members_that_must_be_watched_run_one_by_one(story: ServerStory, fields: dict[str, object]) -> None:
    client = story.client()
    session = story.session(client)
    worker = story.worker(cpus=2, memory=1000)
    story.submit(client, session, SubmitBuilder().constant(10).array(FIRST, N, [10], **fields))
    story.done(worker, session, story.assigned(worker)[0], seconds=0.0001)
    assert {members for _, members in story.blocks(worker)} == {0}


def test_ids_behind_an_array(story: ServerStory) -> None:
    mapped = Mapped(story)
    builder = SubmitBuilder().task(BEHIND + 1, [], [BEHIND], keep=True).array(BEHIND + 2, 20, [])
    story.submit(mapped.client, mapped.session, builder)
    story.submit(mapped.client, mapped.session, SubmitBuilder().task(BEHIND + 43, [BEHIND], [BEHIND + 42], keep=True))
    mapped.finish_all()
    assert mapped.states() == [TaskState.finished] * (N + 22)
    reply = mapped.fetch(BEHIND, BEHIND + 2, BEHIND + 42)
    assert reply.holders[0][0].endswith(":9000")


def test_refused_arrays(story: ServerStory) -> None:
    mapped = Mapped(story)
    builder = SubmitBuilder().array(BEHIND - 5, 20, [])
    assert "already in use" in story.submit_refused(mapped.client, mapped.session, builder)
    builder = SubmitBuilder().task(TASKS + 3, [], [BEHIND + 3])
    assert f"id 1/{TASKS + 3} is already in use" in story.submit_refused(mapped.client, mapped.session, builder)
    builder = SubmitBuilder().array(BEHIND, 20, [])
    template, first, members, inputs, keep, args = builder.blocks[0]
    builder.blocks[0] = (template, first, members, inputs, keep, args[:-1])
    assert "is not complete" in story.submit_refused(mapped.client, mapped.session, builder)
    builder = SubmitBuilder().array(BEHIND, 20, [BEHIND + 100])
    assert "does not exist" in story.submit_refused(mapped.client, mapped.session, builder)
    builder = SubmitBuilder().array(BEHIND, 20, [])
    builder.blocks[0] = (builder.template(outputs=[{}, {}]), *builder.blocks[0][1:])
    assert "one output" in story.submit_refused(mapped.client, mapped.session, builder)
    story.submit(mapped.client, mapped.session, SubmitBuilder().array(BEHIND, 20, []))
    mapped.finish_all()
    assert mapped.counts() == {"finished": N + 20}


def test_unknown_ids_are_named(story: ServerStory) -> None:
    mapped = Mapped(story)
    for ids in ([BEHIND], [TASKS, BEHIND + 7, 10], [FIRST, 3]):
        story.say(mapped.client, m.GetStates(story.seq(), mapped.session, u32(ids)))
        wrong = next(number for number in ids if number >= BEHIND or number < 10)
        assert f"id 1/{wrong} does not exist" in story.failure(mapped.client).message


class TestWaits:
    def test_wait_for_members_across_blocks(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        mapped.wait(m.WAIT_ALL, *range(TASKS + 40, TASKS + 60))
        mapped.done(TASKS + 1)
        assert not story.take(mapped.client, m.WaitDone)
        mapped.done(TASKS + 51)
        assert story.take_one(mapped.client, m.WaitDone)
        mapped.wait(m.WAIT_ALL, *range(FIRST, TASKS + N))
        assert story.take_one(mapped.client, m.WaitDone)

    def test_waits_follow_when_a_block_is_taken_apart(self, story: ServerStory) -> None:
        client = story.client()
        session = story.session(client)
        story.submit(client, session, SubmitBuilder().constant(10).array(FIRST, N, [10]))
        story.say(client, m.Wait(1001, session, m.WAIT_ALL, u32([TASKS, FIRST + 5])))
        story.say(client, m.Wait(1002, session, m.WAIT_ALL, u32(range(TASKS + 95, TASKS + 100))))
        story.say(client, m.FetchObjects(1003, session, u32([FIRST + 60, FIRST + 20]), []))
        worker = story.worker()
        story.done(worker, session, TASKS, seconds=0.001)
        story.block_done(worker, session, TASKS + 1)
        assert story.take_one(client, m.WaitDone).seq == 1001
        story.block_done(worker, session, TASKS + 51)
        assert story.take_one(client, m.WaitDone).seq == 1002
        assert story.take_one(client, m.ObjectsFetched).seq == 1003

    def test_wait_some_names_the_members(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.wait(m.WAIT_SOME, TASKS + 60, FIRST + 60, TASKS + 10, TASKS + 11)
        mapped.done(TASKS + 1)
        assert list(story.take_one(mapped.client, m.WaitDone).ids) == [TASKS + 10, TASKS + 11]
        mapped.wait(m.WAIT_SOME, TASKS + 60, FIRST + 60, TASKS + 10)
        assert list(story.take_one(mapped.client, m.WaitDone).ids) == [TASKS + 10]

    def test_stop_waiting(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.wait(m.WAIT_ALL, TASKS + 60)
        story.say(mapped.client, m.StopWaiting(story._seq))
        mapped.finish_all()
        assert not story.take(mapped.client, m.WaitDone)


class TestEnds:
    def test_late_and_full_give_the_rest_back(self, story: ServerStory) -> None:
        for end in (LATE, FULL):
            mapped = Mapped(ServerStory())
            mapped.done(TASKS + 1, block_result(20, end))
            assert mapped.counts() == {"finished": 21, "assigned": 79}
            mapped.story.take(mapped.worker, m.AssignTasks)
            assert mapped.states(TASKS + 20, TASKS + 21) == [TaskState.finished, TaskState.assigned]

    def test_failure_fails_the_session(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.wait(m.WAIT_ALL, TASKS + 99)
        mapped.done(TASKS + 1, block_result(20, BOOM))
        failure = story.failure(mapped.client)
        assert (failure.task, failure.message, failure.attempts) == (TASKS + 21, "boom", 1)

    def test_failure_of_a_member_when_the_session_goes_on(self, story: ServerStory) -> None:
        mapped = Mapped(story, "continue")
        mapped.done(TASKS + 1, block_result(20, BOOM))
        mapped.wait(m.WAIT_ALL, TASKS + 21)
        assert story.failure(mapped.client).task == TASKS + 21
        mapped.done(TASKS + 51)
        assert {members for _, members in story.blocks(mapped.worker)[2:]} == {0}
        assert mapped.states(TASKS + 21, FIRST + 21) == [TaskState.failed, DataObjectState.aborted]

    def test_retries_count_for_the_member(self, story: ServerStory) -> None:
        mapped = Mapped(story, retries=1)
        story.take(mapped.worker, m.AssignTasks)
        mapped.done(TASKS + 1, block_result(0, BOOM))
        mapped.done(TASKS + 51)
        assert (TASKS + 1, 0) in story.blocks(mapped.worker)
        story.fail(mapped.worker, mapped.session, TASKS + 1)
        failure_seq = story.seq()
        story.say(mapped.client, m.Wait(failure_seq, mapped.session, m.WAIT_SESSION, u32()))
        failure = story.failure(mapped.client)
        assert (failure.task, failure.attempts) == (TASKS + 1, 2)

    def test_a_large_value_stays_in_the_store(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.done(TASKS + 1, block_result(20, STORED))
        assert mapped.states(TASKS + 21, FIRST + 21) == [TaskState.finished, DataObjectState.finished]
        reply = mapped.fetch(FIRST + 21)
        assert list(reply.sizes) == [100_000]
        assert reply.holders[0][0].endswith(":9000")

    def test_the_last_member_ends_the_block(self, story: ServerStory) -> None:
        mapped = Mapped(story, "continue")
        mapped.done(TASKS + 1, block_result(49, BOOM))
        mapped.done(TASKS + 51)
        assert mapped.counts() == {"finished": 99, "failed": 1}

    def test_a_crash_makes_all_run_one_by_one(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        story.fail(mapped.worker, mapped.session, TASKS + 1, "Lost connection to executor")
        assert story.record(mapped.session).failure is None
        mapped.done(TASKS + 51)
        assert {members for _, members in story.blocks(mapped.worker)} == {0}

    def test_a_report_of_too_many_members_drops_the_worker(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.done(TASKS + 1, block_result(60))
        assert [a.peer for a in story.other_actions if isinstance(a, Drop)] == [mapped.worker]
        assert mapped.counts() == {"finished": 1, "assigned": 99}

    def test_returned_blocks_run_again(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        runs = u32([story.runs[mapped.session, TASKS + 1]])
        story.say(mapped.worker, m.TasksReturned(mapped.session, u32([TASKS + 1]), runs))
        assert story.blocks(mapped.worker) == [(TASKS + 1, 50)]
        mapped.done(TASKS + 1)
        mapped.done(TASKS + 51)
        story.say(mapped.client, m.GetInfos(story.seq(), mapped.session, u32([TASKS + 5])))
        (info,) = story.take_one(mapped.client, m.Infos).infos
        assert info is not None
        assert msgpack.unpackb(info)["attempts"] == 1


class TestWorkersLost:
    def test_a_waiting_block_goes_elsewhere_as_a_block(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.leave(mapped.worker)
        other = story.worker()
        assert story.blocks(other) == [(TASKS, 0), (TASKS + 1, 50), (TASKS + 51, 49)], "the first value was lost"

    def test_members_of_a_running_block_are_suspects(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.started(mapped.worker, mapped.session, TASKS + 1)
        story.leave(mapped.worker)
        record = story.record(mapped.session)
        assert len(record.attempts_lost) == 50
        other = story.worker()
        solo = [task for message in story.take(other, m.AssignTasks) for task in message.solo]
        assert set(solo) <= set(range(TASKS + 1, TASKS + 51))
        assert solo

    def test_old_reports_change_nothing(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        mapped.done(TASKS + 1)
        mapped.done(TASKS + 1)
        assert mapped.counts() == {"finished": 51, "assigned": 49}


class TestCancel:
    def cancel(self, mapped: Mapped, *ids: int) -> None:
        mapped.story.say(mapped.client, m.Cancel(mapped.story.seq(), mapped.session, u32(ids)))

    def test_waiting_blocks(self, story: ServerStory) -> None:
        client = story.client()
        session = story.session(client)
        story.submit(client, session, SubmitBuilder().constant(10).array(FIRST, N, [10]))
        story.say(client, m.Cancel(story.seq(), session, u32(range(TASKS, TASKS + N))))
        assert list(story.take_one(client, m.Cancelled).ids) == list(range(TASKS, TASKS + N))
        story.say(client, m.Wait(story.seq(), session, m.WAIT_ALL, u32([FIRST + 7])))
        failure = story.failure(client)
        assert (failure.kind, failure.task) == ("cancelled", TASKS + 7)

    def test_some_members_of_a_waiting_block(self, story: ServerStory) -> None:
        client = story.client()
        session = story.session(client)
        story.submit(client, session, SubmitBuilder().constant(10).array(FIRST, N, [10]))
        story.say(client, m.Cancel(story.seq(), session, u32([TASKS + 3, TASKS + 5])))
        assert list(story.take_one(client, m.Cancelled).ids) == [TASKS + 3, TASKS + 5]
        worker = story.worker(cpus=200)
        assert len(story.assigned(worker)) == N - 2

    def test_some_members_of_an_assigned_block(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        mapped.wait(m.WAIT_ALL, TASKS + 7)
        run = story.runs[mapped.session, TASKS + 1]
        self.cancel(mapped, TASKS + 1, TASKS + 5)
        assert not story.take(mapped.client, m.Cancelled)
        order = story.take_one(mapped.worker, m.CancelTasks)
        assert (list(order.tasks), list(order.runs)) == ([TASKS + 1], [run])
        assert mapped.states(TASKS + 1, TASKS + 5) == [TaskState.cancelled] * 2
        story.say(mapped.worker, m.TasksStopped(mapped.session, u32([TASKS + 1]), u32([run])))
        assert list(story.take_one(mapped.client, m.Cancelled).ids) == [TASKS + 1, TASKS + 5]
        mapped.finish_all()
        mapped.done(TASKS + 51)
        mapped.finish_all()
        assert mapped.counts() == {"finished": N - 2, "cancelled": 2}
        assert story.take_one(mapped.client, m.WaitDone)

    def test_everything(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        self.cancel(mapped)
        orders = story.take(mapped.worker, m.CancelTasks)
        for order in orders:
            story.say(mapped.worker, m.TasksStopped(mapped.session, order.tasks, order.runs))
        assert sorted(story.take_one(mapped.client, m.Cancelled).ids) == list(range(TASKS + 1, TASKS + N))


class TestOutputsAsInputs:
    def test_of_the_same_submit(self, story: ServerStory) -> None:
        client = story.client()
        session = story.session(client)
        builder = SubmitBuilder().constant(10).array(FIRST, N, [10], keep=False)
        builder.task(BEHIND + 1, range(FIRST, FIRST + N), [BEHIND], keep=True)
        story.submit(client, session, builder)
        worker = story.worker()
        story.done(worker, session, TASKS, seconds=0.001)
        story.block_done(worker, session, TASKS + 1)
        story.take(worker, m.AssignTasks)
        story.block_done(worker, session, TASKS + 51)
        assignment = story.take_one(worker, m.AssignTasks)
        assert list(assignment.tasks) == [BEHIND + 1]
        assert list(assignment.inputs) == list(range(FIRST, FIRST + N))
        assert assignment.values.count(b"v") == N - 1
        story.done(worker, session, BEHIND + 1)
        reply_states = [story.graph(session).blocks[row].claimed for row in story.graph(session).blocks]
        assert sum(map(len, reply_states)) == N - 1

    def test_of_a_later_submit_while_the_array_runs(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        builder = SubmitBuilder().task(BEHIND + 1, [FIRST, FIRST + 3, FIRST + 60], [BEHIND], keep=True)
        story.submit(mapped.client, mapped.session, builder)
        assert mapped.states(BEHIND + 1) == [TaskState.notAssigned]
        mapped.done(TASKS + 1, block_result(50, value=b"abc"))
        mapped.done(TASKS + 51)
        assert story.blocks(mapped.worker) == [(BEHIND + 1, 0)]
        assert mapped.fetch(FIRST + 3).values == [b"abc"]

    def test_of_a_finished_array(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.finish_all()
        story.submit(mapped.client, mapped.session, SubmitBuilder().task(BEHIND + 1, [FIRST + 60], [BEHIND]))
        assert story.blocks(mapped.worker) == [(BEHIND + 1, 0)]
        story.leave(mapped.worker)
        assert mapped.states(BEHIND + 1) == [TaskState.ready]

    def test_they_are_aborted_with_their_block(self, story: ServerStory) -> None:
        mapped = Mapped(story, "continue")
        story.take(mapped.worker, m.AssignTasks)
        story.submit(mapped.client, mapped.session, SubmitBuilder().task(BEHIND + 1, [FIRST + 60], [BEHIND]))
        mapped.done(TASKS + 51, block_result(9, BOOM))
        assert mapped.states(TASKS + 60, BEHIND + 1) == [TaskState.failed, TaskState.aborted]
        assert mapped.states(BEHIND) == [DataObjectState.aborted]

    def test_not_kept(self, story: ServerStory) -> None:
        mapped = Mapped(story, keep=False)
        builder = SubmitBuilder().task(BEHIND + 1, [FIRST + 60], [BEHIND])
        assert "not kept" in story.submit_refused(mapped.client, mapped.session, builder)
        mapped.finish_all()
        assert "not kept" in story.submit_refused(mapped.client, mapped.session, builder)
        assert mapped.counts() == {"finished": N}


class TestKeeping:
    def unkeep(self, mapped: Mapped, *ids: int) -> None:
        mapped.story.say(mapped.client, m.UnkeepObjects(mapped.story.seq(), mapped.session, u32(ids)))
        mapped.story.take_one(mapped.client, m.Accepted)

    def test_single_members(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        self.unkeep(mapped, FIRST + 60)
        mapped.finish_all()
        self.unkeep(mapped, FIRST + 61)
        assert mapped.states(FIRST + 60, FIRST + 61, FIRST + 62) == [2, 2, 1]
        for number in (FIRST + 60, FIRST + 61):
            story.say(mapped.client, m.FetchObjects(story.seq(), mapped.session, u32([number]), []))
            assert story.failure(mapped.client).message == f"data object 1/{number} is not kept"
        story.say(mapped.client, m.UnkeepObjects(story.seq(), mapped.session, u32([FIRST + 62, FIRST + 61])))
        assert f"1/{FIRST + 61} is not a kept" in story.failure(mapped.client).message
        assert mapped.fetch(FIRST + 62).values == [b"v"]

    def test_all_members_free_the_values(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.finish_all()
        self.unkeep(mapped, *range(FIRST, FIRST + N))
        assert all(not block.results._values for block in story.graph(mapped.session).blocks.values())
        assert mapped.states(*range(FIRST, FIRST + N)) == [DataObjectState.removed] * N

    def test_some_members_and_then_the_others(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        mapped.finish_all()
        self.unkeep(mapped, *range(FIRST + 1, FIRST + 40))
        assert mapped.states(*range(FIRST + 1, FIRST + 51)) == [2] * 39 + [1] * 11
        story.say(mapped.client, m.UnkeepObjects(story.seq(), mapped.session, u32(range(FIRST + 45, FIRST + 39, -1))))
        story.take_one(mapped.client, m.Accepted)
        story.say(mapped.client, m.UnkeepObjects(story.seq(), mapped.session, u32(range(FIRST + 39, FIRST + 51))))
        assert f"1/{FIRST + 39} is not a kept" in story.failure(mapped.client).message
        assert mapped.fetch(FIRST + 46).values == [b"v"]
        self.unkeep(mapped, *range(FIRST + 46, FIRST + 51))
        assert mapped.states(*range(FIRST + 1, FIRST + 52)) == [2] * 50 + [1]
        assert sum(not block.results._values for block in story.graph(mapped.session).blocks.values()) == 1

    def test_an_input_outlives_its_unkeep(self, story: ServerStory) -> None:
        mapped = Mapped(story)
        story.take(mapped.worker, m.AssignTasks)
        builder = SubmitBuilder().task(BEHIND + 1, [FIRST + 60], [BEHIND], keep=True)
        story.submit(mapped.client, mapped.session, builder)
        self.unkeep(mapped, FIRST + 60)
        mapped.done(TASKS + 1)
        mapped.done(TASKS + 51)
        assignment = story.take_one(mapped.worker, m.AssignTasks)
        assert assignment.values == [b"v"]
        story.done(mapped.worker, mapped.session, BEHIND + 1)
        assert mapped.states(FIRST + 60) == [DataObjectState.removed]


def test_the_arguments_of_members_are_their_own() -> None:
    assert msgpack.unpackb(member_args(7)) == [[7], {}]
