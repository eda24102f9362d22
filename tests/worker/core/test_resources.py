"""Which waiting task starts: resources, priority, arrival."""

from __future__ import annotations

import pytest

from rain.testing.worker_builders import TaskOf, WorkerStory, packed_template
from rain.worker.core.actions import RunBuiltin, StartExecutor
from rain.worker.core.resources import Request, ResourcePool


def concat(**fields: object) -> bytes:
    return packed_template("buildin/concat", **fields)


def running(story: WorkerStory) -> list[int]:
    return [action.run.key[1] for action in story.all(RunBuiltin)]


def test_cpus():
    story = WorkerStory(cpus=3)
    templates = {n: concat(resources={"cpus": n}) for n in (1, 2)}
    story.assign(TaskOf(20, template=1), TaskOf(21, template=2), TaskOf(22, template=1), templates=templates)
    assert running(story) == [20, 21]
    story.succeed(0, story.run_of(20))
    assert running(story) == [22]


def test_those_that_do_not_fit_are_skipped():
    story = WorkerStory(cpus=2)
    templates = {n: concat(resources={"cpus": n}) for n in (1, 2)}
    story.assign(TaskOf(20, template=1), TaskOf(21, template=2), TaskOf(22, template=1), templates=templates)
    assert running(story) == [20, 22]


def test_priority_then_arrival():
    story = WorkerStory()
    templates = {0: concat(), 1: concat(priority=5), 2: concat(priority=-5)}
    story.assign(TaskOf(19), templates=templates)
    story.assign(TaskOf(20, template=2), TaskOf(21), TaskOf(22, template=1), TaskOf(23), TaskOf(24, template=1))
    order = [19]
    while order[-1] != 20:
        story.succeed(0, story.run_of(order[-1]))
        order += running(story)
    assert order == [19, 22, 24, 21, 23, 20]


def test_priority_over_sessions_and_types():
    story = WorkerStory()
    story.assign(TaskOf(19), templates={0: concat()})
    story.assign(TaskOf(20), session=2, templates={0: packed_template("py/f")})
    story.assign(TaskOf(21), session=3, templates={0: packed_template("cpp/f", priority=2**31 - 1)})
    story.succeed(0, story.run_of(19))
    assert [start.type for start in story.all(StartExecutor)] == ["cpp"]


@pytest.mark.parametrize(("cpus", "limit"), [(1, 4), (2, 8), (0, 4)])
def test_tasks_without_cpus_are_limited(cpus, limit):
    story = WorkerStory(cpus=cpus)
    story.assign(*map(TaskOf, range(20, 50)), templates={0: concat(resources={"cpus": 0})})
    assert len(running(story)) == limit
    story.succeed(0, story.run_of(20))
    assert running(story) == [20 + limit]


def test_memory_and_custom_resources():
    story = WorkerStory(cpus=9, resources={"memory": 100, "licence": 1.5})
    templates = {0: concat(resources={"memory": 60}), 1: concat(resources={"licence": 0.5})}
    story.assign(TaskOf(20), TaskOf(21), *(TaskOf(n, template=1) for n in range(30, 35)), templates=templates)
    assert running(story) == [20, 30, 31, 32]


def test_gpus_are_handed_out_by_index():
    story = WorkerStory(cpus=9, resources={"gpus": [3, 1]})
    template = packed_template("buildin/run", resources={"gpus": 1})
    story.assign(*map(TaskOf, range(20, 23)), templates={0: template})
    assert [action.run.gpus for action in story.all(RunBuiltin)] == [(1,), (3,)]
    story.succeed(0, story.run_of(21))
    assert [action.run.gpus for action in story.all(RunBuiltin)] == [(3,)]


def test_gpus_are_part_of_an_executors_kind():
    story = WorkerStory(cpus=9, resources={"gpus": [0, 1]})
    templates = {0: packed_template("py/f", resources={"gpus": 2}, env={"A": "1"}), 1: packed_template("py/f")}
    story.assign(TaskOf(20), templates=templates)
    env = (("A", "1"), ("CUDA_VISIBLE_DEVICES", "0,1"), ("RAIN_TASK_GPUS", "0,1"))
    assert story.all(StartExecutor) == [StartExecutor(1, "py", env)]
    story.ready(1)
    assert story.runs(1)[0].gpus == (0, 1)
    story.succeed(1, *story.runs(1))
    story.assign(TaskOf(21, template=1))
    assert story.all(StartExecutor) == [StartExecutor(2, "py", ())]
    story.assign(TaskOf(22))
    assert story.called() == {1: [22]}


def test_many_environments_do_not_slow_each_other():
    story = WorkerStory()
    count = 300
    templates = {n: packed_template("py/f", env={"N": str(n)}) for n in range(count)}
    story.assign(*(TaskOf(1000 + n, template=n) for n in range(count)), templates=templates)
    order = []
    for executor in range(1, count + 1):
        story.ready(executor)
        order += [run.key[1] for run in story.runs()]
        story.succeed(executor, *story.runs())
    assert order == list(range(1000, 1000 + count))


def test_pool_gives_back_what_it_took():
    pool = ResourcePool({"cpus": 4, "gpus": [2, 0], "memory": 10, "x": 0.0003})
    request = Request.parse({"cpus": 2, "gpus": 1, "memory": 4, "x": 0.0001, "unused": 0})
    assert pool.capacity(request) == 2
    first, second = pool.take(request), pool.take(request)
    assert (first, second) == ((0,), (2,))
    assert not pool.fits(request)
    assert pool.fits(request, request)
    assert pool.capacity(request) == 0
    pool.give(request, second)
    pool.give(request, first)
    assert pool.free_gpus == [0, 2]
    assert pool.capacity(request) == 2


def test_requests_that_never_fit():
    pool = ResourcePool({"cpus": 4, "gpus": [0], "memory": 10, "x": 1})
    for resources in ({"cpus": 5}, {"gpus": 2}, {"memory": 11}, {"x": 1.0001}, {"y": 0.1}):
        assert not pool.feasible(Request.parse(resources))
        assert not pool.fits(Request.parse(resources))
    assert pool.feasible(Request.parse(None))
    assert pool.feasible(Request.parse({"cpus": None}))
