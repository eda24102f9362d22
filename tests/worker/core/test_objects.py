"""Delayed deletion of objects."""

from __future__ import annotations

from array import array

from rain.protocol.messages import DeleteObjects
from rain.testing.worker_builders import InputOf, TaskOf, WorkerStory, assign_tasks, packed_template
from rain.worker.core.actions import DeleteValues, FetchObject, RunBuiltin, StoreValue

BUILTIN = {0: packed_template("buildin/concat")}


def holding(*objects: int, **more: object) -> WorkerStory:
    """A worker that has these objects."""
    story = WorkerStory(**more)
    story.assign(TaskOf(20), templates=BUILTIN, objects=[InputOf(number, b"x") for number in objects])
    story.succeed(0, story.all(RunBuiltin)[0].run)
    return story


def test_an_unneeded_object_stays_for_a_while():
    story = holding(10, 11)
    story.delete(10)
    assert story.actions == []
    assert story.core.info()["objects_to_delete"] == [[1, 10]]
    story.tick(0.9)
    assert story.actions == []
    story.tick(0.2)
    assert story.actions == [DeleteValues([(1, 10)])]
    assert story.core.info() == {"tasks": [], "objects": [[1, 11]], "objects_to_delete": []}


def test_no_delay():
    story = holding(10, delete_timeout=0)
    assert story.delete(10) == [DeleteValues([(1, 10)])]


def test_at_most_a_hundred_wait():
    story = holding(*range(10, 130))
    story.delete(*range(10, 130))
    assert story.actions == [DeleteValues([(1, number) for number in range(10, 30)])]
    assert len(story.core.info()["objects_to_delete"]) == 100


def test_deleting_twice_does_not_prolong():
    story = holding(10)
    story.delete(10)
    story.tick(0.8)
    story.delete(10)
    story.tick(0.3)
    assert story.all(DeleteValues)


def test_needed_again():
    story = holding(10)
    story.delete(10)
    story.assign(TaskOf(21, [10]), objects=[InputOf(10)])
    assert not story.all(FetchObject)
    story.succeed(0, story.all(RunBuiltin)[0].run)
    story.tick(5)
    assert story.actions == []
    assert story.object_state(10) == "present"


def test_offered_again_without_a_task():
    story = holding(10)
    story.delete(10)
    story.assign(objects=[InputOf(10, b"x")])
    assert not story.all(StoreValue)
    story.tick(5)
    assert story.object_state(10) == "present"


def test_used_objects_wait_for_their_tasks():
    story = holding(10)
    story.assign(TaskOf(21, [10]), TaskOf(22, [10]))
    run = story.all(RunBuiltin)[0].run
    story.delete(10)
    story.tick(5)
    assert story.actions == []
    story.succeed(0, run)
    story.tick(5)
    assert story.actions == []
    story.cancel(22)
    story.tick(1.0)
    assert story.object_state(10) == "gone"


def test_outputs_deleted_before_they_exist():
    story = WorkerStory()
    story.assign(TaskOf(20, [], [21]), templates=BUILTIN)
    run = story.all(RunBuiltin)[0].run
    story.delete(21)
    story.succeed(0, run)
    assert story.done() == [20]
    assert story.core.info()["objects_to_delete"] == [[1, 21]]


def test_an_output_that_is_still_here_stays_till_its_task_is_done():
    story = holding(21)
    story.delete(21)
    story.assign(TaskOf(30, [], [21]))
    run = story.all(RunBuiltin)[0].run
    story.tick(5)
    assert story.object_state(21) == "present"
    story.succeed(0, run)
    story.tick(5)
    assert story.object_state(21) == "present"


def test_deleted_while_it_travels():
    story = WorkerStory()
    story.assign(TaskOf(20, [10]), templates=BUILTIN, objects=[InputOf(10)])
    story.delete(10)
    story.arrive(10)
    run = story.all(RunBuiltin)[0].run
    story.tick(5)
    assert story.object_state(10) == "present"
    story.succeed(0, run)
    story.tick(1.0)
    assert story.all(DeleteValues) == [DeleteValues([(1, 10)])]


def test_deleted_and_sent_again_in_one_turn():
    story = holding(10, delete_timeout=0)
    story.say(DeleteObjects(1, array("I", [10])), assign_tasks([TaskOf(21, [10])], objects=[InputOf(10, b"x")]))
    assert [type(action).__name__ for action in story.actions[:2]] == ["DeleteValues", "StoreValue"]


def test_unknown_objects():
    story = holding(10)
    story.delete(99)
    story.delete(10, session=5)
    story.arrive(10)
    assert story.actions == []


def test_a_transfer_that_crossed_its_end_is_removed():
    story = holding(10)
    story.arrive(99)
    assert story.actions == [DeleteValues([(1, 99)])]
