"""Texts of times, and data that JSON can hold."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from time import gmtime, strftime
from typing import Any

_SECOND = 1_000_000_000
_DEEPEST = 100


def time_text(time_ns: int) -> str:
    """When something was logged: `YYYY-MM-DD HH:MM:SS.fffffffff UTC`; time_ns: unix nanoseconds."""
    seconds, rest = divmod(time_ns, _SECOND)
    return f"{strftime('%Y-%m-%d %H:%M:%S', gmtime(seconds))}.{rest:09} UTC"


def start_text(seconds: float) -> str:
    """Start of a run as RFC 3339, empty if it is not known; seconds: unix time."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (ValueError, OverflowError, OSError):  # a worker may report any number
        moment = None
    return "" if moment is None else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def json_ready(value: Any, depth: int = 0) -> Any:
    """The same value where JSON can hold it: bytes become a note of their size, what is not finite None."""
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is bytes:
        return f"<{len(value)} bytes>"
    if depth >= _DEEPEST:
        return "<nested too deeply>"
    if isinstance(value, dict):
        return {_key(key): json_ready(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(entry, depth + 1) for entry in value]
    return f"<{kind.__name__}>"


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(json_ready(key, _DEEPEST))
