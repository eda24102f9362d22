"""What a worker offers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rain.process.workdir import SetupError
from rain.worker.detect import detect_cpus, detect_gpus, detect_memory, offered_resources
from rain.worker.options import WorkerOptions


def test_detected_resources() -> None:
    resources = offered_resources(WorkerOptions(server="x", gpus=()))
    assert resources == {"cpus": detect_cpus(), "gpus": [], "memory": detect_memory()}
    assert detect_memory() > 1 << 20


def test_given_resources() -> None:
    options = WorkerOptions(server="x", cpus=7, gpus=2, memory=5, resources={"license": 1.5})
    assert offered_resources(options) == {"cpus": 7, "gpus": [0, 1], "memory": 5, "license": 1.5}
    assert offered_resources(WorkerOptions(server="x", gpus=(3, 1)))["gpus"] == [1, 3]


def test_negative_cpus_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    assert offered_resources(WorkerOptions(server="x", cpus=-1, gpus=()))["cpus"] == 2
    for cpus in (-3, -4, 0):
        with pytest.raises(SetupError, match="leaves no cpu"):
            offered_resources(WorkerOptions(server="x", cpus=cpus, gpus=()))


@pytest.mark.parametrize(("name", "amount"), [("cpus", 1.0), ("license", -1.0)])
def test_impossible_resources(name: str, amount: float) -> None:
    with pytest.raises(SetupError, match=name):
        offered_resources(WorkerOptions(server="x", gpus=(), resources={name: amount}))


def test_gpus_by_their_driver(tmp_path: Path) -> None:
    for address, minor in (("0000:01:00.0", 1), ("0000:02:00.0", 0)):
        device = tmp_path / address
        device.mkdir()
        (device / "information").write_text(f"Model: \t X\nDevice Minor: \t {minor}\n")
    assert detect_gpus(str(tmp_path)) == [0, 1]
    assert detect_gpus(str(tmp_path / "none")) == []
