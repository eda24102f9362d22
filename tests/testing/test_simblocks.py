"""Blocks of a simulated executor give what ordinary runs of their members would give."""

from __future__ import annotations

import random
from array import array

import pytest

from rain.common.blocks import FULL, LATE, STORED, BlockResult, joined
from rain.common.links import Link, pack_assigned
from rain.testing.graphs import LARGE, PlannedTask, output_value
from rain.testing.simblocks import SimBlock
from rain.worker.core.actions import Run, RunInput, RunLink

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


def linked(*tasks: PlannedTask, wanted: bytes, rng: random.Random | None = None) -> SimBlock:
    """Four members; each but the first uses the one before, the third the input of the block too."""
    link = Link([0], b"", bytes([1, 2, 3, 2]), array("H", [0, 0, 2, 0, 3, 1, 0, 4]), 2).pack()
    args = joined(len(tasks), b"".join(task.args() for task in tasks))
    inputs = tuple(RunInput((1, number), None, None, False) for number in (8, 9))
    packed = RunLink(pack_assigned(link, wanted), [(0, {})], b"")
    run = Run((1, 20, 3), 0, {}, args, inputs, (10,), members=len(tasks), link=packed)
    return SimBlock(run, [b"function", b"input"], rng or Never())


def linked_values() -> list[bytes]:
    """What the members give as ordinary tasks."""
    values: list[bytes] = []
    for position, more in enumerate([[], [], [b"input"], []]):
        inputs = [b"function", *values[-1:], *more]
        values.append(output_value(20 + position, 0, 5, inputs))
    return values


def reported(simulated: SimBlock) -> tuple[list[bytes], object]:
    result = BlockResult.unpack(simulated.result().block.packed)
    starts = [sum(result.sizes[:position]) for position in range(result.done)]
    return [result.value(position, start) for position, start in enumerate(starts)], result.end


def test_members_of_linked_blocks_use_those_before_them():
    simulated = linked(*(task(n) for n in range(4)), wanted=b"\1\1\1\1")
    run_through(simulated)
    assert reported(simulated) == (linked_values(), None)


def test_only_what_is_wanted_is_reported():
    simulated = linked(*(task(n) for n in range(4)), wanted=b"\0\1\0\0")
    run_through(simulated)
    assert reported(simulated) == ([b"", linked_values()[1], b"", b""], None)


def test_what_the_rest_of_a_linked_block_needs_is_reported():
    simulated = linked(*(task(n) for n in range(4)), wanted=b"\0\0\0\0")
    run_through(simulated, fails_at=2)
    values, end = reported(simulated)
    assert values == [b"", linked_values()[1]]
    assert end["task"] == 22


def test_a_stored_member_of_a_linked_block_counts_as_the_rest():
    simulated = linked(task(0), task(1), task(2, LARGE), task(3), wanted=b"\0\0\0\0")
    ((key, value),) = run_through(simulated).items()
    assert reported(simulated) == ([b"", linked_values()[1]], STORED)
    assert (key, value[:5]) == ((1, 12), linked_values()[2])
