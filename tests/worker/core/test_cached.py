"""Tasks whose results may come from the result cache."""

from rain.testing.worker_builders import InputOf, TaskOf, WorkerStory, packed_template, success
from rain.worker.core.actions import CallExecutor, KeepResult, LookUp, StopLookUp
from rain.worker.core.events import LookedUp

TEMPLATES = {0: packed_template("py/f", cache=True), 1: packed_template("py/f")}


def story_with(*tasks: TaskOf, cpus: int = 1) -> WorkerStory:
    story = WorkerStory(cpus=cpus)
    story.assign(*tasks, templates=TEMPLATES, objects=[InputOf(10, b"x")] if tasks[0].inputs else ())
    return story


def test_a_result_is_looked_up_before_anything_starts():
    story = story_with(TaskOf(20, [10], [21]))
    (look_up,) = story.all(LookUp)
    assert look_up.run.key == (1, 20, 1)
    assert [item.object for item in look_up.run.inputs] == [(1, 10)]
    assert look_up.run.template_data["cache"] is True
    assert story.state(20) == "looking"
    assert not story.all(CallExecutor)


def test_a_result_found_counts_as_that_of_the_run():
    story = story_with(TaskOf(20, [], [21]), TaskOf(30, [21], [31], template=1))
    (look_up,) = story.all(LookUp)
    story.happens(LookedUp(look_up.run.key, success(look_up.run, duration=0.0)))
    assert story.done() == [20]
    assert story.object_state(21) == "present"
    assert story.state(30) == "starting"
    assert not story.all(KeepResult)
    assert not story.all(StopLookUp)


def test_a_result_found_says_nothing_about_durations():
    story = story_with(TaskOf(20, [], [21]))
    (look_up,) = story.all(LookUp)
    template = story.core.sessions[1].templates[0]
    story.happens(LookedUp(look_up.run.key, success(look_up.run, duration=0.0)))
    assert template.average < 0.0


def test_a_result_not_found_is_made_and_kept():
    story = story_with(TaskOf(20, [], [21]))
    (look_up,) = story.all(LookUp)
    story.happens(LookedUp(look_up.run.key, None))
    assert story.state(20) == "starting"
    story.ready(1)
    (run,) = story.runs(1)
    assert not story.all(LookUp)
    story.succeed(1, run)
    (keep,) = story.all(KeepResult)
    assert keep.key == (1, 20, 1)
    assert [size for size, _ in keep.outputs] == [size for size, _, _ in success(run).outputs]
    assert story.done() == [20]


def test_a_run_that_fails_ends_its_look_up():
    story = story_with(TaskOf(20, [], [21]))
    (look_up,) = story.all(LookUp)
    story.happens(LookedUp(look_up.run.key, None))
    story.ready(1)
    story.fail(1, *story.runs(1))
    assert [stop.key for stop in story.all(StopLookUp)] == [(1, 20, 1)]


def test_cancelling_withdrawing_and_the_end_of_the_session_end_look_ups():
    for way in ("cancel", "withdraw"):
        story = story_with(TaskOf(20, [], [21]))
        getattr(story, way)(20)
        assert [stop.key for stop in story.all(StopLookUp)] == [(1, 20, 1)]
    story = story_with(TaskOf(20, [], [21]))
    story.end()
    assert [stop.key for stop in story.all(StopLookUp)] == [(1, 20, 1)]


def test_a_run_whose_executor_is_lost_is_not_looked_up_again():
    story = story_with(TaskOf(20, [], [21]))
    (look_up,) = story.all(LookUp)
    story.happens(LookedUp(look_up.run.key, None))
    story.ready(1)
    story.lose(1)
    assert not story.all(LookUp)
    assert not story.all(StopLookUp)
    assert story.state(20) == "starting"


def test_many_at_once():
    tasks = [TaskOf(20 + n, [], [40 + n], template=n % 2) for n in range(10)]
    story = story_with(*tasks, cpus=2)
    looked = story.all(LookUp)
    assert [look.run.key[1] for look in looked] == [20, 22, 24, 26, 28]
    assert [story.state(21 + n) for n in range(0, 10, 2)] == ["starting", "starting", "ready", "ready", "ready"]
    story.happens(*(LookedUp(look.run.key, None) for look in looked))
    assert [story.state(20 + n) for n in range(0, 10, 2)] == ["ready"] * 5


def test_they_do_not_follow_what_makes_their_inputs_into_a_batch():
    story = WorkerStory()
    story.assign(TaskOf(1, template=1), templates=TEMPLATES)
    story.ready(1)
    story.succeed(1, *story.runs(1), duration=1e-5)
    story.assign(TaskOf(20, [], [21], template=1), TaskOf(30, [21], [31]))
    assert story.called() == {1: [20]}
    assert story.state(30) == "waiting"
    story.succeed(1, *story.runs(1), duration=1e-5)
    (look_up,) = story.all(LookUp)
    assert look_up.run.key == (1, 30, 1)
