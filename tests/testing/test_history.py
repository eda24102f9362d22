"""The checker of histories finds what it is made for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rain.testing.history import Start, Verdict, judge, note_start, read_starts


def start(task: str, run: int = 1, worker: int = 1) -> Start:
    return Start(task, run, executor=10 * worker, worker=worker)


def test_a_good_history() -> None:
    verdict = judge("ab", "ab", [start("a"), start("b")], [])
    assert verdict == Verdict(starts=2, tasks=2)
    assert verdict.ratio == 1.0
    verdict.check()


def test_a_finished_task_that_never_started_is_lost() -> None:
    verdict = judge("ab", "ab", [start("a")], [])
    assert verdict.lost == ["b"]
    with pytest.raises(AssertionError, match=r"lost: 1, first \['b'\]"):
        verdict.check()


def test_a_task_that_was_not_submitted_is_unexpected() -> None:
    assert judge("a", "a", [start("a"), start("x")], []).unexpected == ["x"]


def test_a_run_starts_once() -> None:
    """Also when its worker was killed: another one has another number."""
    assert judge("a", "a", [start("a", 1, 1), start("a", 1, 2)], [1]).repeated_runs == [("a", 1)]


@pytest.mark.parametrize(("disturbed", "found"), [([], 1), ([2], 0), ([20], 0), ([3], 1)])
def test_a_second_start_needs_a_loss(disturbed: list[int], found: int) -> None:
    starts = [start("a", 1, 1), start("a", 2, 2), start("b", 1, 3)]
    assert len(judge("ab", "ab", starts, disturbed).unexplained) == found


def test_the_loss_of_a_dependent_explains_a_second_start() -> None:
    starts = [start("a", 1, 1), start("b", 1, 2), start("c", 1, 3), start("a", 2, 1), start("b", 2, 1)]
    inputs = {"b": ["a"], "c": ["b"]}
    assert judge("abc", "abc", starts, [3], inputs).unexplained == []
    assert len(judge("abc", "abc", starts, [3]).unexplained) == 2
    assert len(judge("abc", "abc", [*starts, start("a", 3, 1)], [3], inputs).unexplained) == 1
    assert len(judge("abc", "abc", starts, [1], {"a": ["b"], "b": ["c"]}).unexplained) == 0


def test_notes_of_starts(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    note_start(str(log), "a-1", 1)
    note_start(str(log), "a-2", 3)
    assert read_starts(log) == [
        Start("a-1", 1, os.getpid(), os.getppid()),
        Start("a-2", 3, os.getpid(), os.getppid()),
    ]
