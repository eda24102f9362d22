import random

from rain.eventlog.linked import members
from rain.protocol.messages import INLINE, KEEP, SubmitBlock
from rain.testing.graphs import ChunkWriter, GraphPlanner, evaluate


def test_planned_graphs_are_valid_and_have_values() -> None:
    for seed in range(50):
        planner = GraphPlanner(random.Random(seed), max_cpus=3, failing=0.2, arrays=seed % 2 > 0)
        values: dict[int, bytes] = {}
        for _ in range(3):
            plan = planner.plan(10)
            for task in plan.all_tasks():
                assert set(task.inputs) <= values.keys() | set(plan.objects())
                assert not set(task.inputs) & set(task.outputs)
            evaluate(plan, values)
            assert plan.kept <= set(plan.objects())
        ids = list(values)
        assert len(ids) == len(set(ids))
        assert min(ids) >= 10


def test_templates_are_sent_once_per_session() -> None:
    planner = GraphPlanner(random.Random(1))
    writer = ChunkWriter(7)
    first, second = planner.plan(40), planner.plan(40)
    chunks = [*writer.messages(first), *writer.messages(second)]
    packed = [template for chunk in chunks for template in chunk.templates]
    assert len(packed) == len(set(packed))
    assert max(chunks[1].task_templates) < len(packed)
    assert chunks[0].session == 7
    assert len(chunks[0].inputs) == sum(chunks[0].input_counts)
    assert all(flag & INLINE for flag in chunks[0].object_flags)
    kept = [n for n, flag in zip(chunks[0].outputs, chunks[0].output_flags, strict=True) if flag & KEEP]
    assert set(kept) == first.kept - first.constants.keys()


def test_arrays_go_as_blocks() -> None:
    planner = GraphPlanner(random.Random(3), arrays=True)
    writer = ChunkWriter(7, per_block=4)
    seen: dict[int, int] = {}
    templates: list[bytes] = []
    values: dict[int, bytes] = {}
    for _ in range(10):
        plan = planner.plan(30)
        evaluate(plan, values)
        numbers = []
        for message in writer.messages(plan):
            templates += message.templates
            if isinstance(message, SubmitBlock):
                count = len(message.arg_sizes)
                assert 0 < count <= 4
                assert message.start == seen.get(message.first, 0)
                seen[message.first] = message.start + count
                task = message.first + message.members + message.start
                numbers += range(task, task + count)
                assert message.keep == (message.first in plan.kept)
                assert message.template < len(templates)
            else:
                numbers += message.tasks
        assert numbers == [task.number for task in plan.all_tasks()]
        arrays = {one.first: len(one.members) for one in plan.arrays}
        assert {first: seen[first] for first in arrays} == arrays
        assert set(plan.objects()) <= values.keys()
    assert seen


def test_linked_arrays_go_as_linked_blocks() -> None:
    planner = GraphPlanner(random.Random(3), failing=0.2, linked=True)
    writer = ChunkWriter(7)
    templates: list[bytes] = []
    values: dict[int, bytes] = {}
    seen = several = 0
    for _ in range(10):
        plan = planner.plan(30)
        evaluate(plan, values)
        tasks = {task.number: task for task in plan.all_tasks()}
        before = set(values) - set(plan.objects()) | plan.constants.keys()
        for message in writer.messages(plan):
            templates += message.templates
            if not isinstance(message, SubmitBlock):
                before.update(message.outputs)
                continue
            assert message.link
            assert set(message.inputs) <= before
            assert 0 < len(message.arg_sizes) <= 60
            for member in members(message):
                planned = tasks[member.task]
                assert (member.output,) == planned.outputs
                assert tuple(member.inputs) == planned.inputs
                assert planned.name.encode() in templates[member.template]
                assert member.is_kept == (member.output in plan.kept)
                before.add(member.output)
                seen += 1
            several += len({tasks[member.task].name for member in members(message)}) > 1
    assert seen > 100
    assert several
