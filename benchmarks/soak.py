"""Long runs: one cluster, graphs of random shapes for minutes, every result checked, memory watched."""

from __future__ import annotations

import random
import sys
import time

import psutil

from benchmarks import systems, workloads

MAX_GROWTH = 256 << 20
WARM_UP_ROUNDS = 10
REPORT_SECONDS = 30.0


def memory() -> int:
    """Resident bytes of this process and its descendants; shared pages count in each."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def soak(minutes: float, seed: int) -> bool:
    """Run rounds until the time is over.

    Returns:
        False when the processes together grew by more than MAX_GROWTH after the first rounds.

    Raises:
        WrongResult: a result was wrong.
    """
    numbers = random.Random(seed)
    system = systems.start("rain")
    shapes = (workloads.trivial, workloads.tree, workloads.chains, workloads.chain)
    rounds = tasks = base = 0
    try:
        end = time.monotonic() + 60 * minutes
        due = time.monotonic() + REPORT_SECONDS
        while time.monotonic() < end:
            metrics = numbers.choice(shapes)(system, numbers.randrange(workloads.CHAINS, 5000))
            rounds += 1
            tasks += int(metrics["tasks"])
            if rounds == WARM_UP_ROUNDS:
                base = memory()
            if time.monotonic() >= due:
                due += REPORT_SECONDS
                print(f"{rounds} rounds, {tasks} tasks, {memory() >> 20} MiB", file=sys.stderr, flush=True)
        growth = memory() - base if base else 0
    finally:
        system.close()
    print(f"{rounds} rounds, {tasks} tasks, seed {seed}, memory grew by {growth >> 20} MiB")
    return growth <= MAX_GROWTH
