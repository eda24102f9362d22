"""Blocks: members of an array that the worker treats as one task."""

from __future__ import annotations

import pytest

from rain.common.blocks import FULL, LATE, STORED, BlockResult
from rain.protocol.messages import TaskFailed, TasksDone
from rain.testing.worker_builders import (
    BlockOf,
    InputOf,
    TaskOf,
    WorkerStory,
    block_end,
    packed_template,
    success,
)
from rain.worker.core.actions import CallExecutor, FetchObject, ForbidRun, KillExecutor, Run, StopFetch
from rain.worker.core.batching import BLOCK_BUDGET, BUDGET, SHORT_BLOCK
from rain.worker.core.events import ExecutorStopped, RunKept, RunsEnded

TEMPLATES = {
    0: packed_template("py/f", outputs=[{"label": "x"}]),
    1: packed_template("py/limited", timeout=1.0),
    2: packed_template("buildin/concat"),
    3: packed_template("cpp/f"),
    4: packed_template("py/pair", outputs=[{}, {}]),
}
FUNCTION = [InputOf(10, b"f")]
SHORT = 1e-6


def block(number: int = 100, members: int = 1000, **more: object) -> BlockOf:
    return BlockOf(number, [10], [number + 10_000], members=members, **more)  # type: ignore[arg-type]


def warm(cpus: int = 1) -> WorkerStory:
    """Executors 1 to `cpus` are idle, and the duration of a member is known."""
    story = WorkerStory(cpus=cpus)
    story.assign(*(TaskOf(n, [10]) for n in range(1, cpus + 1)), templates=TEMPLATES, objects=FUNCTION)
    for executor in range(1, cpus + 1):
        story.ready(executor)
        story.succeed(executor, *story.runs(executor), duration=SHORT)
    return story


def running() -> WorkerStory:
    story = warm()
    story.assign(block())
    return story


class TestCalls:
    def test_it_is_one_run(self):
        story = running()
        (call,) = story.all(CallExecutor)
        (run,) = call.runs
        assert (run.key, run.members, run.outputs) == ((1, 100, 1), 1000, (10_100,))
        assert run.args == block().args
        assert [item.object for item in run.inputs] == [(1, 10)]
        assert story.started() == [100]

    def test_its_outputs_are_not_expected_here(self):
        story = running()
        assert story.object_state(10_100) == "gone"
        assert story.core.info()["objects"] == [[1, 10]]

    def test_all_members_are_listed(self):
        story = warm()
        story.assign(block(members=4), TaskOf(50))
        assert sorted(story.core.info()["tasks"]) == [[1, n] for n in (50, 100, 101, 102, 103)]

    def test_it_waits_for_its_inputs(self):
        story = warm()
        story.assign(BlockOf(100, [11], [200], members=5), objects=[InputOf(11)])
        assert story.state(100) == "waiting"
        story.arrive(11)
        assert story.called() == {1: [100]}

    def test_it_is_a_batch_of_its_own(self):
        story = warm()
        tasks = [TaskOf(n, [10]) for n in range(50, 54)]
        story.assign(*tasks[:2], block(members=3), *tasks[2:])
        assert [[run.key[1] for run in call.runs] for call in story.all(CallExecutor)] == [[50, 51], [100]]
        story.succeed(1, story.run_of(50), story.run_of(51), duration=SHORT)
        assert [[run.key[1] for run in call.runs] for call in story.all(CallExecutor)] == [[52, 53]]

    def test_another_follows_a_short_one(self):
        story = warm()
        members = int(BLOCK_BUDGET / SHORT) // 2
        assert members * SHORT > BUDGET
        story.assign(block(100, members), block(20_000, members), block(40_000, members))
        assert story.called() == {1: [100, 20_000]}
        story.succeed(1, story.run_of(100), duration=members * SHORT)
        assert story.called() == {1: [40_000]}

    def test_nothing_waits_behind_a_longer_one_that_another_executor_may_begin_sooner(self):
        story = warm(cpus=2)
        members = int(SHORT_BLOCK / SHORT) * 2
        first, second, third, fourth = (block(100_000 * number, members) for number in range(1, 5))
        story.assign(first, second, third)
        begun = story.called()
        assert sorted(begun.values()) == [[100_000], [200_000]]
        story.assign(fourth)  # now there is one for each
        ((executor, sent),) = story.called().items()
        assert sent == [300_000]
        other = 3 - executor
        story.succeed(other, story.run_of(*begun[other]), duration=members * SHORT)
        assert story.called() == {other: [400_000]}

    def test_a_call_follows_it(self):
        story = warm()
        story.assign(block(), TaskOf(50, [10]))
        assert story.called() == {1: [100, 50]}

    def test_nothing_follows_one_that_takes_long(self):
        story = warm()
        story.assign(block(100, 100_000), TaskOf(500_000, [10]))
        assert story.called() == {1: [100]}

    def test_nothing_follows_one_of_unknown_duration(self):
        story = WorkerStory()
        story.assign(block(100, 2), block(200, 2), templates=TEMPLATES, objects=FUNCTION)
        story.ready(1)
        assert story.called() == {1: [100]}

    def test_executors_share_them(self):
        story = warm(cpus=2)
        story.assign(*(block(20_000 * n, 1000) for n in range(1, 5)))
        assert sorted(len(sent) for sent in story.called().values()) == [2, 2]

    def test_its_average_is_that_of_a_member(self):
        story = running()
        story.end_block(1, story.run_of(100), done=100, end=LATE, duration=100 * SHORT)
        assert story.core.sessions[1].templates[0].average == pytest.approx(SHORT)

    @pytest.mark.parametrize(
        "damaged",
        [
            BlockOf(100, [10], [200], template=1, members=2),
            BlockOf(100, [10], [200], template=2, members=2),
            BlockOf(100, [10], [200], template=3, members=2),
            BlockOf(100, [10], [200], template=4, members=2),
            BlockOf(100, [10], [], members=2),
            BlockOf(100, [10], [200, 201], members=2),
        ],
    )
    def test_what_cannot_be_a_block(self, damaged):
        story = warm()
        story.assign(damaged, TaskOf(50))
        failures = story.messages(TaskFailed)
        assert {failed.task for failed in failures} == {50, 100}
        assert all("1/100 cannot be a block" in failed.failure["message"] for failed in failures)
        assert story.state(100) == story.state(50) == "gone"

    def test_without_arguments_it_cannot_be_a_block(self):
        story = warm()
        damaged = block()
        damaged.args = None
        story.assign(damaged)
        assert [failed.task for failed in story.messages(TaskFailed)] == [100]


class TestEnds:
    def test_the_result_goes_to_the_server_as_it_is(self):
        story = running()
        result = block_end(story.run_of(100))
        story.happens(RunsEnded(1, [result], []))
        (done,) = story.messages(TasksDone)
        assert (list(done.tasks), list(done.runs), list(done.sizes), done.values) == ([100], [1], [], [])
        assert done.blocks == [result.block.packed]
        assert BlockResult.unpack(done.blocks[0]).done == 1000
        assert (list(done.starts), list(done.durations)) == ([1.0], [0.1])
        assert story.state(100) == "gone"
        assert story.core.info()["tasks"] == []

    @pytest.mark.parametrize("end", [LATE, FULL])
    def test_an_early_end_is_an_end(self, end):
        story = running()
        story.end_block(1, story.run_of(100), done=7, end=end)
        (done,) = story.messages(TasksDone)
        assert BlockResult.unpack(done.blocks[0]).end == end
        assert story.core.info() == {"tasks": [], "objects": [[1, 10]], "objects_to_delete": []}

    def test_a_stored_output_becomes_an_object(self):
        story = running()
        story.end_block(1, story.run_of(100), done=7, end=STORED, size=100_000)
        (done,) = story.messages(TasksDone)
        assert list(done.sizes) == [100_000]
        assert done.values == []
        assert story.object_state(10_107) == "present"
        assert story.core.sessions[1].objects[10_107].spec == b"\x81\xa5label\xa1x"
        story.assign(TaskOf(50, [10_107]))
        assert story.called() == {1: [50]}
        story.delete(10_107)
        story.succeed(1, story.run_of(50))
        story.tick(2.0)
        assert story.object_state(10_107) == "gone"

    def test_a_stored_output_of_which_a_copy_is_under_way(self):
        story = running()
        story.assign(TaskOf(50, [10_107]), objects=[InputOf(10_107)])
        assert story.all(FetchObject)
        story.end_block(1, story.run_of(100), done=7, end=STORED)
        assert story.all(StopFetch) == [StopFetch((1, 10_107))]
        assert story.called() == {1: [50]}

    def test_tasks_and_blocks_in_one_message(self):
        story = warm()
        story.assign(block(), TaskOf(50, [10], [51]))
        run, task = story.run_of(100), story.run_of(50)
        story.happens(RunsEnded(1, [block_end(run, done=3, end=STORED), success(task)], []))
        (done,) = story.messages(TasksDone)
        columns = zip(done.tasks, done.blocks, strict=True)
        assert {number: packed is not None for number, packed in columns} == {100: True, 50: False}
        assert sorted(done.sizes) == [1, 100_000]
        assert list(done.sizes) == [100_000 if number == 100 else 1 for number in done.tasks]

    def test_long_results_go_in_several_messages(self):
        story = warm()
        story.assign(block(100), block(20_000))
        large = BlockResult(values=bytes(6 << 20)).pack()
        results = [block_end(story.run_of(number)) for number in (100, 20_000)]
        for result in results:
            result.block = type(result.block)(large, 1)
        story.happens(RunsEnded(1, results, []))
        assert [len(done.tasks) for done in story.messages(TasksDone)] == [1, 1]

    def test_a_failed_run(self):
        story = running()
        story.fail(1, story.run_of(100))
        assert [(failed.task, failed.run) for failed in story.messages(TaskFailed)] == [(100, 1)]

    def test_a_result_that_is_none_of_a_block(self):
        story = running()
        run = story.run_of(100)
        story.happens(RunsEnded(1, [success(Run(run.key, 0, {}, None, (), (10_100,)))], []))
        assert [failed.task for failed in story.messages(TaskFailed)] == [100]

    def test_the_executor_dies_with_it(self):
        story = warm()
        story.assign(block(), TaskOf(50, [10]))
        story.lose(1, (1, 100, 1))
        assert [failed.task for failed in story.messages(TaskFailed)] == [100]
        assert story.state(50) == "starting"

    def test_the_executor_dies_before_it(self):
        story = warm()
        story.assign(TaskOf(50, [10]), block())
        story.lose(1, (1, 50, 1))
        assert [failed.task for failed in story.messages(TaskFailed)] == [50]
        assert story.state(100) == "starting"


class TestStops:
    def test_withdrawn(self):
        story = warm()
        story.assign(TaskOf(50, template=4), block())
        assert story.state(100) == "ready"
        story.withdraw(100)
        assert story.returned() == [100]

    def test_cancelled_while_it_runs(self):
        story = running()
        run = story.run_of(100)
        story.cancel(100, grace=2.0)
        assert story.all(KillExecutor) == [KillExecutor(1, 2.0)]
        story.end_block(1, run)
        assert story.actions == []
        story.happens(ExecutorStopped(1))
        assert story.stopped() == [100]

    def test_cancelled_behind_another_run(self):
        story = warm()
        story.assign(TaskOf(50, [10]), block())
        assert story.state(100) == "in_batch"
        story.cancel(100)
        assert story.all(ForbidRun) == [ForbidRun(1, (1, 100, 1))]
        story.happens(RunKept(1, (1, 100, 1)))
        assert story.stopped() == [100]

    def test_what_a_cancelled_one_stored_is_removed(self):
        story = warm()
        story.assign(TaskOf(50, [10]), block())
        first, run = story.run_of(50), story.run_of(100)
        story.cancel(100)
        story.happens(RunsEnded(1, [success(first), block_end(run, done=2, end=STORED)], []))
        assert (1, 10_102) in [key for action in story.actions for key in getattr(action, "objects", [])]
        assert story.stopped() == [100]

    def test_a_newer_run_takes_its_place(self):
        story = running()
        story.assign(block(run=2))
        assert story.all(KillExecutor)
        assert story.core.sessions[1].tasks[100].key == (1, 100, 2)


class TestOwnSpecs:
    def test_they_go_with_the_run(self):
        story = warm()
        story.assign(TaskOf(50, [10], [60], specs=[b"\x80"]), TaskOf(51, [10], [61]))
        assert [run.output_specs for run in story.runs()] == [(b"\x80",), ()]
        assert story.core.sessions[1].objects[60].spec == b"\x80"
        assert story.core.sessions[1].objects[61].spec == b"\x81\xa5label\xa1x"

    def test_some_of_several(self):
        story = warm()
        story.assign(TaskOf(50, [10], [60, 61, 62], template=4, specs=[None, b"\x81\xa5label\xa1y", None]))
        (run,) = story.runs()
        assert run.output_specs == (None, b"\x81\xa5label\xa1y", None)
        specs = [story.core.sessions[1].objects[number].spec for number in (60, 61, 62)]
        assert specs == [None, b"\x81\xa5label\xa1y", None]
