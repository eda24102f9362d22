"""From timeouts to deadlines and back."""

from __future__ import annotations

import time
from typing import TypeAlias

from rain.common.units import parse_duration

Timeout: TypeAlias = "float | str | None"
"""What users give: seconds, a text such as `"5 s"`, or None for no limit."""


def in_seconds(timeout: Timeout) -> float | None:
    """A user's timeout as a number.

    Raises:
        ValueError: the text is no duration.
    """
    return parse_duration(timeout) if isinstance(timeout, str) else timeout


def deadline_of(timeout: float | None) -> float | None:
    """The monotonic time at which `timeout` seconds are over; None = never."""
    return None if timeout is None else time.monotonic() + timeout


def remaining(deadline: float | None) -> float | None:
    """Seconds until a deadline, at least 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
