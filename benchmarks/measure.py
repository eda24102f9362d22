"""Measures one workload on one system in this process, and prints the figures as JSON on stdout.

    python -m benchmarks.measure SYSTEM WORKLOAD SIZE
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import psutil

from benchmarks import systems, workloads

IDLE_SECONDS = 3.0


def cpu_by_role(system: systems.System) -> dict[str, float]:
    """Cpu seconds spent so far by this process (`client`) and its descendants, by role."""
    seconds: dict[str, float] = {}
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            role = "client" if process == own else system.role(" ".join(process.cmdline()))
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[role] = seconds.get(role, 0.0) + times.user + times.system
    return seconds


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Cpu seconds spent between two calls of `cpu_by_role`."""
    return {role: round(seconds - before.get(role, 0.0), 3) for role, seconds in after.items()}


def measure(system_name: str, workload_name: str, size: int) -> dict[str, Any]:
    """Start the system, run the workload, end the system."""
    workload = workloads.WORKLOADS[workload_name]
    start = time.perf_counter()
    system = systems.start(system_name)
    try:
        if workload.measures_start:
            metrics = workload.measure(system, size)
            metrics["seconds"] = time.perf_counter() - start
            before = cpu_by_role(system)
            time.sleep(IDLE_SECONDS)
            cpu = difference(cpu_by_role(system), before)
            metrics["idle_cpu_percent"] = 100 * sum(cpu.values()) / IDLE_SECONDS
        else:
            workloads.warm_up(system)
            before = cpu_by_role(system)
            metrics = workload.measure(system, size)
            cpu = difference(cpu_by_role(system), before)
    finally:
        system.close()
    return {"system": system_name, "version": system.version, "size": size, "metrics": metrics, "cpu_seconds": cpu}


if __name__ == "__main__":
    # The systems' own output must not get in between.
    figures = measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(json.dumps(figures), flush=True)
