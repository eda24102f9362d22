"""Which running tasks the server is told of."""

from rain.testing.worker_builders import TaskOf, packed_template
from rain.worker.core.announcing import PATIENCE
from rain.worker.core.batching import SHORT_BUILTIN
from tests.worker.core.test_executors import SHORT, warm

LONG = 0.5


def test_an_unknown_run_is_told_of_at_once():
    story = warm()
    story.assign(TaskOf(20))
    assert story.started() == [20]


def test_a_long_run_is_told_of_at_once():
    story = warm(duration=LONG)
    story.assign(TaskOf(20))
    assert story.started() == [20]


def test_a_brief_run_that_ends_is_not_told_of():
    story = warm(duration=SHORT)
    story.assign(TaskOf(20))
    assert story.started() == []
    story.succeed(1, *story.runs(1), duration=SHORT)
    assert story.core.next_deadline() is None
    story.tick()
    assert story.started() == []


def test_a_brief_run_that_lasts_is_told_of_once():
    story = warm(duration=SHORT)
    story.assign(TaskOf(20))
    assert story.core.next_deadline() == story.now + PATIENCE
    story.tick(PATIENCE)
    assert story.started() == [20]
    story.tick()
    assert story.started() == []
    assert story.core.next_deadline() is None


def test_the_next_of_a_batch_gets_its_own_time():
    story = warm(duration=SHORT)
    story.assign(TaskOf(20), TaskOf(21))
    assert story.called() == {1: [20, 21]}
    first, _ = story.runs(1)
    story.succeed(1, first, duration=SHORT)
    story.tick(PATIENCE / 2)
    assert story.started() == []
    story.tick(PATIENCE)
    assert story.started() == [21]


def test_a_suspect_is_told_of_at_once():
    story = warm(duration=SHORT)
    story.assign(TaskOf(20), solo=[20])
    assert story.started() == [20]


def test_a_cancelled_run_is_not_told_of():
    story = warm(duration=SHORT)
    story.assign(TaskOf(20))
    story.cancel(20)
    story.tick()
    assert story.started() == []


def test_a_short_program_that_lasts_is_told_of():
    story = warm()
    story.assign(TaskOf(30, template=5), templates={5: packed_template("buildin/concat")})
    assert story.started() == [30]
    story.succeed(0, story.run_of(30), duration=SHORT)
    story.assign(TaskOf(31, template=5))
    assert story.started() == []
    story.tick(SHORT_BUILTIN)
    assert story.started() == [31]
