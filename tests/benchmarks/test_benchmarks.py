"""The harness itself, with small sizes on the system that needs no cluster."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import report, runner, workloads
from benchmarks.systems import ppe_system

SIZES = {"trivial": 40, "latency": 5, "tree": 13, "chains": 200, "chain": 10, "data": 1}


@pytest.fixture(scope="module")
def pool():
    """A process pool for all tests here."""
    system = ppe_system.start()
    yield system
    system.close()


@pytest.mark.parametrize("name", SIZES)
def test_workloads_check_their_results(pool, name):
    """A workload runs on a correct system and gives its metric."""
    workload = workloads.WORKLOADS[name]
    assert workload.measure(pool, SIZES[name])[workload.metric] > 0


class Liar:
    """A system whose results are wrong."""

    def call(self, function, *arguments):
        return None

    def map(self, function, arguments):
        return [0 for _ in arguments]

    def run(self, graph):
        return [0 for _ in graph.wanted]


@pytest.mark.parametrize("name", [name for name in SIZES if name != "data"])
def test_wrong_results_are_no_figures(name):
    """A fast but wrong system fails."""
    with pytest.raises(workloads.WrongResult):
        workloads.WORKLOADS[name].measure(Liar(), SIZES[name])


def test_tree_of_odd_size_has_one_root(pool):
    """Left-over nodes move up a level; none is lost."""
    metrics = workloads.tree(pool, 7)
    assert metrics["tasks"] == 7 + 6


def test_run_and_report(tmp_path, monkeypatch):
    """A measurement in its own process ends in a file, and the file in a table that can be written again."""
    results, page = tmp_path / "results", tmp_path / "docs" / "performance.md"
    monkeypatch.setattr(runner, "RESULTS", results)
    path = runner.run("trivial", ["ppe"], repeat=1, size=50)
    document = json.loads(path.read_text("utf-8"))
    assert document["medians"]["ppe"]["metrics"]["tasks"] == 50
    assert document["ratios"] == {}

    assert report.write(page, results)
    first = page.read_text("utf-8")
    assert "| W1 independent trivial tasks" in first
    assert report.write(page, results)
    assert page.read_text("utf-8") == first


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


def test_report_without_figures(tmp_path):
    """Nothing is written when nothing was measured."""
    assert not report.write(tmp_path / "performance.md", tmp_path)
    assert not (tmp_path / "performance.md").exists()


def test_ratios_say_how_many_times_better_rain_is():
    """More tasks per second and fewer milliseconds are both better."""
    rates = {"rain": {"metrics": {"tasks_per_second": 200.0}}, "ppe": {"metrics": {"tasks_per_second": 100.0}}}
    assert runner.ratios("trivial", rates) == {"ppe": 2.0}
    times = {"rain": {"metrics": {"median_ms": 0.2}}, "dask": {"metrics": {"median_ms": 10.0}}}
    assert runner.ratios("latency", times) == {"dask": 50.0}


def test_missing_rival_is_told(tmp_path, monkeypatch):
    """The error says what to run."""
    monkeypatch.setattr(runner, "ENVIRONMENTS", tmp_path)
    with pytest.raises(runner.MeasurementFailed, match="make bench-setup"):
        runner.measure("dask", "trivial", 1)


def test_adapters_are_short():
    """An adapter that needs more than 80 lines compares something else."""
    for path in (runner.ROOT / "benchmarks" / "systems").glob("*_system.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 80, path.name
