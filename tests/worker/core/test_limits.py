"""Cancel with grace, time limits, memory limits."""

from __future__ import annotations

import pytest

from rain.protocol.messages import TaskFailed
from rain.testing.worker_builders import InputOf, TaskOf, WorkerStory, packed_template, success
from rain.worker.core.actions import KillExecutor, RunBuiltin, StartExecutor, StopBuiltin
from rain.worker.core.events import BuiltinStopped, ExecutorStopped, LimitExceeded, RunsEnded

PY = {0: packed_template("py/f")}
LIMITED = {0: packed_template("py/f", timeout=5.0)}
BUILTIN = {0: packed_template("buildin/run")}
SHORT = 1e-5


def failures(story: WorkerStory) -> list[tuple[int, str]]:
    return [(failed.task, failed.failure["message"]) for failed in story.messages(TaskFailed)]


def running(templates: dict[int, bytes], **more: object) -> WorkerStory:
    """Task 20 runs in executor 1 of a worker with one cpu."""
    story = WorkerStory(**more)
    story.assign(TaskOf(20, [10], [30]), templates=templates, objects=[InputOf(10, b"x")])
    story.ready(1)
    return story


class TestGrace:
    def test_the_resources_stay_occupied_till_the_end(self):
        story = running(PY, resources={"gpus": [0]})
        story.assign(TaskOf(21), TaskOf(22, [30]))
        story.cancel(20, grace=2.0)
        assert story.all(KillExecutor) == [KillExecutor(1, 2.0)]
        assert story.returned() == [22]
        assert story.stopped() == []
        assert story.state(21) == "ready"
        story.happens(ExecutorStopped(1))
        assert story.stopped() == [20]
        assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]

    def test_a_builtin(self):
        story = WorkerStory()
        story.assign(TaskOf(20, [], [30]), TaskOf(21), templates=BUILTIN)
        late = RunsEnded(0, [success(story.run_of(20))], [])
        story.cancel(20, grace=2.0)
        assert story.actions == [StopBuiltin((1, 20, 1), 2.0)]
        story.happens(late)
        assert story.actions == []
        story.happens(BuiltinStopped((1, 20, 1)))
        assert story.stopped() == [20]
        assert story.started() == [21]

    def test_the_session_ends_meanwhile(self):
        story = WorkerStory(cpus=2)
        story.assign(TaskOf(20), TaskOf(21, template=1), templates={0: PY[0], 1: BUILTIN[0]})
        story.ready(1)
        story.cancel(20, 21, grace=2.0)
        story.end()
        assert story.actions == [KillExecutor(1), StopBuiltin((1, 21, 1))]
        story.happens(ExecutorStopped(1), BuiltinStopped((1, 21, 1)))
        assert story.actions == []
        story.assign(TaskOf(20), session=2, templates=BUILTIN)
        assert story.started() == [20]

    def test_another_session_ends_meanwhile(self):
        story = running(PY)
        story.assign(TaskOf(20), session=2, templates=BUILTIN)
        story.cancel(20, grace=2.0)
        story.end(2)
        assert story.actions == []
        story.happens(ExecutorStopped(1))
        assert story.stopped() == [20]

    def test_the_worker_is_stopped_meanwhile(self):
        story = running(PY)
        story.cancel(20, grace=2.0)
        story.stop()
        assert story.all(KillExecutor) == [KillExecutor(1)]

    def test_the_innocent_behind_run_elsewhere_at_once_if_there_is_room(self):
        story = WorkerStory(cpus=2)
        story.assign(TaskOf(1), templates=PY)
        story.ready(1)
        story.succeed(1, *story.runs(1), duration=SHORT)
        story.assign(*map(TaskOf, range(20, 26)), templates={})
        story.ready(2)
        behind = [number for number in range(20, 26) if story.state(number) == "in_batch"]
        story.cancel(20, grace=2.0)
        assert story.stopped() == []
        assert all(story.state(number) != "gone" for number in behind)
        story.happens(ExecutorStopped(1))
        assert story.stopped() == [20]

    def test_cancelled_twice_is_told_once(self):
        story = running(PY)
        story.cancel(20, grace=2.0)
        story.cancel(20, grace=2.0)
        assert story.actions == []
        story.happens(ExecutorStopped(1))
        assert story.stopped() == [20]
        story.happens(ExecutorStopped(1))
        assert story.actions == []

    def test_unknown_runs_are_told_at_once(self):
        story = running(PY)
        story.cancel(20, 77, run=2)
        assert story.stopped() == [20, 77]
        assert story.state(20) == "running"
        story.cancel(5, session=9)
        assert story.stopped() == [5]

    def test_one_that_waits_for_its_executor(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates=PY)
        story.cancel(20, grace=2.0)
        assert story.stopped() == [20]
        assert not story.all(KillExecutor)


class TestTimeLimit:
    def test_python(self):
        story = running(LIMITED)
        assert story.core.next_deadline() == story.now + 5.0
        story.tick(4.9)
        assert story.actions == []
        story.tick(0.1)
        assert story.actions == [KillExecutor(1, 2.0)]
        assert story.core.next_deadline() is None
        story.happens(ExecutorStopped(1), after=1.5)
        assert failures(story) == [(20, "Time limit of 5.0 s exceeded")]
        (failed,) = story.messages(TaskFailed)
        assert (failed.start, failed.duration) == (100.0, 5.0)
        assert failed.failure["retriable"]

    def test_the_start_of_the_executor_does_not_count(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates=LIMITED)
        story.tick(10.0)
        story.ready(1)
        assert story.core.next_deadline() == story.now + 5.0

    def test_builtin(self):
        story = WorkerStory()
        story.assign(TaskOf(20), templates={0: packed_template("buildin/sleep", timeout=0.25)})
        story.tick(0.25)
        assert story.actions == [StopBuiltin((1, 20, 1), 2.0)]
        story.happens(BuiltinStopped((1, 20, 1)))
        assert failures(story) == [(20, "Time limit of 0.25 s exceeded")]

    def test_one_that_ends_in_time(self):
        story = running(LIMITED)
        story.happens(RunsEnded(1, [success(story.run_of(20))], []), after=5.0)
        assert story.done() == [20]
        assert story.core.next_deadline() is None
        story.tick(1.0)
        assert story.actions == []

    def test_they_never_share_a_batch(self):
        story = WorkerStory()
        story.assign(TaskOf(1), templates=LIMITED)
        story.ready(1)
        story.succeed(1, *story.runs(1), duration=SHORT)
        story.assign(*map(TaskOf, range(20, 24)))
        assert story.called() == {1: [20]}
        story.succeed(1, story.run_of(20), duration=SHORT)
        assert story.called() == {1: [21]}

    def test_the_limit_begins_anew_when_nothing_had_begun(self):
        story = running(LIMITED)
        story.now += 3.0
        story.lose(1)
        assert story.core.next_deadline() is None
        story.ready(2)
        assert story.core.next_deadline() == story.now + 5.0

    def test_cancelled_after_its_time(self):
        story = running(LIMITED)
        story.tick(5.0)
        story.cancel(20, grace=2.0)
        assert story.actions == []
        story.happens(ExecutorStopped(1))
        assert story.told() == ["TasksStopped"]

    @pytest.mark.parametrize("limit", [-1.0, float("nan"), "soon"])
    def test_what_is_no_limit(self, limit):
        story = WorkerStory()
        story.assign(TaskOf(20), templates={0: packed_template("py/f", timeout=limit)})
        assert "malformed" in failures(story)[0][1]


class TestMemoryLimit:
    TEXT = "Memory limit of 2.0 GiB exceeded"

    def test_python(self):
        story = running(PY)
        story.happens(LimitExceeded((1, 20, 1), self.TEXT), after=0.5)
        assert story.all(KillExecutor) == [KillExecutor(1)]
        assert failures(story) == [(20, self.TEXT)]
        assert story.messages(TaskFailed)[0].duration == 0.5

    def test_program(self):
        story = WorkerStory()
        story.assign(TaskOf(20), TaskOf(21), templates=BUILTIN)
        story.happens(LimitExceeded((1, 20, 1), self.TEXT))
        assert story.all(StopBuiltin) == [StopBuiltin((1, 20, 1))]
        assert failures(story) == [(20, self.TEXT)]
        assert [action.run.key[1] for action in story.all(RunBuiltin)] == [21]

    def test_one_that_has_ended(self):
        story = running(PY)
        story.succeed(1, story.run_of(20))
        story.happens(LimitExceeded((1, 20, 1), self.TEXT))
        assert story.actions == []
