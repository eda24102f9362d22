"""Stories of executors: batches, reuse, spares, deaths, caches."""

from __future__ import annotations

import pytest

from rain.protocol.messages import TaskFailed
from rain.testing.worker_builders import (
    InputOf,
    TaskOf,
    WorkerStory,
    assign_tasks,
    failure_of,
    packed_template,
    success,
)
from rain.worker.core.actions import CallExecutor, DeleteValues, DropCached, ForbidRun, KillExecutor, StartExecutor
from rain.worker.core.events import ExecutorReady, RunKept, RunsEnded

PY = {0: packed_template("py/f")}
SHORT = 1e-5


def warm(cpus: int = 1, *, duration: float | None = None, **more: object) -> WorkerStory:
    """A worker with `cpus` idle executors, the last one used last; template 0 measured if a duration is given."""
    story = WorkerStory(cpus=cpus, **more)
    story.assign(*(TaskOf(900 + n, template=99) for n in range(cpus)), templates={99: packed_template("py/g"), **PY})
    for n in range(1, cpus + 1):
        story.ready(n)
        story.succeed(n, *story.runs(n))
    if duration is not None:
        story.assign(TaskOf(990))
        story.succeed(cpus, *story.runs(cpus), duration=duration)
    return story


class TestBatches:
    def test_unknown_templates_start_with_one(self):
        story = warm()
        story.assign(*map(TaskOf, range(20, 30)))
        assert story.called() == {1: [20]}
        assert story.started() == [20]
        story.succeed(1, *story.runs(1), duration=SHORT)
        assert len(story.called()[1]) == 9

    def test_the_queue_is_shared_among_executors(self):
        story = warm(2, duration=SHORT)
        story.assign(*map(TaskOf, range(20, 31)))
        assert [len(call.runs) for call in story.all(CallExecutor)] == [6, 5]
        assert sorted(story.called()) == [1, 2]

    def test_at_most_128_and_two_in_flight(self):
        story = warm(duration=1e-6)
        story.assign(*map(TaskOf, range(1000, 2000)))
        first, second = story.all(CallExecutor)
        assert (len(first.runs), len(second.runs)) == (128, 128)
        story.succeed(1, *first.runs[:100], duration=1e-6)
        assert not story.all(CallExecutor)
        story.succeed(1, *first.runs[100:], duration=1e-6)
        assert [len(call.runs) for call in story.all(CallExecutor)] == [128]

    def test_at_most_two_milliseconds(self):
        story = warm(duration=0.0005)
        story.assign(*map(TaskOf, range(20, 120)))
        assert [len(call.runs) for call in story.all(CallExecutor)] == [4]

    def test_a_second_batch_when_the_rest_is_short(self):
        story = warm(duration=0.0005)
        story.assign(*map(TaskOf, range(20, 120)))
        (first,) = story.all(CallExecutor)
        story.succeed(1, first.runs[0], duration=0.0005)
        assert [len(call.runs) for call in story.all(CallExecutor)] == [4]

    def test_long_tasks_go_one_by_one(self):
        story = warm(duration=0.01)
        story.assign(*map(TaskOf, range(20, 30)))
        assert story.called() == {1: [20]}
        story.succeed(1, *story.runs(1), duration=0.01)
        assert story.called() == {1: [21]}

    def test_nothing_is_sent_behind_a_run_that_is_overdue(self):
        story = warm(duration=SHORT)
        story.assign(TaskOf(20))
        story.now += 1.0
        story.assign(TaskOf(21))
        assert not story.all(CallExecutor)

    def test_solo_tasks_are_alone(self):
        story = warm(duration=SHORT)
        story.assign(*map(TaskOf, range(20, 26)), solo=[20, 23])
        assert story.called() == {1: [20]}
        story.succeed(1, *story.runs(1), duration=SHORT)
        assert story.called() == {1: [21, 22]}
        story.succeed(1, *story.runs(1), duration=SHORT)
        assert story.called() == {1: [23]}
        story.succeed(1, *story.runs(1), duration=SHORT)
        assert story.called() == {1: [24, 25]}

    def test_foreign_executors_get_one_run_at_a_time(self):
        story = WorkerStory()
        story.assign(*map(TaskOf, range(20, 23)), templates={0: packed_template("cpp/f")})
        story.ready(1)
        story.succeed(1, *story.runs(1), duration=SHORT)
        assert story.called() == {1: [21]}

    def test_better_work_elsewhere_is_not_starved_by_feeding(self):
        story = warm(duration=SHORT)
        story.assign(TaskOf(20))
        story.assign(TaskOf(21, template=1), templates={1: packed_template("buildin/concat", priority=1)})
        story.assign(TaskOf(22))
        assert not story.all(CallExecutor)
        story.succeed(1, story.run_of(20), duration=SHORT)
        assert story.started() == [21]

    def test_results_out_of_order(self):
        story = warm(duration=SHORT)
        story.assign(*map(TaskOf, range(20, 24)))
        runs = story.runs(1)
        story.succeed(1, runs[2], duration=SHORT)
        assert (story.done(), story.started()) == ([22], [])
        story.succeed(1, runs[0], runs[1], runs[3], duration=SHORT)
        assert story.done() == [20, 21, 23]

    def test_failures_among_successes(self):
        story = warm(duration=SHORT)
        story.assign(*map(TaskOf, range(20, 23)))
        runs = story.runs(1)
        results = [success(runs[0]), failure_of(runs[1].key), success(runs[2])]
        story.happens(RunsEnded(1, results, []))
        assert story.done() == [20, 22]
        assert [failed.task for failed in story.messages(TaskFailed)] == [21]

    def test_results_nobody_waits_for(self):
        story = warm(duration=SHORT)
        story.assign(TaskOf(20))
        story.happens(RunsEnded(1, [failure_of((1, 21, 1)), failure_of((2, 20, 1)), failure_of((1, 20, 2))], []))
        story.happens(RunsEnded(77, [failure_of((1, 20, 1))], []))
        assert story.actions == []
        assert story.state(20) == "running"


class TestReuse:
    def test_most_recently_used_first(self):
        story = warm(2)
        story.assign(TaskOf(20))
        assert story.called() == {2: [20]}
        story.succeed(2, *story.runs(2))
        story.assign(TaskOf(21))
        assert story.called() == {2: [21]}

    def test_a_chain_stays_in_one_process(self):
        story = warm()
        for number in range(20, 40):
            story.assign(TaskOf(number))
            assert story.called() == {1: [number]}
            story.succeed(1, *story.runs(1))

    def test_kinds_do_not_mix(self):
        story = warm()
        story.assign(TaskOf(20, template=1), templates={1: packed_template("py/f", env={"A": "1"})})
        assert story.all(StartExecutor) == [StartExecutor(2, "py", (("A", "1"),))]

    def test_idle_ones_beyond_twice_the_cpus_are_stopped(self):
        story = WorkerStory(cpus=1)
        for number in range(1, 4):
            template = packed_template("py/f", env={"N": str(number)})
            story.assign(TaskOf(20 + number, template=number), templates={number: template})
            story.ready(number)
            story.succeed(number, *story.runs(number))
        assert story.all(KillExecutor) == [KillExecutor(1)]

    def test_cpus_limit_how_many_start(self):
        story = WorkerStory(cpus=3)
        story.assign(*map(TaskOf, range(20, 40)), templates=PY)
        assert len(story.all(StartExecutor)) == 3

    def test_who_waits_for_an_executor_does_not_switch(self):
        story = warm(2)
        story.lose(1)
        story.assign(TaskOf(20), TaskOf(21))
        assert (story.state(20), story.state(21)) == ("running", "starting")
        story.succeed(2, *story.runs(2))
        assert story.state(21) == "starting"
        story.ready(3)
        assert story.called() == {3: [21]}


class TestSpares:
    def test_started_at_the_registration(self):
        story = WorkerStory(spare_executors=1)
        assert story.all(StartExecutor) == [StartExecutor(1, "py", ())]
        story.tick(0.5)
        assert not story.all(StartExecutor)

    def test_the_first_python_task_waits_for_the_one_it_took(self):
        story = WorkerStory(spare_executors=1)
        story.assign(TaskOf(20), templates=PY)
        assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]
        assert story.state(20) == "starting"
        story.ready(2)
        assert story.state(20) == "starting"
        story.tick(0.6)
        assert not story.all(StartExecutor)

    def test_taken_and_replaced(self):
        story = WorkerStory(spare_executors=1)
        story.ready(1)
        story.assign(TaskOf(20), templates=PY)
        assert story.called() == {1: [20]}
        assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]

    def test_a_coming_spare_is_taken_too(self):
        story = WorkerStory(spare_executors=1)
        story.assign(TaskOf(20), templates=PY)
        assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]
        story.ready(1)
        assert story.called() == {1: [20]}

    def test_only_if_no_used_one_is_idle(self):
        story = WorkerStory(spare_executors=1)
        story.assign(TaskOf(20), templates=PY)
        story.ready(1, 2)
        story.succeed(1, *story.runs(1))
        story.assign(TaskOf(21))
        assert story.called() == {1: [21]}

    def test_a_spare_that_cannot_start_is_not_tried_for_ever(self):
        story = WorkerStory(spare_executors=1)
        story.lose(1)
        assert story.actions == []
        story.tick()
        assert story.actions == []


class TestDeath:
    def test_the_running_task_is_to_blame(self):
        story = warm(duration=SHORT)
        story.assign(*map(TaskOf, range(20, 24)))
        assert story.called() == {1: [20, 21, 22, 23]}
        story.lose(1, (1, 21, 1))
        (failed,) = story.messages(TaskFailed)
        assert (failed.task, failed.failure["message"]) == (21, "Lost connection to executor")
        assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]
        story.ready(2)
        assert story.called() == {2: [20, 22, 23]}

    def test_nobody_to_blame(self):
        story = warm()
        story.assign(TaskOf(20))
        for executor in (1, 2):
            story.lose(executor)
            assert not story.messages(TaskFailed)
            assert story.state(20) == "starting"
            story.ready(executor + 1)
        story.lose(3)
        assert [failed.task for failed in story.messages(TaskFailed)] == [20]

    def test_it_never_registered(self):
        story = WorkerStory(cpus=2)
        story.assign(TaskOf(20, [], [30]), TaskOf(21), TaskOf(22), TaskOf(23, [30]), templates=PY)
        story.lose(1)
        (failed,) = story.messages(TaskFailed)
        assert (failed.task, failed.start, failed.duration) == (20, 0.0, 0.0)
        assert story.returned() == [23]
        assert story.state(22) == "starting"
        assert story.state(21) == "starting"

    def test_an_idle_one(self):
        story = warm()
        story.lose(1)
        assert story.actions == []
        story.assign(TaskOf(20))
        assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]

    def test_unknown_ones(self):
        story = warm()
        story.lose(55)
        story.ready(55)
        story.ready(1)
        assert story.actions == []


class TestCancelInBatch:
    @pytest.fixture
    def story(self):
        story = warm(duration=SHORT)
        story.assign(*map(TaskOf, range(20, 24)))
        return story

    def test_the_running_one(self, story):
        story.cancel(20)
        assert story.all(KillExecutor) == [KillExecutor(1)]
        assert [story.state(n) for n in (21, 22, 23)] == ["starting", "ready", "ready"]
        story.ready(2)
        assert story.called() == {2: [21, 22, 23]}

    def test_one_behind_is_run_unheard_if_it_is_quick(self, story):
        story.cancel(21)
        assert story.actions == [ForbidRun(1, (1, 21, 1))]
        runs = [story.run_of(20), *(story.run_of(n) for n in (22, 23))]
        gone = success(runs[0])
        gone.key = (1, 21, 1)
        story.happens(RunsEnded(1, [success(runs[0]), gone, success(runs[1])], []))
        assert story.done() == [20, 22]
        assert story.stopped() == [21]
        assert story.started() == [23]

    def test_one_behind_is_killed_when_its_turn_comes(self, story):
        story.cancel(21)
        story.succeed(1, story.run_of(20))
        assert story.all(KillExecutor) == [KillExecutor(1)]
        assert story.stopped() == [21]
        assert story.state(22) == "starting"

    def test_one_behind_that_never_begins_is_told_at_once(self, story):
        story.cancel(21, 22, grace=2.0)
        assert story.all(ForbidRun) == [ForbidRun(1, (1, 21, 1)), ForbidRun(1, (1, 22, 1))]
        story.happens(RunKept(1, (1, 21, 1)))
        assert story.stopped() == [21]
        story.assign(TaskOf(24))
        assert not story.runs()
        story.lose(1)
        assert story.stopped() == [22]
        assert not story.messages(TaskFailed)
        assert story.state(20) == "starting"
        story.ready(2)
        assert story.called() == {2: [20, 23, 24]}

    def test_one_behind_whose_session_ends_is_not_told(self, story):
        story.cancel(21)
        story.end()
        story.happens(RunKept(1, (1, 21, 1)))
        assert story.actions == []

    def test_values_of_a_gone_run_are_removed(self):
        story = warm(duration=SHORT)
        story.assign(TaskOf(20), TaskOf(21, [], [31]), TaskOf(22))
        runs = story.runs(1)
        story.cancel(21)
        story.succeed(1, *runs)
        assert story.done() == [20, 22]
        assert story.all(DeleteValues) == [DeleteValues([(1, 31)])]

    def test_end_of_another_session_does_not_disturb(self):
        story = warm(duration=SHORT)
        story.assign(TaskOf(20), session=2, templates=PY)
        story.succeed(1, story.run_of(20, session=2), duration=SHORT)
        story.say(assign_tasks([TaskOf(21)], session=2), assign_tasks([TaskOf(22)]))
        assert [run.key[:2] for run in story.runs(1)] == [(2, 21), (1, 22)]
        story.end(1)
        assert story.actions == []
        story.succeed(1, story.run_of(21, session=2))
        assert story.all(KillExecutor) == [KillExecutor(1)]


class TestCache:
    def test_held_objects_are_not_sent_again(self):
        story = warm()
        story.assign(TaskOf(20, [10]), objects=[InputOf(10, b"function")])
        assert [i.cached for i in story.runs(1)[0].inputs] == [False]
        story.succeed(1, *story.runs(1), cached=[(1, 10)])
        story.assign(TaskOf(21, [10]))
        assert [i.cached for i in story.runs(1)[0].inputs] == [True]

    def test_deleted_objects_are_dropped(self):
        story = warm(delete_timeout=0)
        story.assign(TaskOf(20, [10]), objects=[InputOf(10, b"function")])
        story.succeed(1, *story.runs(1), cached=[(1, 10)])
        story.delete(10)
        assert story.actions == [DropCached(1, [(1, 10)]), DeleteValues([(1, 10)])]

    def test_what_is_not_here_any_more_is_dropped_at_once(self):
        story = warm()
        story.happens(RunsEnded(1, [], [(1, 77)]))
        assert story.actions == [DropCached(1, [(1, 77)])]

    def test_end_of_the_session(self):
        story = warm()
        story.assign(TaskOf(20, [10]), objects=[InputOf(10, b"function")])
        story.succeed(1, *story.runs(1), cached=[(1, 10)])
        story.end()
        assert story.all(DropCached) == [DropCached(1, [(1, 10)])]

    def test_nothing_is_said_to_the_dead(self):
        story = warm(delete_timeout=0)
        story.assign(TaskOf(20, [10]), objects=[InputOf(10, b"function")])
        story.succeed(1, *story.runs(1), cached=[(1, 10)])
        story.lose(1)
        story.delete(10)
        assert story.actions == [DeleteValues([(1, 10)])]


def test_events_of_one_turn_are_taken_together():
    story = WorkerStory(cpus=2)
    story.assign(TaskOf(20), TaskOf(21), templates=PY)
    story.happens(ExecutorReady(1), ExecutorReady(2))
    assert story.called() == {1: [20], 2: [21]}
    assert sorted(story.started()) == [20, 21]
    assert story.told() == ["TasksStarted"]
