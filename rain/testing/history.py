"""The checker of what ran against what was asked: nothing lost, nothing unexpected, no unexplained second start.

Each task writes one line when it starts, with one `write` to a file opened with O_APPEND (`note_start`); clients note
what they submitted and what they were told. `judge` compares both.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a task.

    Attributes:
        task: what the task calls itself.
        run: number of the run, from 1.
        executor, worker: process ids.
    """

    task: str
    run: int
    executor: int
    worker: int


def note_start(path: str, task: str, run: int) -> None:
    """Append the start of a task, to be called by the task itself."""
    line = f"{task} {run} {os.getpid()} {os.getppid()}\n".encode("ascii")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(f"{path}: the line of task {task} was not written whole")
    finally:
        os.close(descriptor)


def read_starts(path: str | os.PathLike[str]) -> list[Start]:
    """The starts in a file.

    Raises:
        ValueError: a line is damaged.
    """
    starts = []
    for line in Path(path).read_text("ascii").splitlines():
        task, run, executor, worker = line.split()
        starts.append(Start(task, int(run), int(executor), int(worker)))
    return starts


@dataclass(slots=True)
class Verdict:
    """What is wrong, each with what explains the complaint.

    Attributes:
        lost: tasks which a client was told are finished, but which never started.
        unexpected: tasks that started, but were never submitted.
        repeated_runs: the same run of a task started twice.
        unexplained: tasks started more often than losses explain.
        starts: number of starts.
        tasks: number of tasks submitted.
    """

    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    repeated_runs: list[tuple[str, int]] = field(default_factory=list)
    unexplained: list[list[Start]] = field(default_factory=list)
    starts: int = 0
    tasks: int = 0

    def check(self) -> None:
        """Raises:
        AssertionError: something is wrong.
        """
        problems = [
            f"{name}: {len(found)}, first {found[:3]}"
            for name in ("lost", "unexpected", "repeated_runs", "unexplained")
            if (found := getattr(self, name))
        ]
        if problems:
            raise AssertionError("; ".join(problems))

    @property
    def ratio(self) -> float:
        """Starts per task."""
        return self.starts / self.tasks if self.tasks else 0.0


def judge(
    submitted: Iterable[str],
    finished: Iterable[str],
    starts: Iterable[Start],
    disturbed: Collection[int],
    inputs: Mapping[str, Iterable[str]] | None = None,
) -> Verdict:
    """Compare what was asked with what ran.

    Args:
        submitted: tasks that clients sent, acknowledged or not.
        finished: tasks which clients were told are finished.
        starts: what the tasks wrote.
        disturbed: process ids of executors and workers that were killed, or paused for longer than a transfer of a
            value may take. A further start of a task is explained by a start of the task itself in one of these: the
            run was lost with its process, or its result was. The same loss of one that depends on it explains it too,
            as values are dropped once they are used.
        inputs: tasks on which each task depends; None: they are independent.
    """
    asked, victims = set(submitted), set(disturbed)
    by_task: dict[str, list[Start]] = defaultdict(list)
    for start in starts:
        by_task[start.task].append(start)
    verdict = Verdict(tasks=len(asked), starts=sum(map(len, by_task.values())))
    verdict.lost = sorted(set(finished) - by_task.keys())
    verdict.unexpected = sorted(by_task.keys() - asked)
    losses = {
        task: sum(not victims.isdisjoint((start.worker, start.executor)) for start in runs)
        for task, runs in by_task.items()
    }
    dependents = _dependents(inputs or {})
    for task, runs in by_task.items():
        counts = Counter(start.run for start in runs)
        verdict.repeated_runs += [(task, run) for run, count in counts.items() if count > 1]
        explained = sum(losses.get(one, 0) for one in _reachable(task, dependents)) if len(runs) > 1 else 0
        if len(runs) - 1 > explained:
            verdict.unexplained.append(runs)
    return verdict


def _dependents(inputs: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for task, needed in inputs.items():
        for one in needed:
            found[one].append(task)
    return found


def _reachable(task: str, dependents: Mapping[str, Sequence[str]]) -> set[str]:
    """The task and all that depend on it."""
    seen, waiting = {task}, [task]
    while waiting:
        new = set(dependents.get(waiting.pop(), ())) - seen
        seen |= new
        waiting.extend(new)
    return seen
