"""Compares Rain's speed with that of an earlier day, each in units of what the machine did at that moment.

    python -m benchmarks check [--store]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import systems
from benchmarks.calibration import Calibration
from benchmarks.functions import increment
from benchmarks.runner import RESULTS, machine
from benchmarks.workloads import WORKLOADS, expect, warm_up
from benchmarks.workloads.base import rate, timed
from benchmarks.workloads.own import client_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.systems import System
    from benchmarks.workloads import Metrics

BASELINE = RESULTS / "baseline.json"
LIMIT = 1.25
"""So many times the stored cost is too much."""
TURNS = 7


def array_calls(system: System, size: int) -> Metrics:
    """Calls as one task array."""
    with client_of(system).new_session("array") as session:
        seconds, results = timed(lambda: session.map(increment, range(size)).result())
    expect("results", results, list(range(1, size + 1)))
    return rate(size, seconds)


PROBES = {
    "trivial": (WORKLOADS["trivial"].measure, 20_000, "loop"),
    "map": (array_calls, 300_000, "loop"),
    "latency": (WORKLOADS["latency"].measure, 400, "ping"),
    "tree": (WORKLOADS["tree"].measure, 10_000, "loop"),
    "chains": (WORKLOADS["chains"].measure, 20_000, "loop"),
    "programs": (WORKLOADS["programs"].measure, 500, "loop"),
}
"""By workload: what measures it, its size, and the kind of calibration it is compared with."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table.

    Attributes:
        name: of the workload.
        cost: units of the calibration per task.
        stored: the same in the baseline; None if it is not there.
    """

    name: str
    cost: float
    stored: float | None

    @property
    def times(self) -> float:
        """How many times the stored cost."""
        return self.cost / self.stored if self.stored else 1.0

    @property
    def is_regression(self) -> bool:
        """Whether that is too much."""
        return self.times > LIMIT

    @property
    def verdict(self) -> str:
        """In words."""
        if self.stored is None:
            return "new"
        if self.is_regression:
            return "SLOWER"
        return "faster: store a new baseline?" if self.times < 1 / LIMIT else "as before"


def seconds_per_task(metrics: Metrics) -> float:
    """Of a workload; of W2 the median."""
    return metrics["median_ms"] / 1000 if "median_ms" in metrics else metrics["seconds"] / metrics["tasks"]


def measure(system: System, calibration: Calibration, names: Iterable[str], turns: int) -> dict[str, float]:
    """Medians of the costs, by workload; each measurement has a calibration right before and after it."""
    costs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(turns):
        before = calibration.speeds()
        for name, found in costs.items():
            work, size, kind = PROBES[name]
            seconds = seconds_per_task(work(system, size))
            after = calibration.speeds()
            found.append(seconds * (before[kind] + after[kind]) / 2)
            before = after
    return {name: statistics.median(found) for name, found in costs.items()}


def compare(costs: dict[str, float], stored: dict[str, float]) -> list[Line]:
    """What is to be said about each workload."""
    return [Line(name, cost, stored.get(name)) for name, cost in costs.items()]


def table(lines: Sequence[Line]) -> str:
    """For people."""
    rows = [f"{'workload':<12}{'unit':<8}{'cost':>10}{'stored':>10}{'times':>8}  verdict"]
    for line in lines:
        stored = "" if line.stored is None else f"{line.stored:,.2f}"
        kind = PROBES[line.name][2]
        rows.append(f"{line.name:<12}{kind:<8}{line.cost:>10,.2f}{stored:>10}{line.times:>8.2f}  {line.verdict}")
    return "\n".join(rows)


def check(*, store: bool, path: Path = BASELINE, turns: int = TURNS) -> bool:
    """Measure, and compare or store. What seems slower is measured once more; the better figure counts.

    Args:
        store: write the baseline instead of comparing with it.
        path: of the baseline.
        turns: measurements of each workload.

    Returns:
        Whether nothing is slower than LIMIT allows.
    """
    if not store and not path.exists():
        print(f"There is no baseline at {path}; make one with `python -m benchmarks check --store`", file=sys.stderr)
        return False
    known: dict[str, Any] = {} if store else json.loads(path.read_text("utf-8"))
    now = machine()
    system = systems.start("rain")
    try:
        with Calibration() as calibration:
            warm_up(system)
            measure(system, calibration, PROBES, 1)
            costs = measure(system, calibration, PROBES, turns)
            lines = compare(costs, known.get("costs", {}))
            suspects = [line.name for line in lines if line.is_regression]
            if suspects:
                again = measure(system, calibration, suspects, turns)
                costs |= {name: min(cost, costs[name]) for name, cost in again.items()}
                lines = compare(costs, known["costs"])
            speeds = calibration.speeds()
    finally:
        system.close()
    print(table(lines))
    if store:
        document = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": now,
            "version": system.version,
            "speeds": {kind: round(speed) for kind, speed in speeds.items()},
            "costs": {name: round(cost, 4) for name, cost in costs.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        return True
    print(f"Baseline of {known['date'][:10]}; a cost is time per task in steps of the calibration named as unit.")
    differing = [name for name in ("cpus", "python") if known["machine"][name] != now[name]]
    if differing:
        print(f"The baseline is of another machine ({', '.join(differing)}): do not trust small differences.")
    return not any(line.is_regression for line in lines)
