"""A large task array: seconds of each step, cpu and memory of each process; writes them into a file.

    python -m benchmarks.arrays [--members N] [--cpus N] [--to FILE]

The array is submitted while another task has all cpus, so that what waits is measured by itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.functions import increment
from benchmarks.publishing import publish
from benchmarks.runner import machine
from benchmarks.workloads import expect
from rain.client import LocalCluster, blob, tasks

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1 << 20
ROLES = ("server", "worker")


def processes() -> dict[str, list[psutil.Process]]:
    """This process (`client`) and its descendants, by role; executors are children of the worker."""
    own = psutil.Process()
    found: dict[str, list[psutil.Process]] = {"client": [own]}
    for process in own.children(recursive=True):
        words = process.cmdline()
        role = next((role for role in ROLES if role in words), None)
        if role is None and any("rain.executor" in word for word in words):
            role = "executor"
        if role is not None:
            found.setdefault(role, []).append(process)
    return found


def resident() -> dict[str, int]:
    """Bytes of resident memory by role."""
    return {role: sum(one.memory_info().rss for one in some) for role, some in processes().items()}


def cpu_seconds() -> dict[str, float]:
    """Cpu seconds spent so far by role."""
    times = {role: [one.cpu_times() for one in some] for role, some in processes().items()}
    return {role: sum(one.user + one.system for one in some) for role, some in times.items()}


@dataclass
class Figures:
    """What was measured, in the order of the steps."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    resident_mebibytes: dict[str, dict[str, float]] = field(default_factory=dict)

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do something and note what it took and how much memory there is after it."""
        before, start = cpu_seconds(), time.perf_counter()
        result = work()
        self.seconds[name] = round(time.perf_counter() - start, 3)
        after = cpu_seconds()
        self.cpu_seconds[name] = {role: round(after[role] - before.get(role, 0.0), 3) for role in after}
        self.note_memory(name)
        return result

    def note_memory(self, name: str) -> None:
        """How much memory there is now."""
        self.resident_mebibytes[name] = {role: round(size / MEBIBYTE, 1) for role, size in resident().items()}


def measure(members: int, cpus: int) -> Figures:
    """Map, submit, run through, fetch, unkeep.

    Raises:
        WrongResult: a value is wrong.
    """
    figures = Figures()
    with LocalCluster(1, cpus=cpus) as cluster, cluster.client() as client, client.new_session() as session:
        expect("warm-up", session.map(increment, range(8)).result(), list(range(1, 9)))
        gate = tasks.sleep(3600, blob("x"), cpus=cpus)
        session.submit()
        figures.note_memory("before")
        array = figures.step("map", lambda: session.map(increment, range(members)))
        figures.step("submit", session.submit)
        assert gate.cancel()
        figures.step("run", array.wait)
        values = figures.step("fetch", array.result)
        expect("results", values, list(range(1, members + 1)))
        del values
        figures.step("counts", array.counts)
        figures.step("unkeep", array.unkeep)
    return figures


def main() -> int:
    """Measure, print, write a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--to", type=Path, help="the file; by default a new one in benchmarks/results")
    options = parser.parse_args()
    facts = machine()
    figures = measure(options.members, options.cpus)
    waiting, kept = (figures.resident_mebibytes[step]["server"] for step in ("submit", "fetch"))
    before = figures.resident_mebibytes["before"]["server"]
    document = {
        "members": options.members,
        "members_per_second": round(options.members / figures.seconds["run"]),
        "server_bytes_per_waiting_member": round((waiting - before) * MEBIBYTE / options.members, 1),
        "server_bytes_per_kept_result": round((kept - before) * MEBIBYTE / options.members, 1),
        "seconds": figures.seconds,
        "cpu_seconds": figures.cpu_seconds,
        "resident_mebibytes": figures.resident_mebibytes,
    }
    publish("arrays", facts, document, options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
