"""Memory of waiting and finished tasks, per task: `python -m benchmarks.memory [N]`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import psutil

from rain.client import LocalCluster, blob, remote, tasks


@remote()
def small(ctx: Any, number: int, gate: Any) -> bytes:
    """A trivial function."""
    return b"x"


def main() -> None:
    """Submit N tasks that wait for one sleeping task, measure, let them run, measure again."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with LocalCluster(1, cpus=2) as cluster, cluster.client() as client, client.new_session() as session:
        children = psutil.Process().children()
        processes = {"client": psutil.Process()}
        for process in children:
            command = process.cmdline()
            for name in ("server", "worker"):
                if name in command:
                    processes[name] = process

        def resident() -> dict[str, int]:
            return {name: process.memory_info().rss for name, process in processes.items()}

        gate = tasks.sleep(max(3.0, count / 15_000), blob("x"))
        before = resident()
        made = [small(number, gate) for number in range(count)]
        session.keep_all()
        begin = time.perf_counter()
        session.submit()
        submitted = time.perf_counter() - begin
        waiting = resident()
        begin = time.perf_counter()
        session.wait_all()
        ran = time.perf_counter() - begin
        finished = resident()
        made[-1].output.fetch()
        print(
            json.dumps(
                {
                    "tasks": count,
                    "waiting, bytes per task": {n: round((waiting[n] - before[n]) / count) for n in before},
                    "finished and kept, bytes per task": {n: round((finished[n] - before[n]) / count) for n in before},
                    "submit, seconds": round(submitted, 2),
                    "wait, seconds": round(ran, 2),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
