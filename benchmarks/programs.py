"""Programs per second: a plain loop of posix_spawn and wait, the worker's built-in, and a whole cluster.

    python -m benchmarks.programs [--programs 1000] [--cpus 2] [--repeat 3]

The program is /bin/true. The plain loop does nothing else: no directory, no logs, no outputs, no supervision; one
process at a time, and as many at a time as there are cpus. Prints one JSON line per way with the best of the repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack

from rain.client import LocalCluster, Task
from rain.process.guard import Guard
from rain.worker.builtins import Builtins
from rain.worker.core.actions import Run
from rain.worker.core.events import RunResult, RunsEnded, WorkerEvent
from rain.worker.store import Store
from rain.worker.task_logs import TaskLogs

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "/bin/true"
CONFIG = {"args": [PROGRAM], "in_paths": [], "out_paths": [], "shell": False}


def plain_loop(programs: int, at_once: int) -> float:
    """Seconds for so many programs without Rain."""
    environment = dict(os.environ)
    start = time.perf_counter()
    running = 0
    for _ in range(programs):
        if running == at_once:
            os.wait()
            running -= 1
        os.posix_spawn(PROGRAM, [PROGRAM], environment)
        running += 1
    for _ in range(running):
        os.wait()
    return time.perf_counter() - start


def builtin(programs: int, cpus: int) -> float:
    """Seconds for so many programs by the worker's part that runs them, `cpus` at a time."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("data", "tmp"):
            Path(directory, name).mkdir()
        store = Store(f"{directory}/data")
        guard = Guard()
        try:
            return asyncio.run(_builtin(programs, cpus, store, guard, f"{directory}/tmp"))
        finally:
            store.close()
            guard.close()


async def _builtin(programs: int, cpus: int, store: Store, guard: Guard, sandboxes: str) -> float:
    loop = asyncio.get_running_loop()
    all_done = loop.create_future()
    template = {"task_type": "buildin/run"}
    config = msgpack.packb(CONFIG)
    started, ended = 0, 0

    def start_next() -> None:
        nonlocal started
        if started < programs:
            started += 1
            builtins.run(Run((1, started, 1), 0, template, config, (), ()))

    def report(event: WorkerEvent) -> None:
        nonlocal ended
        assert isinstance(event, RunsEnded)
        assert isinstance(event.results[0], RunResult), event
        ended += 1
        if ended == programs:
            all_done.set_result(None)
        loop.call_soon(start_next)

    builtins = Builtins(
        loop=loop,
        store=store,
        task_logs=TaskLogs(f"{sandboxes}-log"),
        report=report,
        wall_clock=time.time,
        sandboxes=sandboxes,
        guard=guard,
    )
    begin = time.perf_counter()
    for _ in range(cpus):
        start_next()
    await all_done
    seconds = time.perf_counter() - begin
    await builtins.close()
    return seconds


def cluster(programs: int, cpus: int) -> float:
    """Seconds from submit to the end of the wait, one worker."""
    with LocalCluster(1, cpus=cpus) as local, local.client() as client, client.new_session() as session:
        Task("buildin/run", CONFIG)
        session.submit()
        session.wait_all()
        for _ in range(programs):
            Task("buildin/run", CONFIG)
        begin = time.perf_counter()
        session.submit()
        session.wait_all()
        return time.perf_counter() - begin


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    count, cpus = options.programs, options.cpus
    ways: dict[str, Callable[[], float]] = {
        "plain loop, one at a time": lambda: plain_loop(count, 1),
        f"plain loop, {cpus} at a time": lambda: plain_loop(count, cpus),
        f"worker's built-in, {cpus} at a time": lambda: builtin(count, cpus),
        f"cluster, {cpus} cpus": lambda: cluster(count, cpus),
    }
    best: dict[str, float] = {}
    for _ in range(options.repeat):
        for name, way in ways.items():
            best[name] = min(best.get(name, float("inf")), way())
    for name, seconds in best.items():
        print(json.dumps({"way": name, "programs": count, "per_second": round(count / seconds)}))


if __name__ == "__main__":
    main()
