"""The order of ready tasks."""

from __future__ import annotations

import pytest

from rain.server.scheduler.queues import ReadyQueue, entry
from rain.server.scheduler.resources import Request, parse_request


@pytest.fixture
def queue() -> ReadyQueue:
    return ReadyQueue()


@pytest.fixture
def request_() -> Request:
    return parse_request({"cpus": 1})


def drained(queue: ReadyQueue, *, without: tuple[int, ...] = ()) -> list[int]:
    (best,) = queue.classes()
    taken = []
    while (packed := best.head(lambda one: one not in without)) is not None:
        taken.append(packed)
        best.pop()
    return taken


def test_deeper_ones_first_then_in_order(queue: ReadyQueue, request_: Request) -> None:
    for level, task in ((0, 10), (1, 11), (0, 12), (1, 13)):
        queue.push(0, request_, level, entry(0, task))
    assert drained(queue) == [11, 13, 10, 12]


def test_those_given_out_before_precede_their_level(queue: ReadyQueue, request_: Request) -> None:
    """Otherwise what was lost would be computed last, and all that waits for it would have to be kept meanwhile."""
    for level, task in ((0, 10), (1, 11), (0, 12)):
        queue.push(0, request_, level, entry(0, task))
    for task in (5, 4):
        queue.push(0, request_, 0, entry(0, task), again=True)
    assert drained(queue, without=(5,)) == [11, 4, 10, 12]


def test_sweeping_keeps_the_order(queue: ReadyQueue, request_: Request) -> None:
    for task in (10, 11, 12):
        queue.push(0, request_, 0, entry(0, task))
    for task in (5, 6, 7):
        queue.push(0, request_, 0, entry(0, task), again=True)
    (best,) = queue.classes()
    assert len(best) == 6
    assert sorted(best.entries()) == [5, 6, 7, 10, 11, 12]
    queue.compact(4, lambda packed: packed in (12, 6))
    assert len(best) == 2
    assert drained(queue) == [6, 12]
