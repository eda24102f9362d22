"""Measures one workload on one system in this process, and prints the figures as JSON on stdout.

    python -m benchmarks.measure SYSTEM WORKLOAD SIZE [SECONDS]

With SECONDS, SIZE is made so much smaller that a slow system takes about that long.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import processes, systems, workloads
from benchmarks.sizes import fitting

if TYPE_CHECKING:
    from benchmarks.workloads import Workload

SETTLING_SECONDS = 2.0
"""After the first result, before a cluster counts as idle."""
IDLE_SECONDS = 3.0


def measure_start(system: systems.System, workload: Workload, size: int, start: float) -> dict[str, Any]:
    """The workload right after the start, which began at `start`; then some time of idleness."""
    metrics = workload.measure(system, size)
    metrics["seconds"] = time.perf_counter() - start
    time.sleep(SETTLING_SECONDS)
    before = processes.cpu(system.role)
    time.sleep(IDLE_SECONDS)
    cpu = processes.growth(processes.cpu(system.role), before)
    metrics["idle_cpu_percent"] = 100 * sum(cpu.values()) / IDLE_SECONDS
    return {"size": size, "metrics": metrics, "cpu_seconds": cpu, "peak_bytes": processes.peak(system.role)}


def measure_warm(system: systems.System, workload: Workload, size: int, seconds: float | None) -> dict[str, Any]:
    """The workload on a system that has run something before."""
    workloads.warm_up(system)
    if seconds is not None and workload.smallest:
        size = fitting(lambda part: workload.measure(system, part), workload.smallest, size, seconds)
    processes.reset_peak()
    before = processes.cpu(system.role)
    metrics = workload.measure(system, size)
    cpu = processes.growth(processes.cpu(system.role), before)
    return {"size": size, "metrics": metrics, "cpu_seconds": cpu, "peak_bytes": processes.peak(system.role)}


def measure(system_name: str, workload_name: str, size: int, seconds: float | None = None) -> dict[str, Any]:
    """Start the system, run the workload, end the system."""
    workload = workloads.WORKLOADS[workload_name]
    start = time.perf_counter()
    system = systems.start(system_name)
    try:
        if workload.measures_start:
            figures = measure_start(system, workload, size, start)
        else:
            figures = measure_warm(system, workload, size, seconds)
    finally:
        system.close()
    return {"system": system_name, "version": system.version, **figures}


if __name__ == "__main__":
    name, what, largest, *limit = sys.argv[1:]
    # The systems' own output must not get in between.
    print(json.dumps(measure(name, what, int(largest), float(limit[0]) if limit else None)), flush=True)
