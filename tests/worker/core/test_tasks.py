"""Stories of tasks: assigned, started, ended, withdrawn, cancelled."""

from __future__ import annotations

import msgpack
import pytest

from rain.protocol.messages import (
    EndSession,
    ObjectsMissing,
    ObjectsStored,
    TaskFailed,
    TasksDone,
    TasksReturned,
    WorkerDigest,
    WorkerInfo,
    WorkerWelcome,
)
from rain.testing.worker_builders import (
    WORKER_ID,
    InputOf,
    TaskOf,
    WorkerStory,
    assign_tasks,
    failure_of,
    packed_template,
    success,
)
from rain.worker.core.actions import (
    DeleteValues,
    Exit,
    FetchObject,
    KillExecutor,
    RunBuiltin,
    StartExecutor,
    StopBuiltin,
    StopFetch,
    StoreValue,
)
from rain.worker.core.core import DIGEST_SECONDS
from rain.worker.core.events import (
    ExecutorReady,
    ObjectUnreachable,
    RunsEnded,
    ServerLost,
    ServerSaid,
    StoreFailed,
    Tick,
)

PY = {0: packed_template("py/f")}
BUILTIN = {0: packed_template("buildin/concat")}


def python_worker(cpus: int = 1, **more: object) -> WorkerStory:
    """A worker whose executors 1..cpus are idle, and template 0 of session 1 known."""
    story = WorkerStory(cpus=cpus, **more)
    story.assign(*(TaskOf(900 + n) for n in range(cpus)), templates=PY)
    for n in range(1, cpus + 1):
        story.ready(n)
        story.succeed(n, *story.runs(n))
    return story


class TestOneTask:
    def test_builtin_runs_in_the_worker(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10], [21]), templates=BUILTIN, objects=[InputOf(10, b"abc")])
        assert story.all(StoreValue) == [StoreValue((1, 10), b"abc")]
        (action,) = story.all(RunBuiltin)
        assert action.run.key == (1, 20, 1)
        assert action.run.outputs == (21,)
        assert [i.object for i in action.run.inputs] == [(1, 10)]
        assert story.started() == [20]
        story.succeed(0, action.run)
        (done,) = story.messages(TasksDone)
        assert (list(done.tasks), list(done.runs), list(done.sizes), done.values) == ([20], [1], [1], [b"v"])
        assert done.infos == done.output_infos == []
        assert story.object_state(21) == "present"
        assert story.state(20) == "gone"

    @pytest.mark.parametrize("task_type", ["buildin/run", "builtin/run", "!run"])
    def test_builtin_prefixes(self, task_type):
        story = WorkerStory()
        story.assign(TaskOf(20), templates={0: packed_template(task_type)})
        assert len(story.all(RunBuiltin)) == 1

    def test_python_task_waits_for_an_executor_started_for_it(self):
        story = WorkerStory()
        story.assign(TaskOf(20, args=b"packed"), templates=PY)
        assert story.all(StartExecutor) == [StartExecutor(1, "py", ())]
        assert story.state(20) == "starting"
        assert story.started() == []
        story.ready(1)
        (run,) = story.runs(1)
        assert (run.args, run.template_data) == (b"packed", {"task_type": "py/f"})
        assert story.started() == [20]
        story.succeed(1, run)
        assert story.done() == [20]

    def test_the_duration_of_the_first_run_includes_the_start_of_its_executor(self):
        story = WorkerStory()
        story.assign(TaskOf(20), TaskOf(21), templates=PY)
        begin = story.now
        story.happens(ExecutorReady(1), after=0.5)
        for run, start in ((story.runs(1)[0], begin + 0.5), (None, begin + 2.0)):
            result = success(run or story.run_of(21))
            result.start = start
            story.happens(RunsEnded(1, [result], []))
            (done,) = story.messages(TasksDone)
            assert (done.starts[0], done.durations[0]) == ((begin, pytest.approx(0.6)) if run else (start, 0.1))

    def test_results_are_cut_into_messages_of_bounded_size(self):
        story = WorkerStory(cpus=6, inline_limit=16 << 20)
        story.assign(*[TaskOf(20 + n, [], [40 + n]) for n in range(6)], templates=BUILTIN)
        results = [success(action.run, size=3 << 20) for action in story.all(RunBuiltin)]
        story.happens(RunsEnded(0, results, []))
        assert [list(done.tasks) for done in story.messages(TasksDone)] == [[20, 21], [22, 23], [24, 25]]

    def test_foreign_type(self):
        story = WorkerStory(cpus=4)
        story.assign(TaskOf(20), TaskOf(21), templates={0: packed_template("cpp/hello", env={"B": "2", "A": None})})
        assert story.all(StartExecutor) == [
            StartExecutor(1, "cpp", (("A", None), ("B", "2"))),
            StartExecutor(2, "cpp", (("A", None), ("B", "2"))),
        ]

    def test_failure_of_a_run_keeps_the_executor(self):
        story = python_worker()
        for number in range(20, 30):
            story.assign(TaskOf(number, [], [number + 100]))
            story.fail(1, *story.runs(1))
            (failed,) = story.messages(TaskFailed)
            assert (failed.task, failed.run, failed.failure["message"]) == (number, 1, "broken")
            assert story.object_state(number + 100) == "gone"
        assert not story.all(KillExecutor)

    def test_wrong_number_of_outputs_is_a_failure(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21, 22]), templates=BUILTIN)
        result = success(story.all(RunBuiltin)[0].run)
        del result.outputs[1]
        story.happens(RunsEnded(0, [result], []))
        assert "gave 1 outputs instead of 2" in story.messages(TaskFailed)[0].failure["message"]
        assert story.all(DeleteValues) == [DeleteValues([(1, 21), (1, 22)])]

    def test_large_values_stay_out_of_messages(self):
        story = WorkerStory(inline_limit=10)
        story.assign(TaskOf(20, [], [21, 22]), templates=BUILTIN)
        result = success(story.all(RunBuiltin)[0].run)
        result.outputs[:] = [(10, b"info", b"0123456789"), (9, None, b"012345678")]
        story.happens(RunsEnded(0, [result], []))
        (done,) = story.messages(TasksDone)
        assert done.values == [None, b"012345678"]
        assert done.output_infos == [b"info", None]

    def test_outputs_carry_spec_and_info_to_the_next_task(self):
        story = WorkerStory()
        spec = {"label": "x", "content_type": "text"}
        story.assign(TaskOf(20, [], [21]), templates={0: packed_template("buildin/concat", outputs=[spec])})
        result = success(story.all(RunBuiltin)[0].run)
        result.outputs[:] = [(1, b"packed info", b"v")]
        story.happens(RunsEnded(0, [result], []))
        story.assign(TaskOf(30, [21]))
        (given,) = story.all(RunBuiltin)[0].run.inputs
        assert msgpack.unpackb(given.spec) == spec
        assert given.info == b"packed info"


class TestInputs:
    def test_fetched_input(self):
        story = WorkerStory()
        spec = msgpack.packb({"data_type": "dir"})
        story.assign(
            TaskOf(20, [10]),
            TaskOf(21, [10]),
            templates=BUILTIN,
            objects=[InputOf(10, holders=["a:1", "b:2"], size=7, spec=spec)],
        )
        assert story.all(FetchObject) == [FetchObject((1, 10), 7, True, ["a:1", "b:2"])]
        assert story.state(20) == story.state(21) == "waiting"
        story.arrive(10)
        assert [list(m.objects) for m in story.messages(ObjectsStored)] == [[10]]
        assert [a.run.key[1] for a in story.all(RunBuiltin)] == [20]
        assert story.state(21) == "ready"

    def test_a_second_assignment_joins_the_fetch(self):
        story = WorkerStory(cpus=2)
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10)])
        story.assign(TaskOf(21, [10]), objects=[InputOf(10)])
        assert not story.all(FetchObject)
        story.arrive(10)
        assert len(story.all(RunBuiltin)) == 2

    def test_repeated_input(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10, 11, 10]), templates=BUILTIN, objects=[InputOf(10), InputOf(11)])
        story.arrive(10)
        assert story.state(20) == "waiting"
        story.arrive(11)
        assert [i.object[1] for i in story.all(RunBuiltin)[0].run.inputs] == [10, 11, 10]

    def test_what_is_here_is_told_when_the_server_offers_holders(self):
        story = WorkerStory(cpus=2)
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10, b"x")])
        story.assign(TaskOf(21, [10]), objects=[InputOf(10)])
        assert not story.all(FetchObject)
        assert [list(m.objects) for m in story.messages(ObjectsStored)] == [[10]]

    def test_send_ahead(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21]), templates=BUILTIN)
        story.assign(TaskOf(22, [21], [23]), TaskOf(24, [23]))
        assert story.state(22) == story.state(24) == "waiting"
        assert story.object_state(21) == "expected"
        story.succeed(0, story.run_of(20))
        assert story.done() == [20]
        assert story.started() == [22]

    def test_send_ahead_against_the_order_of_the_message(self):
        story = WorkerStory()
        story.assign(TaskOf(22, [21]), TaskOf(20, [], [21]), templates=BUILTIN)
        assert story.state(22) == "waiting"
        assert story.started() == [20]

    def test_an_input_nobody_has_sends_the_task_and_its_consumers_back(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10], [21]), TaskOf(22, [21]), TaskOf(23), templates=BUILTIN)
        assert story.returned() == [20, 22]
        assert story.messages(ObjectsMissing) == [ObjectsMissing(1, 10, [WORKER_ID])]
        assert story.started() == [23]

    def test_unreachable(self):
        story = WorkerStory(cpus=3)
        story.assign(TaskOf(20, [10], [30]), TaskOf(21, [10, 11]), TaskOf(22, [30]), templates=BUILTIN,
                     objects=[InputOf(10), InputOf(11)])  # fmt: skip
        story.happens(ObjectUnreachable((1, 10), ["a:1"], "refused"))
        assert story.messages(ObjectsMissing) == [ObjectsMissing(1, 10, ["a:1"])]
        assert sorted(story.returned()) == [20, 21, 22]
        assert story.told().index("ObjectsMissing") < story.told().index("TasksReturned")
        assert story.all(StopFetch) == [StopFetch((1, 10)), StopFetch((1, 11))]
        assert story.core.info() == {"tasks": [], "objects": [], "objects_to_delete": []}

    def test_unreachable_but_produced_here(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10)])
        story.assign(TaskOf(9, [], [10]))
        story.happens(ObjectUnreachable((1, 10), ["a:1"], "refused"))
        assert story.returned() == []
        assert story.object_state(10) == "expected"
        story.succeed(0, story.run_of(9))
        assert story.started() == [20]

    def test_produced_before_fetched(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10)])
        story.assign(TaskOf(9, [], [10]))
        story.succeed(0, story.run_of(9))
        assert story.all(StopFetch) == [StopFetch((1, 10))]
        assert story.started() == [20]

    def test_an_inline_value_for_something_expected(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21]), TaskOf(22, [21]), templates=BUILTIN)
        story.assign(TaskOf(23, [21]), objects=[InputOf(21, b"x")])
        assert story.all(StoreValue) == [StoreValue((1, 21), b"x")]
        assert story.state(22) == story.state(23) == "ready"
        story.succeed(0, story.run_of(20))
        assert story.done() == [20]
        assert story.object_state(21) == "present"

    def test_an_inline_value_for_something_that_travels(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10)])
        story.assign(TaskOf(21, [10]), objects=[InputOf(10, b"x")])
        assert story.actions[:2] == [StopFetch((1, 10)), StoreValue((1, 10), b"x")]
        assert story.started() == [20]

    def test_a_newer_run_gets_the_inputs_only_the_older_needed(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10], [21]), templates=BUILTIN, objects=[InputOf(10)])
        story.assign(TaskOf(20, [10], [21], run=2), objects=[InputOf(10)])
        assert story.actions == [StopFetch((1, 10)), FetchObject((1, 10), 1, False, ["10.0.0.2:7000"])]
        story.arrive(10)
        assert story.started() == [20]

    def test_fetches_of_nobody_are_not_begun(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates=BUILTIN, objects=[InputOf(10)])
        assert not story.all(FetchObject)
        assert story.object_state(10) == "gone"

    def test_a_task_of_a_hundred_thousand_inputs(self):
        story = WorkerStory()
        count = 100_000
        story.assign(TaskOf(1, range(10, 10 + count)), templates=BUILTIN,
                     objects=[InputOf(n) for n in range(10, 10 + count)])  # fmt: skip
        story.arrive(*range(10, 10 + count))
        assert len(story.all(RunBuiltin)[0].run.inputs) == count

    def test_a_deep_chain_sent_ahead_goes_back_without_recursion(self):
        story = WorkerStory()
        tasks = [TaskOf(100_000 + n, [n] if n else [], [n + 1]) for n in range(20_000)]
        story.assign(*tasks, templates=BUILTIN)
        story.cancel(100_000)
        assert len(story.returned()) == 19_999
        assert story.core.info()["objects"] == []


class TestStoreFailed:
    def test_unstarted_tasks_go_back_running_ones_go_on(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), TaskOf(21, [10]), TaskOf(22), templates=BUILTIN, objects=[InputOf(10, b"x")])
        story.happens(StoreFailed((1, 10), "disk full"))
        assert story.messages(ObjectsMissing) == [ObjectsMissing(1, 10, [WORKER_ID])]
        assert story.returned() == [21]
        assert story.state(20) == "running"
        assert story.all(DeleteValues) == [DeleteValues([(1, 10)])]
        story.succeed(0, story.run_of(20))
        assert story.done() == [20]

    def test_a_run_that_failed_for_its_lost_input_goes_back(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10, b"x")])
        run = story.all(RunBuiltin)[0].run
        story.happens(StoreFailed((1, 10), "damaged"), RunsEnded(0, [failure_of(run.key)], []))
        assert story.returned() == [20]
        assert not story.messages(TaskFailed)

    def test_no_room_for_an_input(self):
        """Who needs it fails with the reason: it would not fit the next time either."""
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), TaskOf(21, [11]), TaskOf(22, [10, 11]), TaskOf(23, [24]), TaskOf(25, [10], [24]),
                     templates=BUILTIN, objects=[InputOf(10), InputOf(11)])  # fmt: skip
        story.happens(StoreFailed((1, 10), "disk full"))
        failed = story.messages(TaskFailed)
        assert sorted(message.task for message in failed) == [20, 22, 25]
        assert {message.failure["message"] for message in failed} == {"disk full"}
        assert story.returned() == [23]
        assert not story.messages(ObjectsMissing)
        story.arrive(11)
        assert story.state(21) == "running"

    def test_an_input_that_came_with_the_assignment_is_refused(self):
        """Who needs it fails with the reason: it would come again and again otherwise."""
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), TaskOf(21, [10]), TaskOf(22, [10, 11]), TaskOf(23), templates=BUILTIN,
                     objects=[InputOf(10, b"x"), InputOf(11)])  # fmt: skip
        run = story.all(RunBuiltin)[0].run
        story.happens(StoreFailed((1, 10), "disk full", refused=True), RunsEnded(0, [failure_of(run.key)], []))
        failed = story.messages(TaskFailed)
        assert sorted(message.task for message in failed) == [20, 21, 22]
        assert {message.failure["message"] for message in failed} == {"disk full"}
        assert story.messages(ObjectsMissing) == [ObjectsMissing(1, 10, [WORKER_ID], refused=True)]
        assert story.returned() == []
        assert story.state(23) == "running"

    def test_a_refused_input_that_a_task_here_makes_anew(self):
        story = WorkerStory()
        story.assign(TaskOf(1), templates=BUILTIN, objects=[InputOf(21, b"x")])
        story.succeed(0, story.run_of(1))
        story.assign(TaskOf(20, [], [21]), TaskOf(22, [21]))
        story.happens(StoreFailed((1, 21), "disk full", refused=True))
        assert story.object_state(21) == "expected"
        assert not story.messages(TaskFailed)

    def test_a_refused_input_nobody_needs_any_more(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10, b"x")])
        story.succeed(0, story.run_of(20))
        story.happens(StoreFailed((1, 10), "disk full", refused=True))
        assert story.messages(ObjectsMissing) == [ObjectsMissing(1, 10, [WORKER_ID], refused=True)]
        assert story.core.info()["objects"] == []

    def test_a_task_that_still_waits_for_another_input(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10, 11]), templates=BUILTIN, objects=[InputOf(10, b"x"), InputOf(11)])
        story.happens(StoreFailed((1, 10), "damaged"))
        assert story.returned() == [20]

    def test_the_old_copy_of_something_being_made_anew(self):
        story = WorkerStory()
        story.assign(TaskOf(1), templates=BUILTIN, objects=[InputOf(21, b"x")])
        story.succeed(0, story.run_of(1))
        story.assign(TaskOf(20, [], [21]), TaskOf(22, [21]))
        story.happens(StoreFailed((1, 21), "damaged"))
        assert story.object_state(21) == "expected"
        assert story.returned() == [22]
        story.succeed(0, story.run_of(20))
        assert story.object_state(21) == "present"

    def test_the_transfer_of_something_being_made_here(self):
        story = WorkerStory()
        story.assign(TaskOf(22, [21]), templates=BUILTIN, objects=[InputOf(21)])
        story.assign(TaskOf(20, [], [21]))
        story.happens(StoreFailed((1, 21), "disk full"))
        assert story.all(StopFetch) == [StopFetch((1, 21))]
        story.succeed(0, story.run_of(20))
        assert story.started() == [22]

    def test_a_task_for_which_an_executor_starts(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10]), templates=PY, objects=[InputOf(10, b"x")])
        story.happens(StoreFailed((1, 10), "damaged"))
        assert story.returned() == [20]
        story.ready(1)
        assert not story.runs()

    def test_a_task_sent_back_by_its_dead_executor_without_its_input(self):
        story = python_worker()
        story.assign(TaskOf(20, [10]), objects=[InputOf(10, b"x")])
        story.happens(StoreFailed((1, 10), "damaged"))
        story.lose(1)
        assert story.returned() == [20]


class TestWithdraw:
    def test_only_what_has_not_started(self):
        story = WorkerStory()
        story.assign(TaskOf(20), TaskOf(21), TaskOf(22, [10]), templates=BUILTIN, objects=[InputOf(10)])
        story.withdraw(20, 21, 22, 99)
        (message,) = story.messages(TasksReturned)
        assert (message.session, list(message.tasks), list(message.runs)) == (1, [21, 22], [1, 1])
        assert story.all(StopFetch) == [StopFetch((1, 10))]
        assert story.state(20) == "running"

    def test_another_run_is_not_meant(self):
        story = WorkerStory()
        story.assign(TaskOf(20), TaskOf(21, run=2), templates=BUILTIN)
        story.withdraw(21, run=1)
        assert story.returned() == []
        assert story.state(21) == "ready"

    def test_a_task_that_waits_for_its_executor(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates=PY)
        story.withdraw(20)
        assert story.returned() == [20]
        story.assign(TaskOf(21))
        assert not story.all(StartExecutor)
        story.ready(1)
        assert story.called() == {1: [21]}

    def test_consumers_go_back_too(self):
        story = WorkerStory()
        story.assign(TaskOf(19), TaskOf(20, [], [21]), TaskOf(22, [21]), templates=BUILTIN)
        story.withdraw(20)
        assert story.returned() == [20, 22]

    def test_many_withdrawn_tasks_leave_no_entries(self):
        story = WorkerStory()
        story.assign(TaskOf(1), templates=BUILTIN)
        for start in range(100, 2000, 100):
            story.assign(*(TaskOf(start + n) for n in range(100)))
            story.withdraw(*range(start, start + 100))
        (queue,) = story.core._dispatcher.queues.queues.values()
        assert queue.count == 0
        assert len(queue.fifo) < 200


class TestCancel:
    def test_every_state(self):
        story = python_worker()
        story.assign(TaskOf(20), TaskOf(21), TaskOf(22, [10]), objects=[InputOf(10)])
        story.cancel(21, 22)
        assert story.stopped() == [21, 22]
        assert not story.all(KillExecutor)
        story.cancel(20)
        assert story.all(KillExecutor) == [KillExecutor(1)]
        assert story.told() == ["TasksStopped"]
        story.cancel(20)
        assert story.stopped() == [20]

    def test_builtin(self):
        story = WorkerStory()
        story.assign(TaskOf(20), TaskOf(21), templates=BUILTIN)
        story.cancel(20)
        assert story.all(StopBuiltin) == [StopBuiltin((1, 20, 1))]
        assert story.started() == [21]

    def test_the_result_of_a_builtin_crosses_its_end(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21]), templates=BUILTIN)
        late = RunsEnded(0, [success(story.run_of(20))], [])
        story.happens(ServerSaid(EndSession(1)), late)
        assert story.actions == [StopBuiltin((1, 20, 1)), DeleteValues([(1, 21)])]

    def test_consumers_not_cancelled_go_back(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21]), TaskOf(22, [21]), TaskOf(23, [21]), templates=BUILTIN)
        story.cancel(20, 22)
        assert story.returned() == [23]

    def test_a_newer_run_replaces_the_older(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21]), templates=BUILTIN)
        story.assign(TaskOf(20, [], [21], run=2))
        assert story.all(StopBuiltin) == [StopBuiltin((1, 20, 1))]
        assert story.all(RunBuiltin)[0].run.key == (1, 20, 2)
        story.happens(RunsEnded(0, [failure_of((1, 20, 1))], []))
        assert story.actions == []
        story.succeed(0, story.run_of(20))
        assert story.messages(TasksDone)[0].runs[0] == 2

    def test_the_same_run_again_changes_nothing(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [21]), templates=BUILTIN)
        story.assign(TaskOf(20, [], [21]))
        assert story.actions == []


class TestSessions:
    def test_end_of_a_session_leaves_nothing(self):
        story = python_worker(cpus=2)
        story.assign(TaskOf(20, [10], [21]), TaskOf(22, [21]), TaskOf(23, [11]), TaskOf(24),
                     objects=[InputOf(10, b"x"), InputOf(11)])  # fmt: skip
        story.end()
        assert {kill.executor for kill in story.all(KillExecutor)} == {1, 2}
        assert story.all(StopFetch) == [StopFetch((1, 11))]
        assert story.all(DeleteValues) == [DeleteValues([(1, 10)])]
        assert story.told() == []
        assert story.core.sessions == {}
        assert story.core._dispatcher.queues.queues == {}

    def test_other_sessions_go_on(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates=BUILTIN)
        story.assign(TaskOf(20), session=2, templates=BUILTIN)
        story.end(1)
        assert story.state(20, session=2) == "running"

    def test_messages_of_the_turn_in_which_it_ended_are_not_sent(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates=BUILTIN)
        story.happens(
            RunsEnded(0, [success(story.all(RunBuiltin)[0].run)], []),
            ServerSaid(EndSession(1)),
        )
        assert story.told() == []

    def test_server_lost(self):
        story = python_worker(cpus=2)
        story.assign(TaskOf(20), TaskOf(21), session=1)
        story.assign(TaskOf(20), session=2, templates=BUILTIN)
        story.happens(ServerLost())
        assert len(story.all(KillExecutor)) == 2
        assert story.told() == []
        assert story.core.sessions == {}

    def test_no_digest_between_two_servers(self):
        """What was heard from the one before would be taken for what the next one said."""
        story = WorkerStory()
        story.happens(Tick(), after=DIGEST_SECONDS)
        assert len(story.digests) == 1
        story.happens(ServerLost())
        story.happens(Tick(), after=2 * DIGEST_SECONDS)
        assert len(story.digests) == 1
        story.happens(ServerSaid(WorkerWelcome(2, WORKER_ID)))
        story.happens(Tick(), after=DIGEST_SECONDS)
        assert story.digests[1:] == [WorkerDigest(1, 0, 0)]

    def test_stop_worker(self):
        story = python_worker(spare_executors=1)
        story.assign(TaskOf(20), TaskOf(21))
        story.stop()
        assert {kill.executor for kill in story.all(KillExecutor)} == {1, 2}
        assert story.actions[-1] == Exit(0)
        assert story.assign(TaskOf(22)) == []

    def test_worker_info(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [10], [21]), templates=BUILTIN, objects=[InputOf(10, b"x"), InputOf(11, b"y")])
        story.delete(11)
        story.info()
        (message,) = story.messages(WorkerInfo)
        assert message.info == {
            "tasks": [[1, 20]],
            "objects": [[1, 10], [1, 11], [1, 21]],
            "objects_to_delete": [[1, 11]],
        }


class TestBadAssignments:
    def test_unknown_template(self):
        story = WorkerStory()
        story.assign(TaskOf(20, template=7), templates=BUILTIN)
        (failed,) = story.messages(TaskFailed)
        assert "unknown templates [7]" in failed.failure["message"]
        assert failed.failure["kind"] == "internal"
        assert story.core.sessions == {}

    @pytest.mark.parametrize(
        "packed", [b"\xc1", b"", msgpack.packb({}), msgpack.packb([1]), msgpack.packb({"task_type": 1})]
    )
    def test_malformed_template(self, packed):
        story = WorkerStory()
        story.assign(TaskOf(20), templates={0: packed})
        assert "malformed" in story.messages(TaskFailed)[0].failure["message"]

    def test_contradicting_columns(self):
        story = WorkerStory()
        message = assign_tasks([TaskOf(20, [10])], templates=BUILTIN)
        message.inputs.append(11)
        story.say(message)
        assert "contradicting lengths" in story.messages(TaskFailed)[0].failure["message"]

    def test_infeasible(self):
        story = WorkerStory()
        template = packed_template("py/f", resources={"cpus": 8, "memory": 5, "licence": 0.5})
        story.assign(TaskOf(20), templates={0: template})
        (failed,) = story.messages(TaskFailed)
        assert (
            "Task 1/20 needs cpus=8, memory=5 B, licence=0.5; worker 10.0.0.1:7000 offers cpus=1."
            in failed.failure["message"]
        )
        assert not failed.failure["retriable"]
