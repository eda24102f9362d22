"""The one place that prints results: as tables for people, JSON for programs, ids for shell loops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from math import isfinite
from typing import Any, TextIO

from rain.common.structs import dataclass

FORMATS = ("table", "json", "quiet")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings.

    Attributes:
        header: headings; empty for a list of names and values.
        rows: cells as texts.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """The table in columns two blanks apart; nothing when there are no rows."""
        if not self.rows:
            return []
        rows = [[cell.upper() for cell in self.header], *self.rows] if self.header else list(self.rows)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@dataclass(frozen=True, slots=True)
class Report:
    """What a verb has to say, in all forms.

    Attributes:
        document: for `json`; keys are stable.
        tables: for `table`.
        ids: for `quiet`.
    """

    document: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def text(self, form: str) -> str:
        """The report in one of FORMATS, without a final newline."""
        if form == "json":
            return json.dumps(self.document, indent=2, sort_keys=True)
        if form == "quiet":
            return "\n".join(self.ids)
        return "\n\n".join("\n".join(lines) for table in self.tables if (lines := table.lines()))


def show(report: Report, form: str, stream: TextIO) -> None:
    """Print a report; prints nothing at all when there is nothing to say."""
    text = report.text(form)
    if text:
        print(text, file=stream, flush=True)


def format_time(seconds: float) -> str:
    """Unix seconds for people: local time, `2026-11-20 14:05:09`."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_short(seconds: float) -> str:
    """A short duration for people, with three digits: `12.3 ms`, `1.25 s`; from a minute on `3 min 20 s`."""
    if seconds >= 60:
        return format_seconds(seconds)
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def plain(value: Any) -> Any:
    """A value that came as msgpack, as JSON can hold it: bytes become text, keys of maps too."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(plain(key)): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)


def format_seconds(seconds: float) -> str:
    """A duration for people: `7 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`."""
    rest = int(seconds)
    parts = []
    for name, unit in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, rest = divmod(rest, unit)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2]) or "0 s"
