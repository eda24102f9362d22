"""docs/design/server-core.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from rain.common.states import DataObjectState, TaskState

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/design/server-core.md").read_text()


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def states_named(heading: str) -> set[str]:
    return {name.strip() for row in rows(heading) for name in row[0].split(",")}


def test_every_state_is_in_the_tables() -> None:
    assert states_named("States of a task") == {state.name for state in TaskState}
    assert states_named("States of a data object") == {state.name for state in DataObjectState}


def test_the_transitions_named_exist() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "rain/server/core").glob("*.py"))
    tables = rows("States of a task") + rows("States of a data object")
    named = {name for row in tables for name in re.findall(r"`(\w+)`", row[2])}
    assert named
    missing = {name for name in named if f"def {name}(" not in sources}
    assert not missing


def test_every_module_is_in_the_table() -> None:
    table = PAGE.split("## States of a task")[0]
    named = set(re.findall(r"`((?:core|scheduler)/\w+\.py)`", table))
    there = {
        f"{path.parent.name}/{path.name}"
        for folder in ("core", "scheduler")
        for path in (ROOT / "rain/server" / folder).glob("*.py")
        if path.name not in ("__init__.py", "core.py", "events.py", "actions.py", "staging.py")
    }
    assert named - {"core/core.py", "core/events.py", "core/actions.py"} == there
