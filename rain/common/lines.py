"""Texts of errors, shortened."""

from __future__ import annotations


def one_line(text: str, limit: int = 300) -> str:
    """The first line of a text, of a Python traceback that of the exception; cut."""
    lines = text.strip().split("\n")
    line = lines[0]
    if line.startswith(("Traceback ", "... (cut)")):
        frames = [number for number, one in enumerate(lines) if one.startswith("  ")]
        line = next(iter(lines[frames[-1] + 1 :] if frames else lines[1:]), line)
    return line if len(line) <= limit else line[: limit - 3] + "..."
