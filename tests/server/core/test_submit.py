"""Submits: what is accepted, what is refused and that a refusal leaves nothing (spec 6.1)."""

from __future__ import annotations

import pytest

from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.actions import ShareConstant
from rain.testing.server_builders import ServerStory, SubmitBuilder, u32


@pytest.fixture
def story() -> ServerStory:
    return ServerStory()


def opened(story: ServerStory) -> tuple[int, int]:
    client = story.client()
    return client, story.session(client)


def test_states_after_submit(story: ServerStory) -> None:
    client, session = opened(story)
    story.submit(client, session, SubmitBuilder().constant(10).task(12, [10], [11]).task(14, [11], [13], keep=True))
    assert story.task_state(session, 12) == TaskState.ready
    assert story.task_state(session, 14) == TaskState.notAssigned
    assert story.object_state(session, 10) == DataObjectState.finished
    assert story.object_state(session, 11) == DataObjectState.unfinished
    story.assert_nothing_unread()


def test_tasks_may_come_in_any_order(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder().task(16, [15], [17]).task(14, [13], [15]).constant(12).task(11, [12], [13])
    story.submit(client, session, builder)
    graph = story.graph(session)
    assert [graph.level[task] for task in (11, 14, 16)] == [0, 1, 2]


def refusals() -> list[tuple[str, SubmitBuilder, str]]:
    new = SubmitBuilder
    return [
        ("id in use", new().constant(10), "id 1/10 is already in use"),
        ("id twice", new().constant(20).constant(20), "id 1/20 is used twice"),
        ("task and object share an id", new().constant(20).task(20), "id 1/20 is used twice"),
        ("task twice", new().task(20).task(20), "id 1/20 is used twice"),
        ("unknown input", new().task(21, [99], [20]), "input 1/99 of task 1/21 does not exist"),
        ("input is a task", new().task(21, [12], [20]), "input 1/12 of task 1/21 does not exist"),
        ("input not kept", new().task(21, [11], [20]), "input 1/11 of task 1/21 comes from an earlier submit"),
        ("two producers", new().task(21, [], [20]).task(22, [], [20]), "data object 1/20 is the output of two tasks"),
        ("output of an earlier submit", new().task(21, [], [11]), "id 1/11 is already in use"),
        ("data and producer", new().constant(20).task(21, [], [20]), "data object 1/20 has both data and a producer"),
        ("cycle", new().task(21, [22], [20]).task(23, [20], [22]), "is part of a cycle"),
        ("own output as input", new().task(21, [20], [20]), "task 1/21 is part of a cycle"),
        ("bad resources", new().task(21, [], [20], resources={"cpus": -1}), "resource 'cpus' is an int >= 0, not -1"),
        ("half a cpu", new().task(21, [], [20], resources={"cpus": 0.5}), "resource 'cpus' is an int >= 0, not 0.5"),
        ("id out of range", new().constant(1 << 30), "is out of range"),
    ]


@pytest.mark.parametrize(("builder", "text"), [pytest.param(b, t, id=i) for i, b, t in refusals()])
def test_refusals_name_the_id_and_leave_nothing(story: ServerStory, builder: SubmitBuilder, text: str) -> None:
    client, session = opened(story)
    story.submit(client, session, SubmitBuilder().constant(10, keep=True).task(12, [10], [11]))
    assert text in story.submit_refused(client, session, builder)
    assert len(story.graph(session)) == 13
    assert story.record(session).failure is None
    story.submit(client, session, SubmitBuilder().task(14, [10], [13]))
    story.assert_nothing_unread()


def test_object_without_data_and_producer(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    builder.objects.append((20, m.KEEP, None, None))
    assert story.submit_refused(client, session, builder) == "data object 1/20 has neither data nor a producer"


def test_columns_of_different_length(story: ServerStory) -> None:
    client, session = opened(story)
    chunk = SubmitBuilder().task(12, [], [11]).chunk(session)
    object.__setattr__(chunk, "input_counts", u32([3]))
    story.say(client, chunk, m.SubmitCommit(7, session, False))
    assert story.failure(client).message == "columns of tasks differ in length"


def test_chunks_commit_together(story: ServerStory) -> None:
    client, session = opened(story)
    story.say(client, SubmitBuilder().constant(10).chunk(session))
    assert not len(story.graph(session))
    first = SubmitBuilder().task(12, [10], [11]).chunk(session)
    story.say(client, first, m.SubmitCommit(7, session, False))
    story.take_one(client, m.Accepted)
    assert story.task_state(session, 12) == TaskState.ready


def test_discarded_submit_leaves_nothing(story: ServerStory) -> None:
    client, session = opened(story)
    story.say(client, SubmitBuilder().constant(10).chunk(session), m.SubmitCommit(7, session, True))
    story.take_one(client, m.Accepted)
    story.submit(client, session, SubmitBuilder().constant(10, keep=True))


def test_upload_in_pieces(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    builder.objects.append((10, m.KEEP | m.UPLOADED, None, None))
    story.say(client, m.ConstantPiece(session, 10, 0, 6, b"abc"))
    assert story.submit_refused(client, session, builder) == "data object 1/10 was not uploaded completely"
    story.say(client, m.ConstantPiece(session, 10, 0, 6, b"abc"), m.ConstantPiece(session, 10, 3, 6, b"def"))
    story.submit(client, session, builder)
    assert story.graph(session).size[10] == 6


def test_pieces_that_do_not_fit(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    builder.objects.append((10, m.UPLOADED, None, None))
    story.say(client, m.ConstantPiece(session, 10, 3, 6, b"abc"))
    assert "the pieces do not fit together" in story.submit_refused(client, session, builder)


def test_submit_into_a_session_of_another_client(story: ServerStory) -> None:
    _, session = opened(story)
    stranger = story.client()
    story.say(stranger, m.SubmitCommit(7, session, False))
    assert story.failure(stranger).kind == "session"


def test_wide_and_repeated_inputs(story: ServerStory) -> None:
    client, session = opened(story)
    builder = SubmitBuilder()
    for number in range(10, 1010):
        builder.constant(number)
    story.submit(client, session, builder.task(1011, [*range(10, 1010), 10, 10], [1010], keep=True))
    worker = story.worker()
    assignment = story.take_one(worker, m.AssignTasks)
    assert len(assignment.inputs) == 1002
    assert len(assignment.objects) == 1000
    story.done(worker, session, 1011)
    assert story.object_state(session, 10) == DataObjectState.removed


def equal(builder: SubmitBuilder, number: int, source: int, keep: bool = False) -> SubmitBuilder:
    """Add a constant that is equal to another one."""
    flags = m.SAME | (m.KEEP if keep else 0)
    builder.objects.append((number, flags, None, source.to_bytes(4, "little")))
    return builder


def test_equal_constants_share_their_value(story: ServerStory) -> None:
    client, session = opened(story)
    story.submit(client, session, equal(SubmitBuilder().constant(10, b"value"), 11, 10, keep=True))
    graph = story.graph(session)
    assert story.object_state(session, 10) == DataObjectState.removed
    assert graph.value[10] is None
    assert (graph.value[11], graph.size[11]) == (b"value", 5)
    story.submit(client, session, equal(SubmitBuilder(), 12, 11, keep=True))
    assert graph.value[12] is graph.value[11]


def test_equal_constants_of_the_constant_store() -> None:
    story = ServerStory(constant_memory=4)
    client, session = opened(story)
    story.submit(client, session, equal(SubmitBuilder().constant(10, b"value", keep=True), 11, 10, keep=True))
    assert ShareConstant(session, 11, 10) in story.other_actions
    assert story.graph(session).size[11] == 5


@pytest.mark.parametrize("source", [11, 99, 12])
def test_equal_to_nothing(story: ServerStory, source: int) -> None:
    client, session = opened(story)
    builder = equal(SubmitBuilder().task(13, [], [12]), 11, source, keep=True)
    expected = f"data object 1/11 is equal to 1/{source}, which has no data here"
    assert story.submit_refused(client, session, builder) == expected
