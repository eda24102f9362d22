"""Counters of the connections to one node, and percentiles of the time that opening them took."""

from __future__ import annotations

from collections import deque
from statistics import fmean
from typing import TYPE_CHECKING

from rain.memcache.base import ConnectionPoolMetrics

if TYPE_CHECKING:
    from rain.memcache.requests import Request

_SAMPLES = 100


class Counters:
    """What is counted while a node works; the fields are those of `ConnectionPoolMetrics`."""

    def __init__(self) -> None:
        self.connections_created = 0
        self.connections_created_with_error = 0
        self.connections_purged = 0
        self.connections_closed = 0
        self.operations_executed = 0
        self.operations_executed_with_error = 0
        self.operations_waited = 0
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)

    def created(self, seconds: float) -> None:
        """Count an attempt that succeeded after this time."""
        self.connections_created += 1
        self._seconds.append(seconds)

    def unanswered(self, request: Request) -> None:
        """Count, once, that a request ends without an answer for its caller; only if it was handed over, ever."""
        if request.carrier is not None or request.sent_before:
            request.carrier = None
            request.sent_before = False
            if not request.own:
                self.operations_executed_with_error += request.commands

    def snapshot(self, cur_connections: int) -> ConnectionPoolMetrics:
        """The counters as users see them, as they are now."""
        samples = sorted(self._seconds)
        return ConnectionPoolMetrics(
            cur_connections=cur_connections,
            connections_created=self.connections_created,
            connections_created_with_error=self.connections_created_with_error,
            connections_purged=self.connections_purged,
            connections_closed=self.connections_closed,
            operations_executed=self.operations_executed,
            operations_executed_with_error=self.operations_executed_with_error,
            operations_waited=self.operations_waited,
            create_connection_avg=fmean(samples) if samples else None,
            create_connection_p50=percentile(samples, 50),
            create_connection_p99=percentile(samples, 99),
            create_connection_upper=samples[-1] if samples else None,
        )


def percentile(samples: list[float], percent: int) -> float | None:
    """The percentile of sorted samples; None if there are none."""
    return samples[len(samples) * percent // 100] if samples else None
