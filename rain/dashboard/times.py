"""Times of the event log as numbers."""

from __future__ import annotations

from calendar import timegm
from datetime import datetime
from functools import lru_cache
from time import strptime
from typing import Any


def logged_at(text: str) -> float:
    """When an event was logged, in unix seconds; 0.0 if the text is damaged."""
    try:
        return _whole_seconds(text[:19]) + float(text[19:].removesuffix(" UTC") or 0)
    except ValueError:
        return 0.0


@lru_cache(maxsize=64)
def _whole_seconds(text: str) -> int:
    return timegm(strptime(text, "%Y-%m-%d %H:%M:%S"))


def moment(value: Any) -> float | None:
    """Beginning of a run as events tell it: unix seconds or RFC 3339."""
    if isinstance(value, str) and value:
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return None
    return float(value) if isinstance(value, int | float) and 0 < value < 1e11 else None


def number(value: Any) -> float:
    """A figure of an event; 0.0 if it is none."""
    return float(value) if isinstance(value, int | float) else 0.0
