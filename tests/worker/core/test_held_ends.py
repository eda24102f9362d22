"""Ends of short built-in tasks, which are told together."""

from rain.testing.worker_builders import TaskOf, WorkerStory, failure_of, packed_template, success
from rain.worker.core.batching import SHORT_BUILTIN
from rain.worker.core.core import HELD_SECONDS
from rain.worker.core.events import RunsEnded

SHORT = 0.002


def busy(duration: float = SHORT) -> WorkerStory:
    """One cpu, a built-in task of so many seconds that runs, and three that wait; another one was measured before."""
    story = WorkerStory()
    story.assign(TaskOf(20, template=5), templates={5: packed_template("buildin/concat")})
    story.succeed(0, story.run_of(20), duration=duration)
    assert story.done() == [20]
    story.assign(*(TaskOf(number, template=5) for number in (21, 22, 23, 24)))
    return story


def test_the_next_starts_and_the_end_is_told_with_the_following_ones():
    story = busy()
    story.succeed(0, story.run_of(21), duration=SHORT)
    assert (story.state(22), story.done(), story.told()) == ("running", [], [])
    assert story.core.next_deadline() == story.now + HELD_SECONDS
    story.now += HELD_SECONDS / 2
    story.succeed(0, story.run_of(22), duration=SHORT)
    assert story.done() == []
    story.now += HELD_SECONDS / 2
    story.succeed(0, story.run_of(23), duration=SHORT)
    assert story.done() == [21, 22, 23]


def test_the_time_is_up_without_another_end():
    story = busy()
    story.succeed(0, story.run_of(21), duration=SHORT)
    story.tick(HELD_SECONDS)
    assert story.done() == [21]
    assert (story.core.next_deadline() or 0.0) > story.now


def test_the_last_ones_are_told_at_once():
    story = busy()
    for number in (21, 22):
        story.succeed(0, story.run_of(number), duration=SHORT)
    assert story.done() == []
    story.succeed(0, story.run_of(23), duration=SHORT)
    assert story.done() == [21, 22, 23]
    story.succeed(0, story.run_of(24), duration=SHORT)
    assert story.done() == [24]
    assert story.core.next_deadline() is None


def test_longer_ones_are_told_at_once():
    story = busy(duration=2 * SHORT_BUILTIN)
    story.succeed(0, story.run_of(21), duration=SHORT)
    assert story.done() == [21]


def test_a_failure_takes_along_what_was_held():
    story = busy()
    story.succeed(0, story.run_of(21), duration=SHORT)
    story.happens(RunsEnded(0, [failure_of(story.run_of(22).key)], []))
    assert story.done() == [21]
    assert "TaskFailed" in story.told()


def test_whatever_the_server_says_takes_along_what_was_held():
    story = busy()
    story.succeed(0, story.run_of(21), duration=SHORT)
    story.cancel(24)
    assert story.done() == [21]
    assert story.stopped() == [24]


def test_a_session_that_ends_is_not_told_of():
    story = busy()
    story.succeed(0, story.run_of(21), duration=SHORT)
    story.end()
    assert story.told() == []
    story.tick(HELD_SECONDS)
    assert story.told() == []


def test_ends_in_one_turn_with_others_are_told_at_once():
    story = busy()
    story.happens(RunsEnded(0, [success(story.run_of(21), duration=SHORT)], []), RunsEnded(1, [], []))
    assert story.done() == [21]
