"""Runs a workload on several systems in turns, in fresh processes each time, and writes the figures to a file."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = ROOT / "benchmarks" / ".envs"
SECONDS_PER_MEASUREMENT = 300.0


class MeasurementFailed(Exception):
    """A measuring process failed or took too long."""


def interpreter(system: str) -> str:
    """The Python of a system: Rain's and the standard library's is this one, rivals have their own."""
    if system in ("rain", "ppe"):
        return sys.executable
    path = ENVIRONMENTS / system / "bin" / "python"
    if not path.exists():
        raise MeasurementFailed(f"{system} is not installed; run `make bench-setup`")
    return str(path)


def measure(system: str, workload: str, size: int) -> dict[str, Any]:
    """Measure once, in a process group of its own that is gone afterwards.

    Raises:
        MeasurementFailed: it failed, with the end of its stderr.
    """
    process = subprocess.Popen(
        [interpreter(system), "-m", "benchmarks.measure", system, workload, str(size)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAIN_LOG": "warn"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=SECONDS_PER_MEASUREMENT)
    except subprocess.TimeoutExpired:
        raise MeasurementFailed(f"{workload} on {system}: no result in {SECONDS_PER_MEASUREMENT:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode or not output.strip():
        raise MeasurementFailed(f"{workload} on {system}: exit code {process.returncode}\n{errors[-2000:]}")
    figures: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return figures


def medians(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per system the medians of all metrics, cpu seconds and, per task, cpu microseconds."""
    systems: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        systems.setdefault(run["system"], []).append(run)
    return {
        system: {
            "version": own[0]["version"],
            "size": own[0]["size"],
            "runs": len(own),
            "metrics": _median_of(own, "metrics"),
            "cpu_seconds": _median_of(own, "cpu_seconds"),
        }
        for system, own in systems.items()
    }


def _median_of(runs: list[dict[str, Any]], part: str) -> dict[str, float]:
    names = sorted({name for run in runs for name in run[part]})
    return {name: statistics.median(run[part].get(name, 0.0) for run in runs) for name in names}


def ratios(workload: str, summary: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times better Rain is than each rival (below 1: worse)."""
    described = WORKLOADS[workload]
    values = {system: entry["metrics"][described.metric] for system, entry in summary.items()}
    rain = values.pop("rain", None)
    if rain is None:
        return {}
    return {
        system: round(rain / value if described.more_is_better else value / rain, 2)
        for system, value in values.items()
    }


def run(workload: str, systems: list[str], repeat: int, size: int | None) -> Path:
    """Measure `repeat` rounds of all systems in turns.

    Args:
        workload: a name of WORKLOADS.
        systems: names of benchmarks.systems.NAMES.
        repeat: number of rounds.
        size: instead of the workload's sizes.

    Returns:
        The file with the figures.

    Raises:
        MeasurementFailed: see `measure`.
    """
    described = WORKLOADS[workload]
    load = os.getloadavg()[0]
    runs = []
    for turn in range(repeat):
        for system in systems:
            figures = measure(system, workload, size or described.size_for(system))
            runs.append(figures)
            value = figures["metrics"][described.metric]
            line = f"{workload} {turn + 1}/{repeat} {system}: {value:,.3f} {described.unit}"
            print(line, file=sys.stderr, flush=True)
    summary = medians(runs)
    document = {
        "workload": workload,
        "code": described.code,
        "about": described.about,
        "metric": described.metric,
        "unit": described.unit,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cpus": os.cpu_count(),
            "load_before": load,
            "python": platform.python_version(),
            "kernel": platform.release(),
        },
        "repeat": repeat,
        "medians": summary,
        "ratios": ratios(workload, summary),
        "runs": runs,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{workload}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return path
