"""Summaries of simulated clusters, and the file in which they are kept."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from rain.testing import simruns
from rain.testing.simruns import Summary, append_record, run_seeds

if TYPE_CHECKING:
    from pathlib import Path


def test_records_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = Summary(5, seeds=2, faults=Counter({"damage": 3, "clock_jump": 1}), failures={6: "wrong"})
    append_record(path, first.to_record())
    append_record(path, Summary(7).to_record())
    records = json.loads(path.read_text())
    assert [record["first"] for record in records] == [5, 7]
    assert list(records[0]["faults"]) == ["clock_jump", "damage"]
    assert records[0]["failures"] == {"6": "wrong"}
    assert list(tmp_path.iterdir()) == [path]


def test_sums() -> None:
    total = Summary(10, seeds=1, ends=Counter({"plain lost": 1}))
    total.add(Summary(11, seeds=2, ends=Counter({"plain lost": 2}), blocks=4, failures={12: "wrong"}))
    assert total == Summary(10, seeds=3, ends=Counter({"plain lost": 3}), blocks=4, failures={12: "wrong"})


def test_a_failing_seed_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    real = simruns.run_seed

    def run_seed(seed: int) -> object:
        assert seed != 4, "seed 4 failed"
        return real(seed)

    monkeypatch.setattr(simruns, "run_seed", run_seed)
    summary = run_seeds(range(4, 6))
    assert summary.seeds == 2
    assert list(summary.failures) == [4]
    assert sum(summary.ends.values()) > 0
    assert summary.messages["AssignTasks"] > 0
