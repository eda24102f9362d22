"""The comparison with the baseline, on a system whose speed the test decides."""

from __future__ import annotations

import json

import pytest

from benchmarks import check
from benchmarks.calibration import KINDS, Calibration

SPEEDS = {"loop": 1000.0, "ping": 100.0, "copy": 1.0}


class Machine:
    """A machine with a speed, instead of the calibration."""

    def __init__(self, speed=1.0):
        self.speed = speed

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def speeds(self):
        return {kind: self.speed * value for kind, value in SPEEDS.items()}


class Idle:
    """A system that is started and closed."""

    version = "1"

    def __init__(self):
        self.is_closed = False

    def close(self):
        self.is_closed = True


@pytest.fixture
def world(monkeypatch):
    """Seconds per task of each probe (lists: of each measurement in turn) and the machine's speed can be set."""

    class World:
        seconds: dict = dict.fromkeys(check.PROBES, 0.01)
        machine = Machine()
        system = Idle()

    state = World()

    def probe(name):
        def work(system, size):
            given = state.seconds[name]
            taken = given.pop(0) if isinstance(given, list) else given
            return {"seconds": taken * size / state.machine.speed, "tasks": size}

        return work

    probes = {name: (probe(name), size, kind) for name, (_, size, kind) in check.PROBES.items()}
    monkeypatch.setattr(check, "PROBES", probes)
    monkeypatch.setattr(check, "Calibration", lambda: state.machine)
    monkeypatch.setattr(check.systems, "start", lambda name: state.system)
    monkeypatch.setattr(check, "warm_up", lambda system: None)
    return state


def test_a_made_up_regression_is_found(world, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    assert check.check(store=True, path=path, turns=3)
    stored = json.loads(path.read_text("utf-8"))
    assert stored["costs"]["tree"] == pytest.approx(0.01 * SPEEDS["loop"])
    assert stored["costs"]["latency"] == pytest.approx(0.01 * SPEEDS["ping"])
    assert check.check(store=False, path=path, turns=3)

    world.seconds = {**world.seconds, "tree": 0.013}
    capsys.readouterr()
    assert not check.check(store=False, path=path, turns=3)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows if "SLOWER" in row] == ["tree"]
    assert world.system.is_closed
    assert json.loads(path.read_text("utf-8")) == stored


def test_a_slower_machine_is_no_regression(world, tmp_path):
    path = tmp_path / "baseline.json"
    assert check.check(store=True, path=path, turns=1)
    world.machine.speed = 0.3
    assert check.check(store=False, path=path, turns=1)


def test_what_seemed_slower_is_measured_once_more(world, tmp_path):
    path = tmp_path / "baseline.json"
    assert check.check(store=True, path=path, turns=1)
    world.seconds = {**world.seconds, "map": [0.01, 0.05, 0.01]}
    assert check.check(store=False, path=path, turns=1)
    assert world.seconds["map"] == []


def test_verdicts():
    lines = check.compare({"a": 1.0, "b": 1.3, "c": 0.7, "d": 9.0}, {"a": 1.1, "b": 1.0, "c": 1.0})
    assert [line.verdict for line in lines] == [
        "as before",
        "SLOWER",
        "faster: store a new baseline?",
        "new",
    ]
    assert [line.is_regression for line in lines] == [False, True, False, False]


def test_without_baseline(tmp_path, capsys):
    """The error says what to do."""
    assert not check.check(store=False, path=tmp_path / "baseline.json")
    assert "--store" in capsys.readouterr().err


def test_another_machine_is_told(world, tmp_path, capsys):
    path = tmp_path / "baseline.json"
    assert check.check(store=True, path=path, turns=1)
    document = json.loads(path.read_text("utf-8"))
    document["machine"]["cpus"] = 1000
    path.write_text(json.dumps(document), "utf-8")
    capsys.readouterr()
    assert check.check(store=False, path=path, turns=1)
    assert "another machine (cpus)" in capsys.readouterr().out


def test_calibration_measures():
    """All kinds; its processes end."""
    with Calibration() as calibration:
        speeds = calibration.speeds()
    assert set(speeds) == set(KINDS)
    assert all(speed > 0 for speed in speeds.values())
    assert all(process.exitcode == 0 for process in calibration._processes)


def test_the_stored_baseline_has_all_probes():
    stored = json.loads(check.BASELINE.read_text("utf-8"))
    assert set(stored["costs"]) == set(check.PROBES)
