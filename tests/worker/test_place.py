"""What a worker makes before most of it is imported."""

import logging
import os
from pathlib import Path

import psutil
import pytest

from rain.worker.options import WorkerOptions
from rain.worker.place import take_place


def options(tmp_path: Path, **more: object) -> WorkerOptions:
    return WorkerOptions(server="", workdir=str(tmp_path / "work"), logdir=str(tmp_path / "log"), **more)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_the_first_executor_starts_and_everything_goes(tmp_path: Path):
    before = children()
    place = take_place(options(tmp_path, cpus=3))
    assert place is not None
    assert place.first is not None
    assert (place.first.number, place.resources["cpus"], place.commands, place.listen) == (1, 3, {}, None)
    assert children() - before == {place.guard.pid, place.first.pid}
    assert os.path.dirname(place.first.directory) == str(tmp_path / "work" / "executors" / "work")
    place.first.reap()
    place.first.clean()
    place.leave(True)
    assert children() == before
    assert not (tmp_path / "work").exists()


def test_none_is_started_that_would_not_be_used(tmp_path: Path):
    config = tmp_path / "worker.toml"
    config.write_text('[executors.py]\ncommand = "python3 -m rain.executor"\n')
    for more in ({"spare_executors": 0}, {"config": str(config)}):
        place = take_place(options(tmp_path, **more))
        assert place is not None
        assert place.first is None
        place.leave(True)


def test_an_executor_that_cannot_start_does_not_keep_the_worker_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("rain.worker.place.python_command", lambda: ["/nowhere/python"])
    place = take_place(options(tmp_path))
    assert place is not None
    assert place.first is None
    assert "/nowhere/python" in caplog.text
    place.leave(True)


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "diary").touch()
    before = children()
    with caplog.at_level(logging.ERROR):
        assert take_place(options(tmp_path)) is None
    assert "The worker cannot start" in caplog.text
    assert children() == before
