"""The members of blocks, one after the other; those of linked ones: `linked`."""

from __future__ import annotations

import time
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from rain.common.blocks import FULL, LATE
from rain.common.number_arguments import read_marked
from rain.executor.blocks import BLOCK_BYTES, BLOCK_SECONDS, LARGE_INT, QUICK, as_encoded, bare_types, unpack_members
from rain.executor.output import LONG
from rain.executor.results import PICKLE5_INFO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rain.executor.blocks import Gathered
    from rain.executor.executor import Executor
    from rain.executor.templates import Template


def run_members(
    executor: Executor, template: Template, function: Callable[..., Any], args: bytes, gathered: Gathered
) -> None:
    """Run the members in order until the block ends.

    Args:
        executor: runs them.
        template, function: theirs.
        args: their packed arguments.
        gathered: gets what they give.
    """
    numbers = read_marked(args)
    if numbers is not None and template.plain:
        _run_numbers(executor, template, function, iter(numbers), gathered)
        return
    call = function if template.plain else partial(_call_with_context, executor, function)
    _run(executor, template, call, unpack_members(args), gathered, time.monotonic())


def _call_with_context(executor: Executor, function: Callable[..., Any], *positional: Any, **keywords: Any) -> Any:
    return function(executor.context(), *positional, **keywords)


def _run_numbers(
    executor: Executor, template: Template, function: Callable[..., Any], numbers: Iterator[float], gathered: Gathered
) -> None:
    """Run members that get one number each. As long as their results are scalars there is little to look at, and next
    to nothing while these are all ints of 64 bits, or all floats, and the calls quick."""
    assert executor._row is not None
    task, run, output, scalars = executor._row[0], executor._row[1], executor.output, bare_types(template)
    add_duration, add_value = gathered.durations.append, gathered.values.append
    clock, quick, low, high = time.monotonic, QUICK, -LARGE_INT, LARGE_INT
    kind: type | None = None
    kinds: set[type] = set()
    between = 0.0  # members
    gathered.changes_to(PICKLE5_INFO)
    begin = start = end = clock()
    until = start + BLOCK_SECONDS
    try:
        for number in numbers:
            value = function(number)
            end = clock()
            duration, found = end - start, type(value)
            if (
                duration <= quick
                and found is kind
                and low < value < high
                and executor._context is None
                and not output.wrote
            ):
                add_value(value)
                add_duration(duration)
                start = end
                continue
            if found not in scalars or (found is int and not low < value < high) or executor._context is not None:
                break
            kinds.add(found)
            kind = found if found is int or found is float else None
            if output.wrote or duration > LONG:
                output.attribute(task + gathered.done, run)
            add_value(value)
            add_duration(duration)
            if duration > quick:
                if end > until:
                    gathered.end = LATE
                    break
                executor._tidy()
                start = clock()
                between += start - end
            else:
                start = end
        else:
            gathered.check_complete()
        if gathered.end == LATE or gathered.done == gathered.members:
            gathered.kinds, gathered.seconds = kinds, end - begin - between
            return
    except BaseException as error:  # as of members
        gathered.end_failed(executor._failure(error, task + gathered.done, run), start, clock())
        return
    made = [value]
    call = lambda number: made.pop() if made else function(number)  # noqa: E731
    arguments: Iterable[Any] = zip(zip(chain((number,), numbers)), repeat({}))
    _run(executor, template, call, arguments, gathered, start)


def _run(
    executor: Executor,
    template: Template,
    function: Callable[..., Any],
    arguments: Iterable[Any],
    gathered: Gathered,
    start: float,
) -> None:
    """Run members in order until the block ends, the first from `start` on, by the monotonic clock. `arguments`:
    `(positional, keywords)` of each. Each look at the clock ends one and starts the next."""
    assert executor._row is not None
    task, run, inputs, output = executor._row[0], executor._row[1], executor._row[4], executor.output
    directory, scalars = template.outputs[0].directory, bare_types(template)
    encode = executor._encoder.plain if template.plain else executor._encoder.returned
    add_duration, add_value = gathered.durations.append, gathered.values.append
    clock = time.monotonic
    data: Any
    info: bytes | None
    last_info: Any = ()
    total = 0
    until = start + BLOCK_SECONDS
    try:
        for positional, keywords in arguments:
            value = function(*positional, **keywords) if keywords else function(*positional)
            if (kind := type(value)) in scalars and (kind is not int or -LARGE_INT < value < LARGE_INT):
                data, info = value, PICKLE5_INFO
            else:
                placed, info, size = encode(template, value, inputs)[0]
                if type(placed) is not bytes or directory:
                    gathered.end_stored((placed, info, size), executor._task_info(), start, clock())
                    return
                data = placed
                total += size
            if executor._context is not None:
                if (told := executor._task_info()) is not None:
                    gathered.end_stored(as_encoded(data, info), told, start, clock())
                    return
                executor._context = None
            if info is not last_info:
                if not gathered.changes_to(info):
                    gathered.end_stored(as_encoded(data, info), None, start, clock())
                    return
                last_info = info
            add_value(data)
            end = clock()
            duration = end - start
            if output.wrote or duration > LONG:
                output.attribute(task + gathered.done, run)
            add_duration(duration)
            if duration > QUICK or total > BLOCK_BYTES:
                if end > until or total > BLOCK_BYTES:
                    gathered.end = FULL if total > BLOCK_BYTES else LATE
                    return
                executor._tidy()
                start = clock()
            else:
                start = end
        gathered.check_complete()
    except BaseException as error:  # exit() and the like fail the member, too
        gathered.end_failed(executor._failure(error, task + gathered.done, run), start, clock())
