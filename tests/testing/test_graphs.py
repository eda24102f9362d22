import random

from rain.protocol.messages import INLINE, KEEP
from rain.testing.graphs import ChunkWriter, GraphPlanner, evaluate


def test_planned_graphs_are_valid_and_have_values() -> None:
    for seed in range(50):
        planner = GraphPlanner(random.Random(seed), max_cpus=3, failing=0.2)
        values: dict[int, bytes] = {}
        for _ in range(3):
            plan = planner.plan(10)
            for task in plan.tasks:
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
    chunks = [writer.write(first), writer.write(second)]
    packed = [template for chunk in chunks for template in chunk.templates]
    assert len(packed) == len(set(packed))
    assert max(chunks[1].task_templates) < len(packed)
    assert chunks[0].session == 7
    assert len(chunks[0].inputs) == sum(chunks[0].input_counts)
    assert all(flag & INLINE for flag in chunks[0].object_flags)
    kept = [n for n, flag in zip(chunks[0].outputs, chunks[0].output_flags, strict=True) if flag & KEEP]
    assert set(kept) == first.kept - first.constants.keys()
