"""Blocks of a simulated executor give what ordinary runs of their members would give."""

from __future__ import annotations

import random

import pytest

from rain.common.blocks import FULL, LATE, STORED, BlockResult, joined
from rain.testing.graphs import LARGE, PlannedTask, output_value
from rain.testing.simblocks import SimBlock
from rain.worker.core.actions import Run

INPUTS = [b"function"]


class Never(random.Random):
    """Chooses no early end."""

    def random(self) -> float:
        return 1.0


def block(*tasks: PlannedTask, rng: random.Random | None = None) -> SimBlock:
    args = joined(len(tasks), b"".join(task.args() for task in tasks))
    return SimBlock(Run((1, 20, 3), 0, {}, args, (), (10,), members=len(tasks)), INPUTS, rng or Never())


def task(position: int, size: int = 5, duration: float = 0.01) -> PlannedTask:
    return PlannedTask(20 + position, (9,), (10 + position,), (size,), duration=duration)


def run_through(simulated: SimBlock, fails_at: int = -1) -> dict[tuple[int, int], bytes]:
    stored, at, now = {}, 0, 100.0
    while not simulated.is_over:
        assert simulated.member.key == (1, 20 + at, 3)
        assert simulated.member.outputs == (10 + at,)
        stored.update(simulated.member_ends(simulated._args[at], at != fails_at, now))
        now += simulated._args[at]["duration"]
        at += 1
    return stored


def test_values_are_those_of_ordinary_runs():
    simulated = block(*(task(n) for n in range(4)))
    assert run_through(simulated) == {}
    ended = simulated.result()
    result = BlockResult.unpack(ended.block.packed)
    assert (result.done, result.end, ended.block.ran, ended.block.stored) == (4, None, 4, None)
    assert result.values == b"".join(output_value(20 + n, 0, 5, INPUTS) for n in range(4))
    assert (ended.key, ended.start, ended.outputs) == ((1, 20, 3), 100.0, [])
    assert ended.duration == pytest.approx(0.04)


def test_a_large_value_is_stored():
    simulated = block(task(0), task(1, LARGE), task(2))
    assert run_through(simulated) == {(1, 11): output_value(21, 0, LARGE, INPUTS)}
    ended = simulated.result()
    assert BlockResult.unpack(ended.block.packed).end == STORED
    assert (ended.block.ran, ended.block.stored, ended.outputs) == (2, 11, [(LARGE, None, None)])


def test_a_failure_names_its_member():
    simulated = block(*(task(n) for n in range(3)))
    run_through(simulated, fails_at=1)
    result = BlockResult.unpack(simulated.result().block.packed)
    assert (result.done, result.end["task"], simulated.result().block.ran) == (1, 21, 2)
    assert (result.start, result.duration) == (pytest.approx(100.01), 0.01)


def test_a_slow_member_makes_it_late():
    simulated = block(task(0), task(1, duration=0.3), task(2))
    run_through(simulated)
    result = BlockResult.unpack(simulated.result().block.packed)
    assert (result.done, result.end) == (2, LATE)


def test_early_ends_come_from_the_seed():
    ends = set()
    for seed in range(40):
        simulated = block(*(task(n, duration=0.0) for n in range(30)), rng=random.Random(seed))
        run_through(simulated)
        ends.add(BlockResult.unpack(simulated.result().block.packed).end)
    assert ends == {None, LATE, FULL, STORED}
