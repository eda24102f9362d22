"""Runs workloads on several systems in turns, in fresh processes each time, and writes the figures to files."""

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
from typing import TYPE_CHECKING, Any

from benchmarks.systems import NAMES, SYSTEMS
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = ROOT / "benchmarks" / ".envs"
SECONDS_PER_MEASUREMENT = 300.0
FIGURES = '{"system": '
"""How the line with the figures begins; systems may print something as well."""
START_SECONDS = 1.5
"""A guess of what start and end of a system take."""
MAIN = (
    "rain", "rain_delayed", "rain_embedded", "rain_map", "frisky", "dask", "dask_best", "ray", "ppe", "ppe_chunked",
    "mp_pool",
)  # fmt: skip
"""The systems that are measured when there is little time."""
LEAST_SECONDS, MOST_SECONDS = 1.0, 15.0
"""Limits for the size of a measurement."""


class MeasurementFailed(Exception):
    """A measuring process failed or took too long."""


def interpreter(system: str) -> str:
    """The Python of a system: rivals have their own environments."""
    environment = SYSTEMS[system].environment
    if not environment:
        return sys.executable
    path = ENVIRONMENTS / environment / "bin" / "python"
    if not (ENVIRONMENTS / environment / ".installed").exists():
        raise MeasurementFailed(f"{system} is not installed; run `make bench-setup`")
    return str(path)


def installed(names: Sequence[str] = NAMES) -> list[str]:
    """Those of the systems that can be measured here."""
    found = []
    for name in names:
        with contextlib.suppress(MeasurementFailed):
            interpreter(name)
            found.append(name)
    return found


def measure(system: str, workload: str, size: int, seconds: float | None = None) -> dict[str, Any]:
    """Measure once, in a process group of its own that is gone afterwards.

    Args:
        system: its name.
        workload: its name.
        size: of the workload.
        seconds: a slow system gets a smaller size, so that it takes about so long; None: it does not.

    Raises:
        MeasurementFailed: it failed, with the end of its stderr.
    """
    limit = () if seconds is None else (str(seconds),)
    process = subprocess.Popen(
        [interpreter(system), "-m", "benchmarks.measure", system, workload, str(size), *limit],
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
    lines = [line for line in output.splitlines() if line.startswith(FIGURES)]
    if process.returncode or not lines:
        raise MeasurementFailed(f"{workload} on {system}: exit code {process.returncode}\n{errors[-2000:]}")
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def medians(runs: list[dict[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    """Per system the medians of all metrics, cpu seconds and peaks of memory, and the single values of one metric."""
    systems: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        systems.setdefault(run["system"], []).append(run)
    return {
        system: {
            "version": own[0]["version"],
            "about": SYSTEMS[system].about,
            "size": own[0]["size"],
            "values": [run["metrics"][metric] for run in own],
            **{part: _median_of(own, part) for part in ("metrics", "cpu_seconds", "peak_bytes")},
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


def machine() -> dict[str, Any]:
    """What the figures depend on, and how busy it is just now."""
    return {
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def turns_of(workload: str, repeat: int) -> int:
    """How often a workload is measured."""
    return 1 if WORKLOADS[workload].once else repeat


def take_turns(
    workload: str, systems: Sequence[str], repeat: int, size: int | None, seconds: float | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure; figures of all turns, and what the systems that failed had to say."""
    described = WORKLOADS[workload]
    runs: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    sizes: dict[str, int] = {}
    turns = turns_of(workload, repeat)
    for turn in range(turns):
        for system in systems:
            if system in failures:
                continue
            known = sizes.get(system, size)
            try:
                figures = measure(system, workload, known or described.size, seconds if known is None else None)
            except MeasurementFailed as error:
                failures[system] = str(error)
                print(error, file=sys.stderr, flush=True)
                continue
            sizes[system] = figures["size"]
            runs.append(figures)
            value = figures["metrics"][described.metric]
            line = f"{workload} {turn + 1}/{turns} {system}: {value:,.3f} {described.unit}"
            print(line, file=sys.stderr, flush=True)
    return runs, failures


def run(
    workload: str, systems: Sequence[str], repeat: int, size: int | None, seconds: float | None, folder: Path = RESULTS
) -> dict[str, Any]:
    """Measure `repeat` rounds of all systems in turns, and write the file of the workload.

    A system that fails is left out of further turns; what it said is in the file.

    Args:
        workload: a name of WORKLOADS.
        systems: names of benchmarks.systems.NAMES.
        repeat: number of rounds.
        size: instead of the workload's size.
        seconds: see `measure`; the first turn of a system decides on its size.
        folder: of the file.

    Returns:
        What is in the file.
    """
    described = WORKLOADS[workload]
    document: dict[str, Any] = {
        "workload": workload,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
    }
    runs, failures = take_turns(workload, systems, repeat, size, seconds)
    summary = medians(runs, described.metric)
    document |= {"medians": summary, "ratios": ratios(workload, summary), "failures": failures}
    folder.mkdir(parents=True, exist_ok=True)
    path_of(workload, folder).write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return document


def path_of(workload: str, folder: Path) -> Path:
    """The file with the last figures of a workload."""
    return folder / f"workload-{workload}.json"


def run_all(
    names: Sequence[str],
    repeat: int,
    minutes: float,
    *,
    asked: Sequence[str] | None = None,
    main: bool = False,
    size: int | None = None,
    folder: Path = RESULTS,
) -> bool:
    """Measure several workloads in about the time given.

    Args:
        names: of the workloads.
        repeat: number of rounds.
        minutes: for all; systems that are slow get smaller sizes for it.
        asked: names of systems; None: those that are installed.
        main: of those, only the ones in MAIN.
        size: instead of the workloads' sizes.
        folder: of the files.

    Returns:
        Whether all measurements went well.
    """
    plan = {name: suitable(name, asked, main=main) for name in names}
    count = sum(turns_of(name, repeat) * len(systems) for name, systems in plan.items())
    each = min(MOST_SECONDS, max(LEAST_SECONDS, minutes * 60 / max(count, 1) - START_SECONDS))
    print(f"{count} measurements, slow ones of about {each:.1f} s", file=sys.stderr, flush=True)
    well = True
    for name, systems in plan.items():
        if systems:
            well = not run(name, systems, repeat, size, each, folder)["failures"] and well
    return well


def suitable(workload: str, asked: Sequence[str] | None, *, main: bool = False) -> list[str]:
    """Names of the systems to measure with a workload."""
    described = WORKLOADS[workload]
    if asked is not None:
        return [name for name in asked if described.suits(name)]
    names = installed(MAIN if main else NAMES)
    return [name for name in names if described.suits(name) and (not described.unasked or name in described.unasked)]
