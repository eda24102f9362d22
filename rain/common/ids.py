"""Identifiers of tasks and data objects."""

from __future__ import annotations

import re
from typing import NamedTuple

FIRST_ID = 10
"""The id of the first thing registered in a session."""

_TEXT = re.compile(r"(\d+)[/:](\d+)")


class ID(NamedTuple):
    """Id of a task or data object: `(session_id, id)`; equal to and sortable with plain tuples."""

    session_id: int
    id: int

    def __str__(self) -> str:
        return f"{self.session_id}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> ID:
        """Read `"1/10"` or `"1:10"`.

        Raises:
            ValueError: the text is not an id.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not an id; expected SESSION/NUMBER, e.g. '1/10'")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _from_json(cls, pair: list[int] | tuple[int, int]) -> ID:
        session_id, number = pair
        return cls(session_id, number)

    def _to_json(self) -> list[int]:
        return [self.session_id, self.id]
