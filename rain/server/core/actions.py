"""What the server core returns: things to do, in order."""

from __future__ import annotations

from rain.common.structs import dataclass
from rain.eventlog.records import Record as EventRecord
from rain.protocol.messages import Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a peer; all of one turn leave together."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection to a peer that broke the rules; PeerLeft follows."""

    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class WriteConstant:
    """Write a piece of a large constant to the constant store; the value is complete at offset + len(data) = total."""

    session: int
    object_id: int
    offset: int
    total: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ShareConstant:
    """Give a constant the value of another one of the constant store."""

    session: int
    object_id: int
    source: int


@dataclass(frozen=True, slots=True)
class DropConstants:
    """Remove constants from the constant store; None = all of the session."""

    session: int
    objects: list[int] | None


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log. level: `info`, `warning` or `error`."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """Something happened that belongs into the event log."""

    record: EventRecord


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process with this code."""

    code: int


ServerAction = Send | Drop | WriteConstant | ShareConstant | DropConstants | Log | Record | Exit
