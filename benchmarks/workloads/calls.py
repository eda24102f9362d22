"""Workloads of tasks that do not depend on each other."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.functions import increment, nap
from benchmarks.workloads.base import SLOTS, Metrics, after, expect, fresh, rate, timed

if TYPE_CHECKING:
    from benchmarks.systems import System

NAP_SECONDS = 0.005


def trivial(system: System, size: int) -> Metrics:
    """Independent trivial tasks, all results fetched."""
    first = fresh()
    numbers = range(first, first + size)
    seconds, results = timed(system.map, increment, numbers)
    expect("results", results, after(numbers))
    return rate(size, seconds)


def latency(system: System, size: int) -> Metrics:
    """One task after the other, from the call to its result."""
    times = []
    first = fresh()
    for number in range(first, first + size):
        seconds, result = timed(system.call, increment, number)
        times.append(seconds * 1000)
        expect("result", result, number + 1)
    times.sort()
    return {"median_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)], "tasks": size}


def sleeps(system: System, size: int) -> Metrics:
    """Tasks that sleep: how much of the time the executors are asleep, as they should be."""
    naps = [NAP_SECONDS + fresh() * 1e-15 for _ in range(size)]
    seconds, results = timed(system.map, nap, naps)
    expect("results", results, naps)
    ideal = -(-size // SLOTS) * NAP_SECONDS
    if seconds < ideal:
        expect("tasks asleep at the same time", "more", f"at most {SLOTS}")
    return {**rate(size, seconds), "efficiency": ideal / seconds}


def programs(system: System, size: int) -> Metrics:
    """A program that does nothing, as a task each time."""
    before = processes_started()
    seconds, _ = timed(system.program, size)
    started = processes_started() - before
    if started < size:
        expect("processes started", started, f"at least {size}")
    return rate(size, seconds)


def startup(system: System, size: int) -> Metrics:
    """The first task of a new cluster; the time of the start is added by the caller."""
    expect("results", system.map(increment, [size]), [size + 1])
    return {}


def processes_started() -> int:
    """Processes (and threads) started on this machine so far."""
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        if line.startswith("processes "):
            return int(line.split()[1])
    raise OSError("/proc/stat has no line `processes`")
