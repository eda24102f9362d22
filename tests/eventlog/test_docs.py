"""docs/events.md says what the code does."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from rain.eventlog.criteria import ALIASES, EVENT_TYPES, FAILED, TYPES_OF_KIND
from rain.eventlog.writer import open_log

PAGE = (Path(__file__).resolve().parents[2] / "docs/events.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_type_is_in_the_table() -> None:
    names = [re.findall(r"`(\w+)`", row[0]) for row in rows("Events")]
    assert [name for row in names for name in row[:1]] == [
        name for name in EVENT_TYPES if name not in ALIASES and name != FAILED
    ]
    told = {row[1]: row[0] for row in names if len(row) > 1}
    assert told == {**ALIASES, FAILED: "TaskFinished"}


def test_the_tables_of_the_file(tmp_path: Path) -> None:
    open_log(tmp_path / "events.db")
    with closing(sqlite3.connect(tmp_path / "events.db")) as database:
        for name, columns, _ in rows("The file"):
            found = [row[1] for row in database.execute(f"PRAGMA table_info({name.strip('`')})")]
            assert found == columns.split(", ")


def test_every_kind_is_told() -> None:
    kinds = PAGE.split("Kinds of batches:")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", kinds)) == set(TYPES_OF_KIND)
