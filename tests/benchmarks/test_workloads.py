"""The workloads, with small sizes on a system that needs no cluster, and on ones that lie."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import functions, workloads
from benchmarks.systems import SYSTEMS, start
from benchmarks.workloads import WORKLOADS, WrongResult, calls, own

SIZES = {
    "trivial": 40,
    "map": 40,
    "latency": 5,
    "tree": 13,
    "chains": 200,
    "chain": 10,
    "grid": 70,
    "fan-in": 20,
    "million": 200,
    "sleeps": 4,
    "data": 1,
    "gather": 3,
    "programs": 5,
    "startup": 1,
}


@pytest.fixture(scope="module")
def pool():
    """A process pool for all tests here."""
    system = start("ppe")
    yield system
    system.close()


@pytest.mark.parametrize("name", SIZES)
def test_right_results_are_figures(pool, name):
    """A workload runs on a correct system and gives its metric."""
    workload = WORKLOADS[name]
    metrics = workload.measure(pool, SIZES[name])
    assert workload.measures_start or metrics[workload.metric] > 0


class Liar:
    """A system whose results are wrong, and which starts no program."""

    def call(self, function, *arguments):
        return None

    def map(self, function, arguments):
        return [0 for _ in arguments]

    def run(self, graph):
        return [0 for _ in graph.wanted]

    def program(self, count):
        pass


class OffByOne(Liar):
    """One result of many is wrong."""

    def map(self, function, arguments):
        results = [function(argument) for argument in arguments]
        results[-1] += 1
        return results

    def run(self, graph):
        values = []
        for function, arguments in graph.nodes:
            given = [values[one.node] if hasattr(one, "node") else one for one in arguments]
            values.append(function(*given))
        wanted = [values[node] for node in graph.wanted]
        last = wanted[-1]
        wanted[-1] = last[:-1] if not isinstance(last, int) else last + 1
        return wanted


@pytest.mark.parametrize("liar", [Liar, OffByOne])
@pytest.mark.parametrize("name", [name for name in SIZES if name != "programs"])
def test_wrong_results_are_no_figures(name, liar):
    """A fast but wrong system fails."""
    with pytest.raises(WrongResult):
        WORKLOADS[name].measure(liar(), SIZES[name])


def test_programs_that_did_not_run_are_no_figures(monkeypatch):
    """The machine tells how many processes were started."""
    monkeypatch.setattr(calls, "processes_started", lambda: 17)
    with pytest.raises(WrongResult, match="processes started"):
        calls.programs(Liar(), 5)


def test_the_machine_counts_processes():
    """What the check of the programs relies on."""
    before = calls.processes_started()
    subprocess.run(["/bin/true"], check=True)
    assert calls.processes_started() > before


def test_sleeping_more_than_two_at_a_time_is_no_figure():
    """A system with more executors than the others would not be compared with them."""

    class Sleepless(Liar):
        def map(self, function, arguments):
            return list(arguments)

    with pytest.raises(WrongResult, match="asleep"):
        calls.sleeps(Sleepless(), 100)


def test_tree_of_odd_size_has_one_root(pool):
    """Left-over nodes move up a level; none is lost."""
    metrics = workloads.tree(pool, 7)
    assert metrics["tasks"] == 7 + 6


def test_every_workload_is_here_or_for_rain_alone():
    """None goes unchecked."""
    assert {name for name, workload in WORKLOADS.items() if not workload.only} == set(SIZES)


def test_systems_are_measured_with_what_they_can():
    """Batches are compared with batches; nobody is asked for what he cannot do."""
    for name, entry in SYSTEMS.items():
        assert WORKLOADS["map"].suits(name) == entry.batched
        assert WORKLOADS["trivial"].suits(name) != entry.batched
        assert WORKLOADS["tree"].suits(name) == ("graph" in entry.can)
        assert WORKLOADS["startup"].suits(name)
        assert WORKLOADS["transfer"].suits(name) == (name == "rain")


@pytest.mark.parametrize(("left", "middle", "right"), [(1, 2, 3), (999_999, 0, 12)])
def test_a_mixture_depends_on_each_place(left, middle, right):
    """Inputs in a wrong order are found."""
    assert functions.mix(left, middle, right) != functions.mix(right, middle, left)
    assert functions.mix(left, middle, right) != functions.mix(middle, left, right)


OWN_SIZES = {"fetch": 30, "sessions": 3, "memory": 500, "array-memory": 2000, "transfer": 1}


@pytest.fixture(scope="module")
def cluster():
    """Rain."""
    system = start("rain")
    yield system
    system.close()


def test_all_workloads_for_rain_alone_are_tested():
    """None goes unchecked."""
    assert {name for name, workload in WORKLOADS.items() if workload.only} == set(OWN_SIZES)


@pytest.mark.cluster
@pytest.mark.parametrize("name", OWN_SIZES)
def test_workloads_for_rain_alone(cluster, name):
    """They give their metric; memory of so few tasks may be nothing."""
    workload = WORKLOADS[name]
    assert workload.measure(cluster, OWN_SIZES[name])[workload.metric] >= 0


@pytest.mark.cluster
@pytest.mark.parametrize("name", OWN_SIZES)
def test_wrong_results_of_rain_are_no_figures(cluster, name, monkeypatch):
    """The same workload finds it when the functions compute something else."""
    monkeypatch.setattr(own, "increment", lambda number: number + 2)
    monkeypatch.setattr(own, "ends_of", lambda array: (len(array), 7, 8))
    with pytest.raises(WrongResult):
        WORKLOADS[name].measure(cluster, OWN_SIZES[name])
