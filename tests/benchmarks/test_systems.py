"""Every adapter in small: results, failures, two tasks at the same time, and nothing left behind."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import memcache, runner, systems
from benchmarks.graph import Graph
from benchmarks.systems import CALL, DATA, GRAPH, PROGRAM, SYSTEMS, trial
from benchmarks.systems.shared import drive

OF_CAPABILITY = {CALL: "latency", GRAPH: "tree", DATA: "data", PROGRAM: "programs"}
ROLES = {
    "rain": {"client", "server", "worker", "executor", "guard"},
    "rain_embedded": {"client", "server", "executor", "guard"},
    "ppe": {"client", "worker"},
    "mp": {"client", "worker"},
}
"""Of the systems that are always there, by name or its beginning."""
SECONDS = trial.TRIAL_SECONDS + 3 * trial.ENDING_SECONDS


def parameters():
    """All systems; those of Rain start a cluster."""
    for name in systems.NAMES:
        marks = [pytest.mark.cluster] if name.startswith("rain") else []
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(parameters()))
def test_adapter(name):
    """All workloads that suit the system give correct results; it has two executor slots; it tidies up."""
    try:
        interpreter = runner.interpreter(name)
    except runner.MeasurementFailed as missing:
        pytest.skip(str(missing))
    command = [interpreter, "-m", "benchmarks.systems.trial", name]
    done = subprocess.run(command, cwd=runner.ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["exit_code"] == 0, done.stderr
    assert found["version"]
    assert found["at_once"] == 2
    assert "number 7 is not welcome" in found["error"]
    assert found["left_processes"] == []
    assert found["left_files"] == []
    assert "map" in found["workloads"] if SYSTEMS[name].batched else "trivial" in found["workloads"]
    for capability, workload in OF_CAPABILITY.items():
        assert (workload in found["workloads"]) == (capability in SYSTEMS[name].can)
    roles = set(found["roles"])
    assert roles == ROLES.get(name, ROLES.get(name.partition("_")[0], roles))
    assert len(roles) > 1 or name == "hyperqueue"  # whose server is in the client, and whose tasks are over by then


def test_every_rival_can_be_installed():
    """Each environment has its requirements, and the other way round."""
    wanted = {entry.environment for entry in SYSTEMS.values() if entry.environment}
    wanted.add(memcache.ENVIRONMENT)
    assert wanted == {path.stem for path in (runner.ROOT / "benchmarks" / "requirements").glob("*.txt")}


def test_capabilities_are_known():
    """A misspelt one would leave the system out of a workload."""
    for entry in SYSTEMS.values():
        assert entry.can <= set(OF_CAPABILITY)


@pytest.mark.parametrize(
    ("spans", "most"), [([], 0), ([(1, 2), (2, 3)], 1), ([(1, 3), (2, 4), (3, 5)], 2), ([(1, 9), (2, 3), (2, 4)], 3)]
)
def test_overlapping_spans_are_counted(spans, most):
    """The end of one at the begin of another is no overlap."""
    assert trial.at_once(spans) == most


def test_a_task_that_fails_ends_a_driven_graph():
    """The client that drives a graph raises what the task raised."""
    graph = Graph()
    graph.want(graph.node(trial.fail, graph.node(trial.fail, 4)))

    def submit(function, values, done):
        done(lambda: function(*values))

    with pytest.raises(ValueError, match="number 4"):
        drive(graph, submit)
