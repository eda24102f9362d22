"""docs/design/wire-protocol.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from rain.protocol import limits, messages as m
from rain.protocol.codec import MESSAGE_CLASSES

TEXT = (Path(__file__).parents[2] / "docs" / "design" / "wire-protocol.md").read_text("utf-8")
DIRECTIONS = {
    "client to server": m.ClientMessage,
    "worker to server": m.WorkerMessage,
    "server to client": m.ServerToClient,
    "server to worker": m.ServerToWorker,
}


def rows(first_column: str) -> dict[str, list[str]]:
    """The table whose head begins with this word: name without quotes -> other cells."""
    table = TEXT.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    found = {}
    for line in table.splitlines()[2:]:
        name, *others = [cell.strip() for cell in line.strip("|").split("|")]
        found[name.strip("`")] = others
    return found


def test_every_message_is_in_the_table():
    table = rows("message")
    assert set(table) == {cls.__name__ for cls in MESSAGE_CLASSES}
    for direction, union in DIRECTIONS.items():
        assert {name for name, cells in table.items() if cells[0] == direction} == {
            cls.__name__ for cls in get_args(union)
        }


def test_answers_are_messages():
    names = {cls.__name__ for cls in MESSAGE_CLASSES}
    for cells in rows("message").values():
        if cells[1] != "-":
            assert set(cells[1].split(" or ")) <= names


@pytest.mark.parametrize("name", sorted(name for name in vars(limits) if re.fullmatch(r"[A-Z_]+", name)))
def test_limits_are_in_the_table(name: str):
    assert rows("limit")[name] == [str(getattr(limits, name))]
