"""Measures the loop of the Python executor: microseconds of its time per trivial call, in batches of 128.

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
from typing import Any

import msgpack

from rain.common.comm import FrameReader, pack_frame
from rain.common.packing import cloud_dump, pack_args
from rain.executor.executor import Executor

BATCH = 128
IN_FLIGHT = 2


def add(a: int, b: int) -> int:
    """The trivial function."""
    return a + b


def make_frames(calls: int, plain: bool) -> list[bytes]:
    """Frames of calls, the first with template and function."""
    config = {"plain": True} if plain else {"encode_outputs": ["pickle"]}
    template: dict[str, Any] = {"config": config, "outputs": [{}]}
    function = add if plain else (lambda ctx, a, b: a + b)
    blob = cloud_dump(function)
    frames = []
    for start in range(0, calls, BATCH):
        rows = [[n + 100, 1, 0, pack_args([n, 2], {}), [10], [n + 10**6]] for n in range(start, start + BATCH)]
        first = start == 0
        message = ["calls", 1, [[0, template]] if first else [], [[10, None, None, blob]] if first else [], rows]
        frames.append(pack_frame(msgpack.packb(message)))
    return frames


def drive(connection: socket.socket, frames: list[bytes], calls: int, ready: threading.Event) -> None:
    """The worker's side: keep two batches in flight, count results, close at the end."""
    reader = FrameReader()
    ready.wait()
    done, sent = 0, 0
    while done < calls:
        while sent < len(frames) and sent * BATCH - done < IN_FLIGHT * BATCH:
            connection.sendall(frames[sent])
            sent += 1
        for payload in reader.feed(connection.recv(1 << 18)):
            message = msgpack.unpackb(payload)
            if message[0] == "results":
                done += len(message[1])
                assert all(len(row) == 6 for row in message[1]), message[1]
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)


def measure(calls: int, plain: bool) -> None:
    """Fork a driver; run the executor in this process and take its cpu time."""
    ours, theirs = socket.socketpair()
    frames = make_frames(calls, plain)
    if os.fork() == 0:
        ours.close()
        ready = threading.Event()
        ready.set()
        drive(theirs, frames, calls, ready)
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
    kind = "plain" if plain else "remote"
    print(f"{kind}: {1e6 * cpu / calls:.2f} us cpu, {1e6 * wall / calls:.2f} us wall per call ({calls} calls)")
    os.wait()


def main() -> None:
    """Measure both kinds of functions."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 128_000
    for plain in (True, True, False):
        measure(calls, plain)


if __name__ == "__main__":
    main()
