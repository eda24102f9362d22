"""docs/design/worker-core.md and the code tell the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from rain.testing.worker_builders import InputOf, TaskOf, WorkerStory, packed_template
from rain.worker.core import core as core_module, dispatch, executors, lifecycle, model, objects
from rain.worker.core.core import WorkerCore
from rain.worker.core.events import ExecutorStopped, LookedUp, ObjectUnreachable, StoreFailed

PAGE = Path(__file__).resolve().parents[3] / "docs" / "design" / "worker-core.md"
CLASSES = {
    "Dispatcher": dispatch.Dispatcher,
    "Lifecycle": lifecycle.Lifecycle,
    "ObjectTable": objects.ObjectTable,
    "ExecutorTable": executors.ExecutorTable,
}
STATES = {"task": model.TASK_STATES, "object": model.OBJECT_STATES, "executor": executors.EXECUTOR_STATES}
THINGS = {"task": model.Task, "object": model.DataObject, "executor": executors.Executor}


def table(first_header: str) -> list[list[str]]:
    """The rows of the table whose first column has this header."""
    lines = iter(PAGE.read_text("utf-8").splitlines())
    for line in lines:
        if line.startswith(f"| {first_header} |"):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    assert rows
    return rows


@pytest.mark.parametrize("thing", STATES)
def test_states(thing):
    assert tuple(row[0] for row in table(f"{thing} state")) == STATES[thing]


@pytest.mark.parametrize("thing", STATES)
def test_functions_of_transitions_exist(thing):
    for source, target, function, _ in table(f"{thing} from"):
        assert {source, target} <= set(STATES[thing])
        owner, name = function.split(".")
        assert callable(getattr(CLASSES[owner], name))


@pytest.mark.parametrize(("header", "handlers"), [
    ("event", core_module._HANDLERS), ("message", core_module._MESSAGE_HANDLERS),
])  # fmt: skip
def test_handlers(header, handlers):
    documented = {row[0]: getattr(WorkerCore, row[1]) for row in table(header)}
    assert documented == {kind.__name__: handler for kind, handler in handlers.items()}


class _Recorder:
    """Stands in for the `state` slot of a class and notes every change."""

    def __init__(self, slot) -> None:
        self.slot = slot
        self.seen: set[tuple[str, str]] = set()

    def __get__(self, thing, owner=None):
        return self.slot.__get__(thing, owner)

    def __set__(self, thing, value) -> None:
        try:
            before = self.slot.__get__(thing)
        except AttributeError:
            before = value
        if before != value:
            self.seen.add((before, value))
        self.slot.__set__(thing, value)


@pytest.fixture
def recorders(monkeypatch):
    found = {}
    for thing, owner in THINGS.items():
        found[thing] = _Recorder(owner.__dict__["state"])
        monkeypatch.setattr(owner, "state", found[thing])
    return found


TEMPLATES = {0: packed_template("py/f"), 1: packed_template("buildin/concat")}
CACHED = {2: packed_template("py/f", cache=True)}


def tasks_end_in_every_state() -> None:
    for ending in ("withdraw", "cancel", "end"):
        story = WorkerStory(cpus=1)
        story.assign(TaskOf(1), TaskOf(2), TaskOf(3, [10]), templates=TEMPLATES, objects=[InputOf(10)])
        story.assign(TaskOf(4, [], [14]), TaskOf(5, [14]))
        story.end() if ending == "end" else getattr(story, ending)(*range(1, 6))


def batches() -> None:
    story = WorkerStory(cpus=1)
    story.assign(TaskOf(1), templates=TEMPLATES)
    story.ready(1)
    story.succeed(1, *story.runs(1), duration=1e-5)
    story.assign(*map(TaskOf, range(2, 8)))
    story.succeed(1, *story.runs(1)[:2], duration=1e-5)
    story.lose(1)
    story.ready(2)
    story.cancel(5)
    story.lose(2, (1, 4, 1))
    story.lose(3)
    story.withdraw(*range(8))
    story.assign(TaskOf(20))
    story.ready(4)
    story.succeed(4, *story.runs(4))
    story.lose(4)
    story.lose(99)
    story = WorkerStory(cpus=1)
    story.assign(TaskOf(1), templates=TEMPLATES)
    story.ready(1)
    story.succeed(1, *story.runs(1), duration=1e-5)
    story.assign(TaskOf(2, [], [12]), TaskOf(3, [12]))
    story.lose(1)


def looking_up() -> None:
    story = WorkerStory(cpus=1)
    story.assign(TaskOf(1, [10], template=2), objects=[InputOf(10)], templates=CACHED)
    story.arrive(10)
    story.happens(LookedUp((1, 1, 1), None))
    story.assign(TaskOf(2, template=2))
    story.cancel(2)


def grace() -> None:
    story = WorkerStory(cpus=1)
    story.assign(TaskOf(1), templates=TEMPLATES)
    story.ready(1)
    story.cancel(1, grace=2.0)
    story.happens(ExecutorStopped(1))


def a_spare_comes_and_goes() -> None:
    story = WorkerStory(spare_executors=1)
    story.tick(1.0)
    story.ready(1)
    story.stop()


def objects_come_and_go() -> None:
    story = WorkerStory(delete_timeout=0)
    story.assign(TaskOf(1, [10, 11], [12]), templates={0: TEMPLATES[1]}, objects=[InputOf(10), InputOf(11, b"x")])
    story.arrive(10)
    story.succeed(0, story.run_of(1))
    story.delete(10)
    story.assign(TaskOf(2, [], [12]))
    story.happens(StoreFailed((1, 12), "damaged"))
    story.cancel(2)
    story.assign(TaskOf(3, [13]), objects=[InputOf(13)])
    story.assign(TaskOf(4, [], [13]))
    story.happens(ObjectUnreachable((1, 13), ["a:1"], "refused"))
    story.end()
    story.assign(TaskOf(3, [13]), templates={0: TEMPLATES[1]}, objects=[InputOf(13)])
    story.happens(ObjectUnreachable((1, 13), ["a:1"], "refused"))


def test_transitions_are_those_of_the_page(recorders):
    tasks_end_in_every_state()
    batches()
    looking_up()
    grace()
    a_spare_comes_and_goes()
    objects_come_and_go()
    for thing, recorder in recorders.items():
        documented = {(source, target) for source, target, _, _ in table(f"{thing} from")}
        assert recorder.seen == documented, thing
