"""Tasks that go into the same batch as those which make their inputs."""

from __future__ import annotations

import pytest

from rain.protocol.messages import TaskFailed, TasksReturned
from rain.testing.worker_builders import (
    BlockOf,
    InputOf,
    TaskOf,
    WorkerStory,
    failure_of,
    packed_template,
    success,
)
from rain.worker.core.actions import CallExecutor, ForbidRun, KillExecutor, Run
from rain.worker.core.batching import MAX_BATCH
from rain.worker.core.events import RunsEnded, RunSkipped

FAST, OTHER, LIMITED, UNKNOWN, BUILTIN, LARGE = range(6)
TEMPLATES = {
    FAST: packed_template("py/f"),
    OTHER: packed_template("py/g"),
    LIMITED: packed_template("py/f", timeout=5.0),
    UNKNOWN: packed_template("py/h"),
    BUILTIN: packed_template("buildin/concat"),
    LARGE: packed_template("py/f", resources={"cpus": 2}),
}


def fast_worker(cpus: int = 1, seconds: float = 1e-5) -> WorkerStory:
    """A worker whose executors 1..cpus are idle; the templates FAST and OTHER are known to take so long."""
    story = WorkerStory(cpus=cpus)
    for template in (FAST, OTHER):
        for n in range(cpus):
            story.assign(TaskOf(900 + n, template=template), templates=TEMPLATES)
        for n in range(1, cpus + 1):
            if template == FAST:
                story.ready(n)
        for n in range(cpus):
            if story.state(900 + n) != "gone":
                executor = story.core.sessions[1].tasks[900 + n].executor
                assert executor is not None
                story.succeed(executor.id, story.run_of(900 + n), duration=seconds)
    return story


def chain(length: int, first: int = 10, template: int = FAST) -> list[TaskOf]:
    """Tasks first, first + 1 ...; each needs the output of the one before, which is 1000 + its id."""
    return [
        TaskOf(first + n, [1000 + first + n - 1] if n else [], [1000 + first + n], template=template)
        for n in range(length)
    ]


def called(story: WorkerStory) -> list[tuple[int, list[int]]]:
    """Batches sent: executor and task ids."""
    return [(call.executor, [run.key[1] for run in call.runs]) for call in story.all(CallExecutor)]


def live(run: Run) -> list[int]:
    return [one.object[1] for one in run.inputs if one.live]


def test_a_batch_is_full_when_followers_fill_it():
    """Also for tasks behind them that nothing waits for."""
    story = fast_worker(seconds=1e-6)
    fillers = [TaskOf(500 + n, [], [2500 + n], template=FAST) for n in range(5)]
    story.assign(fillers[0], *chain(MAX_BATCH - 4), *fillers[1:])
    (_, batch), *_ = called(story)
    assert len(batch) == MAX_BATCH
    assert batch[:2] == [500, 10]


def test_a_chain_is_one_batch():
    story = fast_worker()
    story.assign(*chain(4))
    assert called(story) == [(1, [10, 11, 12, 13])]
    assert [live(run) for run in story.runs()] == [[], [1010], [1011], [1012]]
    assert [story.state(task) for task in range(10, 14)] == ["running", "in_batch", "in_batch", "in_batch"]
    story.succeed(1, *story.runs(), duration=1e-5)
    assert story.done() == [10, 11, 12, 13]
    assert story.object_state(1013) == "present"


def test_what_needs_two_tasks_of_the_batch_comes_behind_both():
    story = fast_worker()
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [], [102]), TaskOf(3, [101, 102, 101], [103]), TaskOf(4, [103]))
    assert called(story) == [(1, [1, 2, 3, 4])]
    assert live(story.runs()[2]) == [101, 102, 101]


def test_chains_follow_each_other_depth_first():
    story = fast_worker()
    story.assign(*chain(3, 10), *chain(3, 20))
    assert called(story) == [(1, [10, 11, 12, 20, 21, 22])]


def test_each_cpu_gets_whole_chains():
    story = fast_worker(cpus=2)
    story.assign(*chain(3, 10), *chain(3, 20))
    assert sorted(batch for _, batch in called(story)) == [[10, 11, 12], [20, 21, 22]]


def test_what_needs_a_task_of_another_executor_waits():
    story = fast_worker(cpus=2)
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [], [102]), TaskOf(3, [101, 102]))
    assert sorted(batch for _, batch in called(story)) == [[1], [2]]
    assert story.state(3) == "waiting"


def test_of_several_one_follows_while_a_cpu_is_free():
    story = fast_worker(cpus=2)
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [101]), TaskOf(3, [101]))
    assert [batch for _, batch in called(story)] == [[1, 2]]
    story.succeed(called(story)[0][0], story.run_of(1), duration=1e-5)
    assert [batch for _, batch in called(story)] == [[3]]


def test_of_several_all_follow_when_no_cpu_is_free():
    story = fast_worker()
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [101]), TaskOf(3, [101]))
    assert called(story) == [(1, [1, 2, 3])]


@pytest.mark.parametrize("template", [LIMITED, UNKNOWN, BUILTIN, LARGE])
def test_what_may_not_share_the_batch_waits(template):
    story = fast_worker(cpus=2)
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [101], template=template))
    assert [batch for _, batch in called(story)] == [[1]]
    assert story.state(2) == "waiting"


def test_blocks_and_solo_tasks_wait():
    story = fast_worker()
    story.assign(TaskOf(1, [], [101]), BlockOf(20, [101], [200], members=5))
    assert called(story) == [(1, [1])]
    story = fast_worker()
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [101]), solo=[2])
    assert called(story) == [(1, [1])]


def test_a_transfer_is_waited_for():
    story = fast_worker()
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [101, 50]), objects=[InputOf(50)])
    assert called(story) == [(1, [1])]
    story.succeed(1, story.run_of(1), duration=1e-5)
    story.arrive(50)
    assert called(story) == [(1, [2])]
    assert live(story.runs()[0]) == []


def test_a_batch_is_bounded():
    story = fast_worker(seconds=0.0)
    story.assign(*chain(MAX_BATCH + 9))
    assert [len(batch) for _, batch in called(story)] == [MAX_BATCH]
    story = fast_worker(seconds=0.0009)
    story.assign(*chain(6))
    assert called(story) == [(1, [10, 11])]


def test_ready_tasks_without_room_stay_in_order():
    story = fast_worker(seconds=0.0009)
    story.assign(*chain(2, 10), *chain(2, 20), *chain(2, 30))
    assert called(story) == [(1, [10, 11]), (1, [20, 21])]
    story.succeed(1, *map(story.run_of, (10, 11, 20)), duration=0.0009)
    assert called(story) == [(1, [30, 31])]


def test_with_a_failed_task_those_behind_it_go_back():
    story = fast_worker()
    story.assign(*chain(3), TaskOf(50))
    runs = story.runs()
    assert [run.key[1] for run in runs] == [10, 11, 12, 50]
    ends = [failure_of(runs[0].key), RunSkipped(runs[1].key), RunSkipped(runs[2].key), success(runs[3])]
    story.happens(RunsEnded(1, ends, []))
    assert [message.task for message in story.messages(TaskFailed)] == [10]
    assert story.returned() == [11, 12]
    assert story.done() == [50]
    assert not story.all(KillExecutor)
    assert [story.state(task) for task in (10, 11, 12, 50)] == ["gone"] * 4


def test_reports_may_come_one_by_one():
    story = fast_worker()
    story.assign(*chain(2), TaskOf(50))
    runs = story.runs()
    story.happens(RunsEnded(1, [success(runs[0], duration=1e-5)], []))
    assert [story.state(task) for task in (10, 11)] == ["gone", "running"]
    story.happens(RunsEnded(1, [success(runs[1], duration=1e-5)], []))
    assert story.done() == [11]


def test_a_skipped_one_whose_input_is_here_is_sent_again():
    story = fast_worker()
    story.assign(*chain(3))
    runs = story.runs()
    story.happens(RunsEnded(1, [success(runs[0], duration=1e-5), RunSkipped(runs[1].key), RunSkipped(runs[2].key)], []))
    assert story.done() == [10]
    assert called(story) == [(1, [11, 12])]
    assert [live(run) for run in story.runs()] == [[], [1011]]
    assert not story.messages(TasksReturned)


def test_a_follower_that_fails_has_failed_although_its_input_came_with_the_same_report():
    story = fast_worker()
    story.assign(*chain(3))
    runs = story.runs()
    ends = [success(runs[0], duration=1e-5), failure_of(runs[1].key), RunSkipped(runs[2].key)]
    story.happens(RunsEnded(1, ends, []))
    assert story.done() == [10]
    assert [message.task for message in story.messages(TaskFailed)] == [11]
    assert story.returned() == [12]


def test_of_a_lost_executor_only_the_one_that_ran_is_to_blame():
    story = fast_worker()
    story.assign(*chain(2, 10), *chain(2, 20), *chain(2, 30))
    story.lose(1, (1, 10, 1))
    assert [message.task for message in story.messages(TaskFailed)] == [10]
    assert story.returned() == [11]
    assert [story.state(task) for task in (20, 21, 30, 31)] == ["starting", "waiting", "ready", "waiting"]
    story.ready(2)
    assert called(story) == [(2, [20, 21]), (2, [30, 31])]


def test_after_a_loss_followers_wait_for_their_inputs_once():
    story = fast_worker()
    story.assign(TaskOf(1, [], [101]), TaskOf(2, [101, 101], [102]), TaskOf(3, [101, 102]))
    story.lose(1)
    assert [story.state(task) for task in (1, 2, 3)] == ["starting", "waiting", "waiting"]
    story.ready(2)
    assert called(story) == [(2, [1, 2, 3])]
    story.succeed(2, *story.runs(), duration=1e-5)
    assert story.done() == [1, 2, 3]


def test_cancelled_ones_take_those_behind_them_along():
    story = fast_worker()
    story.assign(TaskOf(50), *chain(3))
    story.cancel(10, grace=2.0)
    assert story.returned() == [11, 12]
    assert story.all(ForbidRun) == [ForbidRun(1, (1, 10, 1))]
    story.succeed(1, story.run_of(50), duration=1e-5)
    assert [story.state(task) for task in (50, 10, 11, 12)] == ["gone"] * 4


def test_a_withdrawn_task_in_a_batch_stays_with_those_behind_it():
    story = fast_worker()
    story.assign(*chain(3))
    story.withdraw(10, 11, 12)
    assert story.returned() == []
    story.succeed(1, *map(story.run_of, (10, 11, 12)), duration=1e-5)
    assert story.done() == [10, 11, 12]


def test_the_end_of_a_session_ends_all():
    story = fast_worker()
    story.assign(*chain(3))
    story.end()
    assert story.all(KillExecutor)
    assert not story.core.sessions
