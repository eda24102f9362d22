"""Small helpers for texts."""

from __future__ import annotations

from rain.common.units import format_duration, format_size

__all__ = ["format_duration", "format_size", "plural", "short_str"]


def short_str(value: object, limit: int = 48) -> str:
    """The repr of a value, cut in the middle to at most `limit` characters."""
    text = repr(value)
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[-(limit - 3 - head) :]}"


def plural(count: int, noun: str) -> str:
    """`"1 task"`, `"2 tasks"`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
