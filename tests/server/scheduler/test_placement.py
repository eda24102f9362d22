"""The placement rules of spec 6.5."""

from __future__ import annotations

import msgpack
import pytest

from rain.common.states import TaskState
from rain.protocol import messages as m
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32

MB = 1_000_000


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory) -> tuple[int, int]:
    client = story.client()
    return client, story.session(client)


def place(story: ServerStory, session: int, obj: int, size: int, *workers: int) -> None:
    """Pretend that the constant lies on exactly these workers."""
    graph = story.graph(session)
    graph.size[obj] = size
    graph.replicas[obj] = None
    for worker in workers:
        graph.add_replica(obj, story.core.state.worker_of_peer[worker])
        story.record(session).workers.add(story.core.state.worker_of_peer[worker])


def test_each_task_goes_to_the_worker_that_holds_its_object(story: ServerStory) -> None:
    client, session = opened(story)
    workers = [story.worker() for _ in range(6)]
    objects = range(10, 16)
    builder = SubmitBuilder()
    for obj in objects:
        builder.constant(obj, keep=True)
    story.submit(client, session, builder)
    for obj, worker in zip(objects, reversed(workers), strict=True):
        place(story, session, obj, 1000, worker)
    builder = SubmitBuilder()
    for number, obj in enumerate(objects):
        builder.task(101 + 2 * number, [obj], [100 + 2 * number])
    story.submit(client, session, builder)
    assert [story.assigned(worker) for worker in reversed(workers)] == [[101 + 2 * n] for n in range(6)]


@pytest.mark.parametrize("inputs", [[10, 11], [11, 10], [10, 11, 10, 10]])
def test_the_large_input_decides(story: ServerStory, inputs: list[int]) -> None:
    client, session = opened(story)
    one, two = story.worker(), story.worker()
    story.submit(client, session, SubmitBuilder().constant(10, keep=True).constant(11, keep=True))
    place(story, session, 10, 10_000, one)
    place(story, session, 11, 50 * MB, two)
    story.submit(client, session, SubmitBuilder().task(13, inputs, [12]))
    assert story.assigned(two) == [13]


def test_bigger_requests_first_on_workers_that_match_exactly(story: ServerStory) -> None:
    client, session = opened(story)
    workers = {cpus: story.worker(cpus=cpus) for cpus in (3, 1, 6, 2, 5, 4)}
    builder = SubmitBuilder()
    for cpus in range(1, 7):
        builder.task(100 + cpus, [], [200 + cpus], resources={"cpus": cpus})
    story.submit(client, session, builder)
    assert {cpus: story.assigned(worker) for cpus, worker in workers.items()} == {n: [100 + n] for n in range(1, 7)}


def test_an_object_everywhere_does_not_influence(story: ServerStory) -> None:
    client, session = opened(story)
    one, two = story.worker(), story.worker()
    story.submit(client, session, SubmitBuilder().constant(10, keep=True).constant(11, keep=True))
    place(story, session, 10, 80 * MB, one, two)
    place(story, session, 11, 1 * MB, two)
    story.submit(client, session, SubmitBuilder().task(13, [10, 11], [12]))
    assert story.assigned(two) == [13]


def test_a_large_constant_outweighs_an_empty_input(story: ServerStory) -> None:
    client, session = opened(story)
    one, two = story.worker(), story.worker()
    story.submit(client, session, SubmitBuilder().constant(10, keep=True).constant(11, keep=True))
    place(story, session, 10, 0, one)
    place(story, session, 11, 2 * MB, two)
    story.submit(client, session, SubmitBuilder().task(13, [10, 11], [12]))
    assert story.assigned(two) == [13]


def test_priority_goes_first_then_depth_then_order(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder().task(11, [], [10]).task(13, [10], [12]).task(15, [], [14]).task(17, [], [16], priority=5)
    story.submit(client, session, builder)
    worker = story.worker()
    order = []
    for _ in range(4):
        tasks = story.assigned(worker)
        order += tasks
        story.done(worker, session, *tasks)
    assert order == [17, 11, 13, 15]


def test_tasks_of_unknown_and_long_duration_are_not_sent_ahead(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(20):
        builder.task(100 + number, [], [200 + number])
    story.submit(client, session, builder)
    worker = story.worker(cpus=2)
    assert len(story.assigned(worker)) == 2
    story.done(worker, session, 100, seconds=1.0)
    assert len(story.assigned(worker)) == 1


def test_short_tasks_are_sent_ahead_by_time(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(500):
        builder.task(1000 + number, [], [2000 + number])
    story.submit(client, session, builder)
    worker = story.worker(cpus=1)
    assert story.assigned(worker) == [1000]
    story.done(worker, session, 1000, seconds=0.001)
    assert 90 <= len(story.assigned(worker)) <= 110


def test_more_is_sent_ahead_when_an_eighth_is_done(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(500):
        builder.task(1000 + number, [], [2000 + number])
    story.submit(client, session, builder)
    worker = story.worker(cpus=1)
    story.done(worker, session, *story.assigned(worker), seconds=0.001)
    waiting = story.assigned(worker)
    portions = []
    for _ in range(100):
        story.done(worker, session, waiting.pop(0), seconds=0.001)
        portions.append(story.assigned(worker))
        waiting += portions[-1]
    assert all(12 <= len(portion) <= 15 for portion in portions if portion)
    assert portions.count([]) > 90


def test_zero_cpu_tasks_are_limited(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(30):
        builder.task(100 + number, [], [200 + number], resources={"cpus": 0})
    story.submit(client, session, builder)
    worker = story.worker(cpus=2)
    assert len(story.assigned(worker)) == 8


def test_other_resources_are_counted(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(5):
        builder.task(100 + number, [], [200 + number], resources={"gpus": 1, "licence": 0.5})
    story.submit(client, session, builder)
    worker = story.worker(cpus=8, gpus=[0, 1, 2], licence=1)
    assert story.assigned(worker) == [100, 101]


def test_waiting_tasks_are_withdrawn_for_an_idle_worker(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(40):
        builder.task(1000 + number, [], [2000 + number])
    story.submit(client, session, builder)
    slow = story.worker(cpus=1)
    story.assigned(slow)
    story.done(slow, session, 1000, seconds=0.002)
    assert len(story.assigned(slow)) == 39
    fast = story.worker(cpus=1)
    withdrawn = story.take_one(slow, m.WithdrawTasks)
    assert 15 <= len(withdrawn.tasks) <= 20
    assert 1001 not in withdrawn.tasks
    story.say(slow, m.TasksReturned(session, withdrawn.tasks, withdrawn.runs))
    assert sorted(story.assigned(fast)) == sorted(withdrawn.tasks)
    assert not story.take(slow, m.WithdrawTasks)


def test_moves_per_task_are_bounded(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(3):
        builder.task(1000 + number, [], [2000 + number])
    story.submit(client, session, builder)
    workers = [story.worker(cpus=1)]
    story.assigned(workers[0])
    story.done(workers[0], session, 1000, seconds=0.02)
    story.assigned(workers[0])
    withdrawals = 0
    holder = workers[0]
    for _ in range(10):
        helper = story.worker(cpus=1)
        for message in story.take(holder, m.WithdrawTasks):
            withdrawals += 1
            story.say(holder, m.TasksReturned(session, message.tasks, message.runs))
        story.leave(helper)
    assert withdrawals <= 3


def test_a_blocked_task_gets_a_worker_reserved(story: ServerStory) -> None:
    client, session = opened(story)
    worker = story.worker(cpus=4)
    builder = SubmitBuilder()
    for number in range(200):
        builder.task(1000 + number, [], [2000 + number])
    story.submit(client, session, builder)
    running = story.assigned(worker)
    story.submit(client, session, SubmitBuilder().task(5001, [], [5000], resources={"cpus": 4}))
    for _ in range(16):
        story.now += 1.0
        story.done(worker, session, running.pop(0), seconds=1.0)
        running += story.assigned(worker)
        if 5001 in running:
            break
    assert running == [5001]


def test_infeasible_tasks_are_told_and_fail_in_the_end() -> None:
    story = ServerStory(infeasible_timeout=20.0)
    client, session = opened(story)
    for _ in range(2):
        story.worker(cpus=4)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], name="big", resources={"cpus": 8}))
    story.pass_time(1)
    text = "needs cpus=8; largest worker offers cpus=4 (2 workers)"
    assert story.take_one(client, m.SessionWarning).text == f"Task 'big' (1/11) cannot run: {text}"
    story.pass_time(15)
    assert not story.take(client, m.SessionWarning)
    story.say(client, m.Wait(story.seq(), session, m.WAIT_SESSION, u32()))
    story.pass_time(6)
    assert story.failure(client).message == f"No worker can run the task: {text}"


def test_a_suitable_worker_ends_infeasibility() -> None:
    story = ServerStory(infeasible_timeout=20.0)
    client, session = opened(story)
    story.worker(cpus=4)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], resources={"cpus": 8}))
    story.pass_time(19)
    story.take(client, m.SessionWarning)
    big = story.worker(cpus=8)
    assert story.assigned(big) == [11]
    story.pass_time(5)
    assert story.task_state(session, 11) == TaskState.assigned


def test_without_workers_the_infeasible_clock_does_not_run() -> None:
    story = ServerStory(infeasible_timeout=20.0)
    client, session = opened(story)
    story.submit(client, session, SubmitBuilder().task(11, [], [10], resources={"cpus": 8}))
    story.pass_time(60)
    assert story.record(session).failure is None
    assert not story.take(client, m.SessionWarning)


def test_depth_first_frees_memory_before_new_roots_start(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(10):
        builder.task(101 + 10 * number, [], [100 + 10 * number])
        builder.task(103 + 10 * number, [100 + 10 * number], [102 + 10 * number])
    story.submit(client, session, builder)
    worker = story.worker(cpus=1)
    alive = 0
    for _ in range(20):
        (task,) = story.assigned(worker)
        story.done(worker, session, task, seconds=1.0)
        graph = story.graph(session)
        alive = max(alive, sum(graph.state[obj] == 1 for obj in graph.objects()))
    assert alive == 1


def test_a_session_that_ends_leaves_no_queue_entries(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(100):
        builder.task(1000 + number, [], [2000 + number])
    story.submit(client, session, builder)
    story.say(client, m.CloseSession(story.seq(), session))
    assert sum(map(len, story.core.state.queue.classes())) == 0


def test_values_of_small_constants_go_along_once(story: ServerStory) -> None:
    client, session = opened(story)
    worker = story.worker(cpus=2)
    story.submit(client, session, SubmitBuilder().constant(10, b"fn", keep=True).task(12, [10], [11]))
    first = story.take_one(worker, m.AssignTasks)
    assert (list(first.objects), first.values, list(first.template_numbers)) == ([10], [b"fn"], [0])
    chunk = SubmitBuilder().task(14, [10], [13]).chunk(session)
    object.__setattr__(chunk, "templates", [])
    story.say(client, chunk, m.SubmitCommit(story.seq(), session, False))
    story.take_one(client, m.Accepted)
    second = story.take_one(worker, m.AssignTasks)
    assert (list(second.objects), list(second.template_numbers)) == ([], [])


def test_large_constants_are_read_from_the_server() -> None:
    story = ServerStory(constant_memory=100)
    client, session = opened(story)
    worker = story.worker()
    story.submit(client, session, SubmitBuilder().constant(10, b"x" * 100).task(12, [10], [11]))
    assignment = story.take_one(worker, m.AssignTasks)
    assert (assignment.values, assignment.holders, list(assignment.sizes)) == ([None], [["10.0.0.99:7210"]], [100])


def test_assignments_are_cut_into_messages_of_bounded_size() -> None:
    story = ServerStory(message_budget=1000)
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(8):
        builder.task(100 + number, [], [200 + number], resources={"cpus": 0}, args=b"x" * 400)
    story.submit(client, session, builder)
    worker = story.worker(cpus=2)
    portions = [list(message.tasks) for message in story.take(worker, m.AssignTasks)]
    assert portions == [[100, 101], [102, 103], [104, 105], [106, 107]]


def test_inline_inputs_of_one_message_are_bounded() -> None:
    story = ServerStory(message_budget=1000)
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(10, 14):
        builder.constant(number, b"x" * 400)
    story.submit(client, session, builder.task(21, range(10, 14), [20]))
    worker = story.worker()
    assignment = story.take_one(worker, m.AssignTasks)
    assert [value is None for value in assignment.values] == [False, False, True, True]
    assert assignment.holders == [[], [], ["10.0.0.99:7210"], ["10.0.0.99:7210"]]


def test_test_mode_places_constants_on_the_workers_named() -> None:
    story = ServerStory(test_mode=True)
    client, session = opened(story)
    one, two = story.worker(), story.worker()
    builder = SubmitBuilder()
    for number, worker, size in ((10, one, 10_000), (11, two, 50 * MB)):
        wish = {"workers": [f"10.0.0.{worker}:9000"], "size": size}
        builder.objects.append((number, m.INLINE | m.KEEP, msgpack.packb({"user": {"_testing": wish}}), b"x"))
    story.submit(client, session, builder)
    placed = [story.take_one(worker, m.AssignTasks) for worker in (one, two)]
    assert [(list(message.tasks), list(message.objects)) for message in placed] == [([], [10]), ([], [11])]
    story.submit(client, session, SubmitBuilder().task(13, [10, 11], [12]))
    assert story.assigned(two) == [13]
