"""Who ran what when: runs as columns, packed into slots of each worker as they end.

The log does not tell which executor ran a task. A run takes the slot of its worker whose last run ended most recently
before it began; a new one if there is none.
"""

from __future__ import annotations

from array import array
from itertools import accumulate

CHUNK = 8
"""Parts that are summed up together."""
LONGEST = 1e9
"""Seconds; no run takes longer."""
RUN_BYTES = 26
"""Memory of a run, roughly."""

_TOLERANCE = 1e-4
"""Seconds by which runs of one executor may overlap: durations are rounded."""
_CLOSE = 1e-3
_RUNNING = -1.0
_LAST = 1e11


def sound_start(start: float, logged: float) -> float:
    """When a run began, or, if what the worker told cannot be, when that was logged."""
    return start if 0.0 < start < _LAST else logged


def sound_duration(seconds: float) -> float:
    """How long a run took; 0.0 if what the worker told cannot be."""
    return seconds if 0.0 <= seconds < LONGEST else 0.0


class Level:
    """Sums of CHUNK neighbours each: where they begin and end, the number of their longest run, whether one failed."""

    __slots__ = ("ends", "failed", "longest", "starts")

    def __init__(self) -> None:
        self.starts = array("d")
        self.ends = array("d")
        self.longest = array("I")
        self.failed = bytearray()


class Slot:
    """Runs of one worker that do not overlap, in order.

    Attributes:
        end: of the last one. runs: their numbers. levels: sums of runs, sums of these, and so on.
    """

    __slots__ = ("end", "levels", "runs")

    def __init__(self) -> None:
        self.end = 0.0
        self.runs = array("I")
        self.levels: list[Level] = []

    def sum_up(self, runs: Runs) -> None:
        """Sum up what has become whole."""
        if not self.levels:
            self.levels.append(Level())
        level, starts, durations, failed = self.levels[0], runs.starts, runs.durations, runs.failed
        for at in range(len(level.starts) * CHUNK, len(self.runs) - CHUNK + 1, CHUNK):
            numbers = self.runs[at : at + CHUNK]
            last = numbers[-1]
            level.starts.append(starts[numbers[0]])
            level.ends.append(starts[last] + durations[last])
            level.longest.append(max(numbers, key=durations.__getitem__))
            level.failed.append(bool(failed) and not failed.isdisjoint(numbers))
        below = level
        for height in range(1, len(self.levels) + 1):
            if len(below.starts) < CHUNK:
                return
            if height == len(self.levels):
                self.levels.append(Level())
            above = self.levels[height]
            for at in range(len(above.starts) * CHUNK, len(below.starts) - CHUNK + 1, CHUNK):
                above.starts.append(below.starts[at])
                above.ends.append(below.ends[at + CHUNK - 1])
                above.longest.append(max(below.longest[at : at + CHUNK], key=durations.__getitem__))
                above.failed.append(max(below.failed[at : at + CHUNK]))
            below = above


class Runs:
    """Runs of a session by number, from 1 on.

    Attributes:
        starts: unix seconds. durations: seconds. tasks: ids. workers: numbers.
        failed: numbers of runs that ended without success. slots: of each worker, by its number.
    """

    def __init__(self) -> None:
        self.starts = array("d", [0.0])
        self.durations = array("f", [0.0])
        self.tasks = array("I", [0])
        self.workers = array("H", [0])
        self.failed: set[int] = set()
        self.slots: dict[int, list[Slot]] = {}

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def bytes(self) -> int:
        """Memory, roughly."""
        return RUN_BYTES * len(self) + 100 * len(self.failed)

    def begin(self, task: int, worker: int, start: float) -> int:
        """A run has begun; its number."""
        self.starts.append(start)
        self.durations.append(_RUNNING)
        self.tasks.append(task)
        self.workers.append(worker)
        return len(self.starts) - 1

    def is_running(self, run: int) -> bool:
        """Whether it has not ended."""
        return self.durations[run] == _RUNNING

    def end(self, run: int, start: float, duration: float, is_failed: bool = False) -> None:
        """A run has ended; start: what was told of it last."""
        self.starts[run] = start
        self.durations[run] = duration
        if is_failed:
            self.failed.add(run)
        slot = self._slot(self.workers[run], start)
        slot.runs.append(run)
        slot.end = max(slot.end, start + duration)
        if not len(slot.runs) % CHUNK:
            slot.sum_up(self)

    def add_sequence(self, first_task: int, worker: int, start: float, durations: array[float]) -> int:
        """Runs of consecutive tasks, one after the other, that have ended; number of the first."""
        count, first = len(durations), len(self.starts)
        ends = array("d", accumulate(durations, initial=start))
        slot = self._slot(worker, start)
        slot.end = ends.pop()
        slot.runs.extend(array("I", range(first, first + count)))
        self.starts.extend(ends)
        self.durations.extend(durations if durations.typecode == "f" else array("f", durations))
        self.tasks.extend(array("I", range(first_task, first_task + count)))
        self.workers.extend(array("H", [worker]) * count)
        slot.sum_up(self)
        return first

    def _slot(self, worker: int, start: float) -> Slot:
        slots = self.slots.get(worker)
        if slots is None:
            slots = self.slots[worker] = []
        latest = start + _TOLERANCE
        best: Slot | None = None
        for slot in slots:
            if slot.end <= latest and (best is None or slot.end > best.end):
                best = slot
                if latest - slot.end < _CLOSE:
                    break
        if best is None:
            best = Slot()
            slots.append(best)
        return best

    def span(self) -> tuple[float, float] | None:
        """From the first beginning to the last end of runs that have ended."""
        firsts = [self.starts[slot.runs[0]] for slots in self.slots.values() for slot in slots]
        ends = [slot.end for slots in self.slots.values() for slot in slots]
        return (min(firsts), max(ends)) if firsts else None
