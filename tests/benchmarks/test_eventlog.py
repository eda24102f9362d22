"""The benchmark of the event log, with small sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import eventlog


def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "result.json"
    monkeypatch.setattr("sys.argv", ["eventlog", "--tasks", "2500", "--members", "30000", "--to", str(path)])
    assert eventlog.main() == 0
    result = json.loads(path.read_text("utf-8"))
    assert json.loads(capsys.readouterr().out) == result
    assert (result["single_tasks"]["records"], result["task_array"]["records"]) == (3, 2)
    for figures in (result["single_tasks"], result["task_array"]):
        assert all(value > 0 for value in figures.values())
