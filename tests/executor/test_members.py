"""Members that get one number each give what members with packed arguments give."""

import pickle

import pytest

from rain.common.blocks import LATE, STORED
from rain.common.content_type import decode_value
from rain.common.failure import Failure
from rain.common.number_arguments import number_arguments
from tests.executor.driver import plain, remote


def run(executor, function, numbers, template=None, marked=True):
    """The block with the numbers as a column, or as packed arguments."""
    executor.drop_function()
    packed = number_arguments(numbers).marked() if marked else None
    return executor.block(template or plain(), function, [(n,) for n in numbers], packed=packed)


def same(executor, function, numbers, template=None):
    """What the column gives, which is what packed arguments give."""
    block = run(executor, function, numbers, template)
    other = run(executor, function, numbers, template, marked=False)
    assert block.values == other.values
    assert [type(value) for value in block.values] == [type(value) for value in other.values]
    ends = [found.result.end["message"] if isinstance(found.result.end, dict) else found.result.end
            for found in (block, other)]  # fmt: skip
    assert ends[0] == ends[1]
    assert (block.row[7], block.result.column) == (other.row[7], other.result.column)
    return block


@pytest.mark.parametrize("numbers", [range(3000), [0.5, -1.5, 2.25], [-(1 << 63), (1 << 63) - 1]])
def test_numbers(executor, numbers):
    block = same(executor, lambda n: n, list(numbers))
    assert block.values == list(numbers)
    assert len(block.result.durations) == len(block.values)


@pytest.mark.parametrize(
    "function",
    [
        lambda n: n if n != 3 else [n],
        lambda n: [n] if n < 3 else n,
        lambda n: str(n),
        lambda n: n << 80,
        lambda n: n if n != 3 else 1 << 64,
        lambda n: n if n < 4 else float(n),
        lambda n: None if n % 2 else True,
        lambda n: bytes(70_000) if n == 3 else n,
    ],
)
def test_other_results(executor, function):
    same(executor, function, list(range(7)))


def test_a_large_result(executor):
    block = same(executor, lambda n: bytes(70_000) if n == 3 else n, list(range(7)))
    assert (block.result.end, block.values) == (STORED, [0, 1, 2])


@pytest.mark.parametrize("wrong", [0, 3, 6])
def test_a_failure(executor, wrong):
    def function(n):
        return 1 // (n - wrong)

    block = same(executor, function, list(range(7)))
    failure = Failure.from_map(block.result.end)
    assert (failure.task, block.row[7]) == (block.first + wrong, wrong + 1)
    assert type(pickle.loads(failure.exception)) is ZeroDivisionError
    assert block.result.start > 0.0


def test_each_member_runs_once(executor):
    def function(n):
        import builtins

        seen = builtins.__dict__.setdefault("_seen", [])
        seen.append(n)
        return [n] if n in (2, 5) else n

    assert run(executor, function, list(range(9))).result.done == 9
    block = executor.block(plain(), None, [(100,)])
    assert block.values == [100]
    executor.drop_function()
    ((data, _, _),) = executor.call(plain(), lambda: __import__("builtins").__dict__.pop("_seen"))[5]
    assert decode_value(data, "pickle5") == [*range(9), 100]


def test_the_sum_of_durations(executor):
    def function(n):
        import time

        if n == 2:
            time.sleep(0.01)
        return n

    result = run(executor, function, list(range(500))).result
    assert result.total() == result.seconds == pytest.approx(sum(result.durations), rel=1e-4)


def test_what_a_long_call_writes_past_the_streams(executor):
    def function(n):
        import os
        import time

        if n == 2:
            os.write(1, b"two")
            time.sleep(0.002)
        return n

    executor.wrote()
    block = run(executor, function, list(range(7)))
    assert block.values == list(range(7))
    assert [(task, out) for task, _, out, _ in executor.wrote() if out] == [(block.first + 2, b"two")]


def test_late(executor):
    def function(n):
        import time

        time.sleep(0.1)
        return n

    block = run(executor, function, list(range(9)))
    assert (block.result.end, block.values) == (LATE, [0, 1, 2])


def test_what_members_write_and_tell(executor):
    def function(n):
        from rain.executor.context import get_context

        if n == 2:
            print("two")
        if n == 4:
            get_context().info.user["four"] = 4
        return get_context().spec.id.id if n == 1 else n

    executor.wrote()
    block = run(executor, function, list(range(7)))
    assert (block.result.end, block.values) == (STORED, [0, block.first + 1, 2, 3])
    assert [(task, out) for task, _, out, _ in executor.wrote() if out] == [(block.first + 2, b"two\n")]


def test_directories_are_tidied_between_members(executor):
    def function(n):
        import os

        found = len(os.listdir("."))
        with open(f"file{n}", "w") as out:
            out.write("x")
        return found

    assert run(executor, function, list(range(5))).values == [0] * 5


def test_functions_with_context(executor):
    block = run(executor, lambda ctx, n: (ctx.spec.id.id, n), [7, 8], remote({}, encode=["pickle"]))
    assert block.values == [(block.first, 7), (block.first + 1, 8)]
