"""The harness itself: runs in turns, files, and a system that fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import __main__, runner
from benchmarks.systems import SYSTEMS


def test_run(tmp_path):
    """A measurement in its own process ends in a file."""
    document = runner.run("trivial", ["ppe"], repeat=2, size=50, seconds=None, folder=tmp_path)
    assert json.loads(runner.path_of("trivial", tmp_path).read_text("utf-8")) == document
    entry = document["medians"]["ppe"]
    assert entry["metrics"]["tasks"] == entry["size"] == 50
    assert len(entry["values"]) == 2
    assert entry["peak_bytes"]["client"] > 5 << 20
    assert (document["ratios"], document["failures"]) == ({}, {})
    assert document["machine"]["cpus"] > 0


def test_a_measurement_that_breaks_says_why(tmp_path, monkeypatch):
    """The end of its stderr is in the error."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such thing' >&2\nexit 3\n", "utf-8")
    broken.chmod(0o700)
    monkeypatch.setattr(runner, "interpreter", lambda system: str(broken))
    with pytest.raises(runner.MeasurementFailed, match="trivial on ppe: exit code 3\nno such thing"):
        runner.measure("ppe", "trivial", 10)


def test_first_turn_decides_on_the_size(monkeypatch, tmp_path):
    """Systems take turns; a slow one gets the size it had the first time."""
    asked = []

    def measure(system, workload, size, seconds):
        asked.append((system, size, seconds))
        figures = {"metrics": {"tasks_per_second": 1.0}, "cpu_seconds": {}, "peak_bytes": {}}
        return {"system": system, "version": "1", "size": 70 if system == "dask" else size, **figures}

    monkeypatch.setattr(runner, "measure", measure)
    runner.run("trivial", ["rain", "dask"], repeat=2, size=None, seconds=2.0, folder=tmp_path)
    first = [("rain", 100_000, 2.0), ("dask", 100_000, 2.0)]
    assert asked == [*first, ("rain", 100_000, None), ("dask", 70, None)]


def test_a_system_that_fails_is_left_out(monkeypatch, tmp_path):
    """What it said is in the file, the others go on, and the run tells it."""

    def measure(system, workload, size, seconds):
        if system == "ppe":
            raise runner.MeasurementFailed("it broke")
        figures = {"metrics": {"tasks_per_second": 5.0}, "cpu_seconds": {}, "peak_bytes": {}}
        return {"system": system, "version": "1", "size": size, **figures}

    monkeypatch.setattr(runner, "measure", measure)
    assert not runner.run_all(["trivial"], 3, 1.0, asked=["ppe", "rain"], folder=tmp_path)
    document = json.loads(runner.path_of("trivial", tmp_path).read_text("utf-8"))
    assert document["failures"] == {"ppe": "it broke"}
    assert document["medians"]["rain"]["values"] == [5.0] * 3


def test_ratios_say_how_many_times_better_rain_is():
    """More tasks per second and fewer milliseconds are both better."""
    rates = {"rain": {"metrics": {"tasks_per_second": 200.0}}, "ppe": {"metrics": {"tasks_per_second": 100.0}}}
    assert runner.ratios("trivial", rates) == {"ppe": 2.0}
    times = {"rain": {"metrics": {"median_ms": 0.2}}, "dask": {"metrics": {"median_ms": 10.0}}}
    assert runner.ratios("latency", times) == {"dask": 50.0}


def test_missing_rival_is_told(tmp_path, monkeypatch):
    """The error says what to run; by default only those are measured that are there."""
    monkeypatch.setattr(runner, "ENVIRONMENTS", tmp_path)
    with pytest.raises(runner.MeasurementFailed, match="make bench-setup"):
        runner.measure("dask", "trivial", 1)
    assert runner.installed() == [name for name, entry in SYSTEMS.items() if not entry.environment]
    assert runner.suitable("million", None) == ["rain", "rain_delayed"]
    assert runner.suitable("million", ["ppe"]) == ["ppe"]
    assert set(runner.suitable("trivial", None, main=True)) < set(runner.suitable("trivial", None))
    assert set(runner.MAIN) <= set(SYSTEMS)


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_command_line(monkeypatch, tmp_path, well, code):
    """What is asked for gets through, and the exit code tells how it went."""
    asked = []

    def run_all(names, repeat, minutes, **options):
        asked.append((names, repeat, minutes, options))
        return well

    monkeypatch.setattr(runner, "run_all", run_all)
    words = ["run", "tree", "map", "--main", "--repeat", "2", "--minutes", "5", "--to", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    assert __main__.main() == code
    options = {"asked": None, "main": True, "size": None, "folder": tmp_path}
    assert asked == [(["tree", "map"], 2, 5.0, options)]


@pytest.mark.cluster
def test_large_array(tmp_path):
    """All steps of an array are measured, its results are checked, the figures are in the file."""
    path = tmp_path / "results" / "arrays.json"
    command = [sys.executable, "-m", "benchmarks.arrays", "--members", "3000", "--to", str(path)]
    done = subprocess.run(command, cwd=runner.ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text("utf-8"))
    assert document["members"] == 3000
    assert list(document["seconds"]) == ["map", "submit", "run", "fetch", "counts", "unkeep"]
    for step in document["seconds"]:
        assert document["resident_mebibytes"][step]["server"] > 5
        assert set(document["cpu_seconds"][step]) == {"client", "server", "worker", "executor"}
