"""Linked blocks: what the worker looks at, and what it hands to executors."""

from __future__ import annotations

import re
from array import array

import pytest

from rain.common.blocks import LATE, STORED
from rain.common.links import Link, pack_assigned
from rain.protocol.messages import TaskFailed
from rain.testing.worker_builders import BlockOf, InputOf, TaskOf, WorkerStory, packed_template
from rain.worker.core.actions import CallExecutor, RunLink
from rain.worker.core.templates import read_link

TEMPLATES = {
    0: packed_template("py/f", outputs=[{"label": "x"}]),
    1: packed_template("py/g", outputs=[{"label": "y", "content_type": "json"}]),
    2: packed_template("buildin/concat"),
    3: packed_template("cpp/f"),
    4: packed_template("py/pair", outputs=[{}, {}]),
    5: packed_template("py/limited", timeout=1.0),
    6: packed_template("py/other", resources={"cpus": 2}),
    7: packed_template("py/variables", env={"A": "1"}),
}
FUNCTIONS = [InputOf(10, b"f"), InputOf(11, b"g")]
SHORT = 1e-6


def linked(
    templates: list[int], which: bytes = b"", *, members: int = 4, number: int = 100, template: int | None = None,
    inputs: int = 2, **more: object
) -> BlockOf:  # fmt: skip
    """A chain whose members have functions 0 and 1 in turns."""
    references = array("H", [0])
    for position in range(1, members):
        references.extend([position % 2, inputs + position - 1])
    link = Link(templates, which, bytes([1] + [2] * (members - 1)), references, inputs).pack()
    first = template if template is not None else templates[which[0] if which else 0]
    packed = pack_assigned(link, b"\1" * members)
    return BlockOf(number, [10, 11], [200], first, members=members, link=packed, **more)  # type: ignore[arg-type]


def ready_story(cpus: int = 1) -> WorkerStory:
    story = WorkerStory(cpus=cpus)
    story.assign(TaskOf(1, [10]), TaskOf(2, [11]), templates=TEMPLATES, objects=FUNCTIONS)
    story.ready(1)
    while story.runs(1):
        story.succeed(1, *story.runs(1), duration=SHORT)
    return story


class TestCalls:
    def test_it_is_one_run_with_all_templates(self):
        story = ready_story()
        block = linked([1, 0], b"\1\0\0\1")
        story.assign(block)
        (call,) = story.all(CallExecutor)
        (run,) = call.runs
        assert (run.key, run.members, run.outputs, run.template) == ((1, 100, 1), 4, (200,), 0)
        assert [item.object for item in run.inputs] == [(1, 10), (1, 11)]
        assert run.link is not None
        assert run.link.packed == block.link
        assert [(number, data["task_type"]) for number, data in run.link.templates] == [(1, "py/g"), (0, "py/f")]
        assert [run.link.template(position)[0] for position in range(4)] == [0, 1, 1, 0]

    def test_with_one_template(self):
        story = ready_story()
        story.assign(linked([0]))
        (run,) = story.runs()
        assert run.link is not None
        assert [number for number, _ in run.link.templates] == [0]
        assert run.link.template(3)[0] == 0

    def test_templates_may_come_with_it(self):
        story = ready_story()
        story.assign(linked([20, 21], b"\0\1\0\1"), templates={20: TEMPLATES[0], 21: TEMPLATES[1]})
        assert story.called() == {1: [100]}

    def test_others_of_the_message_are_not_linked(self):
        story = ready_story()
        plain = BlockOf(300, [10], [400], members=3)
        story.assign(plain, linked([0]), TaskOf(50, [10]))
        links = {task.key[1]: task.link is not None for task in story.core.sessions[1].tasks.values()}
        assert links == {50: False, 100: True, 300: False}

    def test_it_waits_for_its_inputs(self):
        story = ready_story()
        story.assign(BlockOf(100, [10, 12], [200], members=4, link=linked([0]).link), objects=[InputOf(12)])
        assert story.state(100) == "waiting"
        story.arrive(12)
        assert story.called() == {1: [100]}

    def test_it_runs_again_with_its_link(self):
        story = ready_story()
        block = linked([0])
        story.assign(block)
        story.lose(1)
        story.ready(2)
        (run,) = story.runs(2)
        assert run.link is not None
        assert run.link.packed == block.link


class TestEnds:
    def test_the_average_is_that_of_a_member(self):
        story = ready_story()
        story.assign(linked([1, 0], b"\1\0\0\1"))
        templates = story.core.sessions[1].templates
        story.end_block(1, story.run_of(100), done=2, end=LATE, duration=2 * SHORT)
        assert templates[0].average == pytest.approx(SHORT)
        assert templates[1].average < 0.0

    @pytest.mark.parametrize(("done", "spec"), [(0, 0), (1, 1), (3, 0)])
    def test_a_stored_output_has_the_spec_of_its_member(self, done, spec):
        story = ready_story()
        story.assign(linked([1, 0], b"\1\0\0\1"))
        story.end_block(1, story.run_of(100), done=done, end=STORED)
        session = story.core.sessions[1]
        assert session.objects[200 + done].spec == session.templates[spec].output_specs[0]


class TestRefused:
    @pytest.mark.parametrize(
        ("damaged", "reason"),
        [
            (linked([0, 30], b"\0\1\0\1"), r"cannot be a linked block: unknown templates \[30\]"),
            *((linked([0, number], b"\0\1\0\1"), "cannot be a block") for number in range(2, 8)),
            *((linked([number]), "cannot be a block") for number in range(2, 6)),
            (linked([0, 1], b"\1\0\0\1", template=0), "cannot be a block"),
            (linked([0], inputs=3), "a malformed link"),
            (BlockOf(100, [10, 11], [200], members=3, link=linked([0]).link), "a malformed link"),
            (BlockOf(100, [10, 11], [200], members=4, link=b"\xc1"), "a malformed link"),
            (BlockOf(100, [10, 11], [200], members=0, args=b"\x90", link=linked([0]).link), "a malformed link"),
            (BlockOf(100, [10, 11], [200, 201], members=4, link=linked([0]).link), "cannot be a block"),
        ],
    )
    def test_what_cannot_be_linked(self, damaged, reason):
        story = ready_story(cpus=2)
        story.assign(damaged, TaskOf(50), templates={9: TEMPLATES[0]})
        failures = story.messages(TaskFailed)
        assert {failed.task for failed in failures} == {50, 100}
        assert all(re.search(reason, failed.failure["message"]) for failed in failures)
        assert story.state(100) == story.state(50) == "gone"
        assert 9 not in story.core.sessions[1].templates


def test_reading():
    story = ready_story()
    templates = story.core.sessions[1].templates
    block = linked([1, 0], b"\0\1\1\0")
    assert block.link is not None
    expected = RunLink(block.link, ((1, templates[1].data), (0, templates[0].data)), b"\0\1\1\0")
    assert read_link(block.link, 4, 2, templates) == expected
