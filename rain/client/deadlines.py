"""From timeouts to deadlines and back."""

from __future__ import annotations

import time


def deadline_of(timeout: float | None) -> float | None:
    """The monotonic time at which `timeout` seconds are over; None = never."""
    return None if timeout is None else time.monotonic() + timeout


def remaining(deadline: float | None) -> float | None:
    """Seconds until a deadline, at least 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
