"""Many values of blocks fetched in one piece."""

from __future__ import annotations

import dataclasses
from array import array
from typing import TYPE_CHECKING

import pytest

from rain.common.number_columns import column_sizes
from rain.common.pickle5 import encode_pickle5
from rain.protocol import messages as m
from rain.testing.server_builders import ServerStory, SubmitBuilder, block_result, u32
from tests.server.core.test_blocks import BEHIND, FIRST, TASKS, Mapped

if TYPE_CHECKING:
    from rain.common.blocks import BlockResult

SECOND = FIRST + 51
"""The first output of the second block; that of the first is FIRST + 1, as FIRST is a single one."""


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rain.server.core.joined._FEWEST", 5)


@pytest.fixture
def mapped() -> Mapped:
    return Mapped(ServerStory())


def numbers(count: int, first: int = 0) -> BlockResult:
    """What a block gave whose members count."""
    result = block_result(count, info=b"number")
    result.column, result.values = "q", array("q", range(first, first + count)).tobytes()
    result.sizes = column_sizes("q", result.values)
    return result


def finish(mapped: Mapped, first: BlockResult, second: BlockResult) -> None:
    mapped.done(TASKS + 1, first)
    mapped.done(TASKS + 51, second)


def ask(mapped: Mapped, start: int, stop: int) -> m.ValuesFetched | m.ObjectsFetched:
    """The answer to a fetch of these members; how their ids come makes no difference."""
    stretch = range(FIRST + start, FIRST + stop)
    answer = _answer(mapped, stretch)
    assert dataclasses.replace(_answer(mapped, u32(stretch)), seq=answer.seq) == answer
    return answer


def _answer(mapped: Mapped, ids: range | array[int]) -> m.ValuesFetched | m.ObjectsFetched:
    mapped.story.say(mapped.client, m.FetchObjects(mapped.story.seq(), mapped.session, ids, [], joined=True))
    found = mapped.story.take(mapped.client, m.ValuesFetched) or mapped.story.take(mapped.client, m.ObjectsFetched)
    (answer,) = found
    return answer


def test_values_of_several_blocks(mapped: Mapped) -> None:
    finish(mapped, block_result(50, value=b"one"), block_result(49, value=b"2"))
    answer = ask(mapped, 41, 60)
    assert isinstance(answer, m.ValuesFetched)
    assert (answer.values, list(answer.sizes)) == (b"one" * 10 + b"2" * 9, [3] * 10 + [1] * 9)
    assert (answer.infos, answer.kinds, answer.column) == ([None], b"", "")


def test_infos_are_told_once(mapped: Mapped) -> None:
    first, second = block_result(50), block_result(49, info=b"b")
    first.infos, first.kinds = [b"a", b"b"], bytes([0, 1] * 25)
    finish(mapped, first, second)
    answer = ask(mapped, 48, 54)
    assert isinstance(answer, m.ValuesFetched)
    assert (answer.infos, list(answer.kinds)) == ([b"a", b"b"], [1, 0, 1, 1, 1, 1])


def test_columns_stay_columns(mapped: Mapped) -> None:
    finish(mapped, numbers(50), numbers(49, 50))
    answer = ask(mapped, 41, 60)
    assert isinstance(answer, m.ValuesFetched)
    assert (answer.column, answer.sizes, answer.infos) == ("q", u32([]), [b"number"])
    assert list(array("q", answer.values)) == list(range(40, 59))


def test_single_values_of_a_column(mapped: Mapped) -> None:
    finish(mapped, numbers(50), numbers(49, 500))
    reply = mapped.fetch(FIRST + 3, FIRST + 51)
    assert reply.values == [encode_pickle5(2), encode_pickle5(500)]
    assert list(reply.sizes) == [29, 39]
    builder = SubmitBuilder().task(BEHIND + 1, [FIRST + 60], [BEHIND], keep=True)
    mapped.story.submit(mapped.client, mapped.session, builder)
    assert mapped.story.take(mapped.worker, m.AssignTasks)[-1].values == [encode_pickle5(509)]


def test_an_answer_ends_where_the_form_changes(mapped: Mapped) -> None:
    finish(mapped, numbers(50), block_result(49))
    answer = ask(mapped, 41, 60)
    assert isinstance(answer, m.ValuesFetched)
    assert len(answer.values) == 80
    assert isinstance(ask(mapped, 48, 60), m.ObjectsFetched)  # three in one piece are not worth it


def test_few_that_are_all(mapped: Mapped) -> None:
    finish(mapped, numbers(50), block_result(49))
    answer = ask(mapped, 7, 9)
    assert isinstance(answer, m.ValuesFetched)
    assert list(array("q", answer.values)) == [6, 7]


def test_single_members_come_first(mapped: Mapped) -> None:
    finish(mapped, numbers(50), block_result(49))
    answer = ask(mapped, 0, 40)
    assert isinstance(answer, m.ObjectsFetched)
    assert len(answer.sizes) == 1
    assert len(ask(mapped, 0, 4).sizes) == 4


def test_many_single_members_come_first() -> None:
    story = ServerStory()
    mapped = Mapped(story, cpus=40)
    for task, members in story.blocks(mapped.worker):
        mapped.done(task, numbers(members, task - TASKS))
    answer = ask(mapped, 0, 50)
    assert isinstance(answer, m.ObjectsFetched)
    assert len(answer.sizes) == 40
    answer = ask(mapped, 40, 50)
    assert isinstance(answer, m.ValuesFetched)
    assert list(array("q", answer.values)) == list(range(40, 50))


@pytest.mark.parametrize(("column", "count"), [(False, 7), (True, 12)])
def test_an_answer_ends_where_it_is_full(column: bool, count: int) -> None:
    mapped = Mapped(ServerStory(message_budget=100))
    finish(mapped, numbers(50) if column else block_result(50, value=b"x" * 14), block_result(49))
    answer = ask(mapped, 1, 40)
    assert isinstance(answer, m.ValuesFetched)
    assert len(answer.values) == (8 if column else 14) * count


@pytest.mark.parametrize("is_joined", [False, True])
def test_the_longest_stretch(mapped: Mapped, is_joined: bool) -> None:
    """It costs no more than the ids that exist."""
    story = mapped.story
    other = story.session(mapped.client)
    story.submit(mapped.client, other, SubmitBuilder().constant(1).task(3, [1], [2], keep=True))
    for session, first, unknown in ((mapped.session, FIRST, TASKS + 100), (other, 2, 4)):
        ids = range(first, 1 << 32)
        story.say(mapped.client, m.FetchObjects(story.seq(), session, ids, [], joined=is_joined))
        assert story.failure(mapped.client).message == f"id {session}/{unknown} does not exist"


def test_what_is_not_kept_is_refused(mapped: Mapped) -> None:
    finish(mapped, block_result(50), block_result(49))
    story = mapped.story
    story.say(mapped.client, m.UnkeepObjects(story.seq(), mapped.session, u32([FIRST + 30])))
    story.take_one(mapped.client, m.Accepted)
    ids = u32(range(FIRST + 20, FIRST + 40))
    story.say(mapped.client, m.FetchObjects(story.seq(), mapped.session, ids, [], joined=True))
    assert f"1/{FIRST + 30} is not kept" in story.failure(mapped.client).message


def test_what_is_unkept_before_the_end_is_refused(mapped: Mapped) -> None:
    story = mapped.story
    ids = u32(range(FIRST + 20, FIRST + 40))
    story.say(mapped.client, m.FetchObjects(story.seq(), mapped.session, ids, [], joined=True))
    story.say(mapped.client, m.UnkeepObjects(story.seq(), mapped.session, u32([FIRST + 30])))
    story.take_one(mapped.client, m.Accepted)
    finish(mapped, block_result(50), block_result(49))
    assert "was unkept before it could be fetched" in story.failure(mapped.client).message
