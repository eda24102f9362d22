"""What of a submit has arrived and is not committed yet."""

from __future__ import annotations

from dataclasses import field

from rain.common.structs import dataclass
from rain.protocol.messages import SubmitBlock, SubmitChunk


class InvalidSubmitError(Exception):
    """The submit is refused; nothing of it exists. The text names the id."""


@dataclass(slots=True)
class StagedSubmit:
    """Chunks in order. error: why the commit will be refused, known early; None so far."""

    chunks: list[SubmitChunk | SubmitBlock] = field(default_factory=list)
    error: str | None = None
