"""Tasks assigned before their inputs are finished, because one worker has or makes them all."""

from __future__ import annotations

from array import array

import pytest

from rain.common.failure import Failure
from rain.common.states import TaskState
from rain.protocol import messages as m
from rain.server.core.workers import Worker
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32

FUNCTION = 1


class Story(ServerStory):
    """With a client, a session and a function."""

    def __init__(self, *cpus: int, policy: str = "fail", seconds: float = 0.001) -> None:
        """Workers with so many cpus; calls of the function take so many seconds, as was measured."""
        super().__init__()
        self.peer = self.client()
        self.say(self.peer, m.NewSession(self.seq(), "test", policy, False))
        self.number = self.take_one(self.peer, m.SessionCreated).session
        self.submit(self.peer, self.number, SubmitBuilder().constant(FUNCTION, keep=True).task(3, [FUNCTION], [2]))
        self.workers = [self.worker(cpus=count) for count in cpus]
        (first,) = [worker for worker in self.workers if self.assigned(worker)]
        self.done(first, self.number, 3, seconds=seconds)
        for worker in self.workers:
            self.sent[worker] = []

    def give(self, builder: SubmitBuilder) -> None:
        self.submit(self.peer, self.number, builder)

    def states(self, *tasks: int) -> list[str]:
        return [self.task_state(self.number, task).name for task in tasks]

    def core_worker(self, peer: int) -> Worker:
        return self.core.state.workers[self.core.state.worker_of_peer[peer]]

    def give_back(self, worker: int, *tasks: int) -> None:
        runs = u32(self.runs[self.number, task] for task in tasks)
        self.say(worker, m.TasksReturned(self.number, u32(tasks), runs))


def chain(first: int, length: int, **fields: object) -> SubmitBuilder:
    """Tasks first + 1, first + 3, ..., each of which needs the one before."""
    builder = SubmitBuilder()
    for position in range(length):
        output = first + 2 * position
        builder.task(output + 1, [FUNCTION, output - 2] if position else [FUNCTION], [output], **fields)  # type: ignore[arg-type]
    return builder


def test_a_chain_goes_at_once_and_takes_one_cpu() -> None:
    story = Story(2)
    (worker,) = story.workers
    story.give(chain(10, 4))
    message = story.take_one(worker, m.AssignTasks)
    assert list(message.tasks) == [11, 13, 15, 17]
    assert list(message.objects) == []
    assert story.states(11, 13, 15, 17) == ["assigned"] * 4
    assert story.core_worker(worker).free_cpus == 1
    story.done(worker, story.number, 11)
    assert story.core_worker(worker).free_cpus == 1
    story.done(worker, story.number, 13, 15, 17)
    assert story.states(11, 13, 15, 17) == ["finished"] * 4
    assert story.core_worker(worker).free_cpus == 2
    assert story.core_worker(worker).queued == 0.0


def test_what_depends_on_two_tasks_of_the_worker_goes_too() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 1).task(21, [FUNCTION], [20]).task(31, [FUNCTION, 10, 20], [30]))
    assert story.assigned(worker) == [11, 21, 31]


def test_inputs_of_two_workers_must_be_finished() -> None:
    story = Story(1, 1)
    one, two = story.workers
    story.give(chain(10, 1).task(21, [FUNCTION], [20]).task(31, [FUNCTION, 10, 20], [30]))
    assert sorted([*story.assigned(one), *story.assigned(two)]) == [11, 21]
    assert story.states(31) == ["notAssigned"]


@pytest.mark.parametrize("seconds", [0.051, 3.0])
def test_long_tasks_wait_at_the_server(seconds: float) -> None:
    story = Story(2, seconds=seconds)
    story.give(chain(10, 3))
    assert story.assigned(story.workers[0]) == [11]


def test_tasks_never_measured_wait_at_the_server() -> None:
    story = Story(2)
    story.give(SubmitBuilder().constant(5).task(11, [5], [10]).task(13, [5, 10], [12]))
    assert story.assigned(story.workers[0]) == [11]


@pytest.mark.parametrize("resources", [{"cpus": 3}, {"cpus": 1, "gpus": 1}, {"cpus": 0}])
def test_what_is_not_prefetched_does_not_go_ahead(resources: dict[str, int]) -> None:
    story = Story(2)
    story.give(chain(10, 1).task(13, [FUNCTION, 10], [12], resources=resources))
    assert story.assigned(story.workers[0]) == [11]


def test_only_so_much_work_goes_ahead() -> None:
    story = Story(1, seconds=0.03)
    (worker,) = story.workers
    story.give(chain(100, 30))
    assert story.assigned(worker) == [101, 103, 105, 107]
    story.done(worker, story.number, 101, 103, 105, 107, seconds=0.03)
    assert story.assigned(worker) == [109, 111, 113, 115]


def test_wide_tasks_wait_until_all_inputs_are_finished() -> None:
    story = Story(1)
    builder = SubmitBuilder()
    for number in range(10, 50, 2):
        builder.task(number + 1, [FUNCTION], [number])
    story.give(builder.task(61, [FUNCTION, *range(10, 50, 2)], [60]))
    assert 61 not in story.assigned(story.workers[0])


def fan() -> SubmitBuilder:
    builder = chain(10, 1)
    for output in (20, 30, 40):
        builder.task(output + 1, [FUNCTION, 10], [output])
    return builder


def test_of_several_dependents_one_goes_while_another_worker_idles() -> None:
    story = Story(1, 1)
    story.give(fan())
    assert sorted(task for worker in story.workers for task in story.assigned(worker)) == [11, 21]


def test_of_several_dependents_all_go_when_nobody_idles() -> None:
    story = Story(1)
    story.give(fan())
    assert story.assigned(story.workers[0]) == [11, 21, 31, 41]


def test_a_free_cpu_gets_other_work_beside_a_chain() -> None:
    story = Story(2)
    (worker,) = story.workers
    story.give(chain(10, 20))
    story.assigned(worker)
    story.give(SubmitBuilder().task(101, [], [100]))
    assert story.assigned(worker) == [101]


def test_a_failed_producer_runs_again_and_its_dependents_wait() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 3, retries=1))
    story.assigned(worker)
    story.fail(worker, story.number, 11)
    assert story.assigned(worker) == [11]
    story.give_back(worker, 13, 15)
    assert story.states(11, 13, 15) == ["assigned", "notAssigned", "notAssigned"]
    story.done(worker, story.number, 11, seconds=0.001)
    assert story.assigned(worker) == [13, 15]


def test_dependents_of_a_task_that_failed_for_good_are_aborted() -> None:
    story = Story(1, policy="continue")
    (worker,) = story.workers
    story.give(chain(10, 3))
    story.assigned(worker)
    failed = m.TaskFailed(story.number, 11, 1, Failure("task", "boom").to_map(), 1.0, 0.1)
    story.say(worker, failed, m.TasksReturned(story.number, u32([13, 15]), u32([1, 1])))
    assert story.states(11, 13, 15) == ["failed", "aborted", "aborted"]
    assert story.core_worker(worker).free_cpus == 1
    assert not story.core_worker(worker).assigned


def test_cancelled_ones_free_nothing_but_their_place() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 3))
    story.assigned(worker)
    story.say(story.peer, m.Cancel(story.seq(), story.number, u32([13])))
    assert story.states(11, 13, 15) == ["assigned", "cancelled", "aborted"]
    cancelled = [task for message in story.take(worker, m.CancelTasks) for task in message.tasks]
    assert sorted(cancelled) == [13, 15]
    story.done(worker, story.number, 11)
    story.say(worker, m.TasksStopped(story.number, u32([13, 15]), u32([1, 1])))
    assert story.core_worker(worker).free_cpus == 1
    assert not story.core_worker(worker).assigned


def test_all_of_a_lost_worker_runs_elsewhere() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 3))
    story.assigned(worker)
    story.done(worker, story.number, 11, seconds=0.001)
    other = story.worker(cpus=1)
    story.leave(worker)
    assert story.assigned(other) == [11, 13, 15]
    story.done(other, story.number, 11, 13, 15)
    assert story.states(11, 13, 15) == ["finished"] * 3


def test_tasks_sent_ahead_are_not_suspected_of_the_loss_of_workers() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 3))
    for _ in range(3):
        assert story.assigned(worker)[0] == 11
        other = story.worker(cpus=1)
        story.leave(worker)
        worker = other
    assert set(story.record(story.number).attempts_lost) <= {11}


def test_one_given_back_alone_waits_for_its_input() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 2))
    story.assigned(worker)
    story.give_back(worker, 13)
    assert story.states(13) == ["notAssigned"]
    story.done(worker, story.number, 11)
    assert story.assigned(worker) == [13]


def test_an_input_that_never_came_is_not_held_against_its_object() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 2))
    name = story.core_worker(worker).worker_id
    for _ in range(30):
        story.say(worker, m.ObjectsMissing(story.number, 10, [name]))
    assert story.states(11, 13) == ["assigned", "assigned"]
    assert not story.record(story.number).unreadable


def test_an_idle_worker_gets_whole_chains() -> None:
    story = Story(1, seconds=0.01)
    (worker,) = story.workers
    for first in (100, 200, 300):
        story.give(chain(first, 3))
    assert len(story.assigned(worker)) == 9
    other = story.worker(cpus=1)
    story.step()
    asked = [task for message in story.take(worker, m.WithdrawTasks) for task in message.tasks]
    assert asked == [301]
    story.give_back(worker, 301, 303, 305)
    assert story.assigned(other) == [301, 303, 305]


def test_a_lost_result_takes_dependents_back() -> None:
    story = Story(1)
    (worker,) = story.workers
    story.give(chain(10, 3))
    story.assigned(worker)
    story.done(worker, story.number, 11)
    story.say(worker, m.ObjectsMissing(story.number, 10, [story.core_worker(worker).worker_id]))
    withdrawn = [task for message in story.take(worker, m.WithdrawTasks) for task in message.tasks]
    assert withdrawn == [13]
    story.give_back(worker, 13, 15)
    story.done(worker, story.number, 11, seconds=0.001)
    assert story.assigned(worker) == [11, 13, 15]


def test_results_ride_on_the_order_of_the_report() -> None:
    story = Story(2)
    (worker,) = story.workers
    story.give(chain(10, 2))
    runs, times = u32([1, 1]), array("d", [1.0, 1.0])
    story.say(worker, m.TasksDone(story.number, u32([11, 13]), runs, times, times, [], array("Q", [1, 1]), [], []))
    assert story.task_state(story.number, 13) is TaskState.finished


def test_explain_says_for_what_it_waits() -> None:
    story = Story(1)
    story.give(chain(10, 2))
    story.say(story.peer, m.Explain(story.seq(), story.number, u32([13])))
    (text,) = story.take_one(story.peer, m.Explained).texts
    assert "which makes its inputs; 1 of them are not finished" in text
    assert "11" in text
