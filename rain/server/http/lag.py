"""How late the event loop does what it was asked to do at a time."""

from __future__ import annotations

import asyncio
from bisect import bisect_left

INTERVAL = 0.5
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Seconds."""


class LoopLag:
    """Measures the running loop until `close`.

    Attributes:
        count, sum: number of measurements, and their sum in seconds.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)
        self._loop = asyncio.get_running_loop()
        self._plan()

    def close(self) -> None:
        """Measure no more."""
        self._timer.cancel()

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound in seconds, number of measurements up to it), as Prometheus wants them."""
        found, total = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found

    def _plan(self) -> None:
        self._due = self._loop.time() + INTERVAL
        self._timer = self._loop.call_at(self._due, self._measure)

    def _measure(self) -> None:
        late = max(self._loop.time() - self._due, 0.0)
        self.count += 1
        self.sum += late
        self._counts[bisect_left(BOUNDS, late)] += 1
        self._plan()
