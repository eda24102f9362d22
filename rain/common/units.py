"""Durations and sizes as users write them: one parser for API, command line and environment."""

from __future__ import annotations

import math
import re

_DURATION_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "": 1.0,
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "mins": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
    "weeks": 604800.0,
}
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _SIZE_UNITS[_letter] = _SIZE_UNITS[_letter + "b"] = 1000**_power
    _SIZE_UNITS[_letter + "i"] = _SIZE_UNITS[_letter + "ib"] = 1024**_power

# Possessive: what was taken is not tried again in another way, which takes for ever in long texts.
_PART = re.compile(r"\s*+(\d++(?:\.\d*+)?+|\.\d++)\s*+([a-zA-Z]*+)\s*+")


def parse_duration(value: float | str) -> float:
    """Read a duration.

    Args:
        value: seconds, or text such as `"5 s"`, `"2 min"`, `"1h30m"`, `"7d"`, `"250 ms"`.

    Returns:
        Seconds, never negative.

    Raises:
        ValueError: the text is no duration, or it is negative or not finite.
        TypeError: neither a number nor a str.
    """
    if isinstance(value, str):
        return _parse_duration_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a duration is a number of seconds or a str such as '5 s', not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a duration; expected a finite number of seconds >= 0")
    return float(value)


def _parse_duration_text(text: str) -> float:
    total, position, parts = 0.0, 0, 0
    while position < len(text):
        match = _PART.match(text, position)
        unit = _DURATION_UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None or (match[2] == "" and (parts or match.end() < len(text))):
            break
        total += float(match[1]) * unit
        position = match.end()
        parts += 1
    if not parts or position < len(text) or not math.isfinite(total):
        raise ValueError(f"{text!r} is not a duration; expected e.g. '5 s', '2 min', '1h30m', '7d'")
    return total


def parse_size(value: int | str) -> int:
    """Read a size.

    Args:
        value: bytes, or text such as `"500 MB"` (powers of 1000) or `"2 GiB"` (powers of 1024).

    Returns:
        Bytes, never negative.

    Raises:
        ValueError: the text is no size, or it is negative.
        TypeError: neither an int nor a str.
    """
    if isinstance(value, str):
        match = _PART.fullmatch(value)
        unit = _SIZE_UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{value!r} is not a size; expected e.g. '4096', '500 MB', '2 GiB'")
        number = match[1]
        if number.isdigit():
            return int(number) * unit
        size = float(number) * unit
        if not math.isfinite(size):
            raise ValueError(f"{value!r} is too large for a size")
        return round(size)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a size is an int (bytes) or a str such as '2 GiB', not {value!r}")
    if value < 0:
        raise ValueError(f"{value!r} is not a size; expected bytes >= 0")
    return value


def format_duration(seconds: float) -> str:
    """Seconds as in error texts: `"5.0 s"`."""
    rounded = round(float(seconds), 3)
    return f"{rounded!r} s"


def format_size(size: float) -> str:
    """Bytes in powers of 1024: `"512 B"`, `"2.0 GiB"`."""
    if abs(size) < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if abs(size) < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"
