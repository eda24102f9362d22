"""Measures the loop of the Python executor: microseconds of its time per trivial call, in batches of 128 and in blocks.

Run: python benchmarks/executor_loop.py [CALLS]
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from rain.client.embedding import reference_pickle
from rain.common.blocks import BlockResult, joined
from rain.common.comm import FrameReader, pack_frame
from rain.common.links import Link, pack_assigned
from rain.common.packing import PickledValue, cloud_dump, pack_args
from rain.executor.executor import Executor, tune_collector

BATCH = 128
MEMBERS = 20_000
LINKED = 2000
IN_FLIGHT = 2
FUNCTION = 10


def add(a: int, b: int) -> int:
    """The trivial function of a call."""
    return a + b


def increment(a: int) -> int:
    """The trivial function of a member of a block."""
    return a + 1


@dataclass
class Work:
    """What is sent: frames of so many calls or members each, and how results are counted."""

    name: str
    frames: list[bytes]
    each: int
    count: Callable[[list[Any]], int]

    @property
    def total(self) -> int:
        """Calls or members in all."""
        return len(self.frames) * self.each


def make_calls(calls: int, plain: bool) -> Work:
    """Frames of calls, the first with template and function."""
    config = {"plain": True} if plain else {"encode_outputs": ["pickle"]}
    function = add if plain else (lambda ctx, a, b: a + b)
    frames = []
    for start in range(0, calls, BATCH):
        rows = [
            [n + 100, 1, 0, pack_args([n, 2], {}), [FUNCTION], [n + 10**6], None] for n in range(start, start + BATCH)
        ]
        frames.append(_frame("calls", config, function, rows, first=start == 0))
    return Work("plain" if plain else "remote", frames, BATCH, _count_calls)


def make_blocks(calls: int) -> Work:
    """Frames of blocks, the first with template and function."""
    frames = []
    for start in range(0, calls, MEMBERS):
        args = joined(MEMBERS, b"".join([pack_args([n], {}) for n in range(start, start + MEMBERS)]))
        row = [start + 100, 1, 0, args, [FUNCTION], start + 10**6, MEMBERS, None]
        frames.append(_frame("block", {"plain": True}, increment, row, first=start == 0))
    return Work("block", frames, MEMBERS, _count_members)


def make_linked(calls: int, function: Callable[..., Any]) -> Work:
    """Frames of linked blocks, the first with template and function. Each member uses those before it; the last value
    is wanted."""
    arity = function.__code__.co_argcount
    references = array("H", [0] * arity)
    for n in range(arity, LINKED):
        references.extend([0, *range(n + 1 - arity, n + 1)])
    link = Link([0], b"", bytes([1] * arity + [arity + 1] * (LINKED - arity)), references, 1)
    assigned = pack_assigned(link.pack(), bytes(LINKED - 1) + b"\1")
    used = [PickledValue(reference_pickle(f"{{{n}}}", n + 1, None, None)) for n in range(arity)]
    args = pack_args([0] * arity, {}) * arity + pack_args(used, {}) * (LINKED - arity)
    frames = []
    for start in range(0, calls, LINKED):
        row = [start + 100, 1, 0, joined(LINKED, args), [FUNCTION], start + 10**6, LINKED, assigned]
        frames.append(_frame("block", {"plain": True}, function, row, first=start == 0))
    return Work(f"linked {function.__name__}", frames, LINKED, _count_members)


def _frame(name: str, config: dict[str, Any], function: Callable[..., Any], data: list[Any], *, first: bool) -> bytes:
    template = {"config": config, "outputs": [{}]}
    templates = [[0, template]] if first else []
    objects = [[FUNCTION, None, None, cloud_dump(function)]] if first else []
    return pack_frame(msgpack.packb([name, 1, templates, objects, data]))


def _count_calls(rows: list[Any]) -> int:
    assert all(len(row) == 6 for row in rows), rows
    return len(rows)


def _count_members(rows: list[Any]) -> int:
    results = [BlockResult.unpack(row[6]) for row in rows]
    assert all(result.end is None for result in results), [result.end for result in results]
    return sum(result.done for result in results)


def drive(connection: socket.socket, work: Work, ready: threading.Event) -> None:
    """The worker's side: keep two batches in flight, count results, close at the end."""
    reader = FrameReader()
    ready.wait()
    done, sent = 0, 0
    while done < work.total:
        while sent < len(work.frames) and sent * work.each - done < IN_FLIGHT * work.each:
            connection.sendall(work.frames[sent])
            sent += 1
        for payload in reader.feed(connection.recv(1 << 18)):
            message = msgpack.unpackb(payload)
            if message[0] == "results":
                done += work.count(message[1])
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)


def measure(work: Work) -> float:
    """Fork a driver; run the executor in this process; returns its cpu time per call in microseconds."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        ready = threading.Event()
        ready.set()
        drive(theirs, work, ready)
        os._exit(0)
    theirs.close()
    with tempfile.TemporaryDirectory() as root:
        executor = Executor(ours, root)
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        executor._channel.start_watch = lambda: None  # type: ignore[method-assign]  # the end is no accident here
        executor.run()
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
        os.chdir("/")
    ours.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    calls = work.total
    print(f"{work.name}: {1e6 * cpu / calls:.2f} us cpu, {1e6 * wall / calls:.2f} us wall per call ({calls} calls)")
    os.wait()
    return 1e6 * cpu / calls


def bare(calls: int) -> float:
    """Microseconds of cpu per bare call of the function of a block, in a loop over argument tuples."""
    arguments = [(n,) for n in range(MEMBERS)]
    start = time.process_time()
    for _ in range(calls // MEMBERS):
        for positional in arguments:
            increment(*positional)
    return 1e6 * (time.process_time() - start) / (calls // MEMBERS * MEMBERS)


def main() -> None:
    """Measure both kinds of functions, blocks and linked blocks."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 128_000
    tune_collector()
    for plain in (True, True, False):
        measure(make_calls(calls, plain))
    members = max(calls, 10 * MEMBERS)
    alone = bare(members)
    above = min(measure(make_blocks(members)) for _ in range(3)) - alone
    print(f"block: {above:.2f} us cpu per member above the bare call, which takes {alone:.2f} us")
    for function in (increment, add):
        for _ in range(3):
            measure(make_linked(members, function))


if __name__ == "__main__":
    main()
