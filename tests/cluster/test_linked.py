"""Graphs of tiny calls, which travel as linked blocks, with real processes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rain.client import Client, TaskException, delayed, gather, remote
from rain.executor.context import get_context

LEAVES = 300


@delayed
def increment(number: int) -> int:
    return number + 1


@delayed
def add(one: int, other: int) -> int:
    return one + other


@delayed
def append(items: list[int], item: int) -> list[int]:
    items.append(item)
    return items


@delayed
def where(_before: Any) -> tuple[int, int]:
    return os.getpid(), get_context().spec.id.id


def tree(level: list[Any], join: Any) -> Any:
    while len(level) > 1:
        rest = [level[-1]] if len(level) % 2 else []
        level = [join(*pair) for pair in zip(level[::2], level[1::2], strict=False)] + rest
    return level[0]


def test_a_tree(client: Client) -> None:
    with client.new_session():
        assert tree([increment(n) for n in range(LEAVES)], add).result() == LEAVES * (LEAVES + 1) // 2


def test_a_tree_of_remote_functions(client: Client) -> None:
    leaf = remote(lambda ctx, n: n, auto_encode="pickle5", name="leaf")
    join = remote(lambda ctx, a, b: a + b, auto_load=True, auto_encode="pickle5", name="join")
    with client.new_session():
        assert tree([leaf(n) for n in range(LEAVES)], join).result() == LEAVES * (LEAVES - 1) // 2


def test_chains_whose_results_are_all_wanted(client: Client) -> None:
    with client.new_session():
        calls = [increment(0)]
        for _ in range(2 * LEAVES):
            calls.append(increment(calls[-1]))
        assert gather(calls) == list(range(1, 2 * LEAVES + 2))


def test_calls_do_not_see_what_others_do_with_a_result(client: Client) -> None:
    start = delayed(lambda: [0])
    with client.new_session():
        first = start()
        ends = [append(first, n) for n in range(LEAVES)]
        assert gather([append(end, 7) for end in ends]) == [[0, n, 7] for n in range(LEAVES)]
        assert first.result() == [0]


def test_each_call_has_an_id_of_its_own(client: Client) -> None:
    with client.new_session():
        calls = [where(None)]
        for _ in range(LEAVES):
            calls.append(where(calls[-1]))
        found = gather(calls)
        assert [number for _, number in found] == [call.id.id for call in calls]
        assert os.getpid() not in {pid for pid, _ in found}


def test_the_call_to_blame_is_named_and_the_others_go_on(client: Client) -> None:
    invert = delayed(lambda n: 1 // (n - 150), name="invert")
    with client.new_session(on_failure="continue") as session:
        inverted = [invert(increment(n)) for n in range(LEAVES)]
        session.submit()
        for n, call in enumerate(inverted):
            if n == 149:
                with pytest.raises(TaskException, match="ZeroDivisionError") as raised:
                    call.result()
                assert str(call.id) in str(raised.value)
                assert "test_linked.py" in str(raised.value)
            else:
                assert call.result() == 1 // (n - 149)
