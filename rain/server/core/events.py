"""What the server core takes: facts, already happened."""

from __future__ import annotations

from typing import Literal

from rain.common.structs import dataclass
from rain.protocol.messages import Message


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A client or worker finished its handshake.

    peer: number given by the shell, never reused; role: `http` is the server's own dashboard, which asks like a client
    but is none; address: `IP:PORT` of the peer; local: `IP:PORT` under which the
    peer reaches this server; python: its Python version.
    """

    peer: int
    role: Literal["client", "worker", "http"]
    address: str
    local: str
    python: str


@dataclass(frozen=True, slots=True)
class PeerSaid:
    """A message of a peer arrived."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """A connection ended; nothing more comes from this peer."""

    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class CopyUnreadable:
    """The server itself could not read the object from this worker (by incarnation)."""

    session: int
    object_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class ConstantLost:
    """The server could not store the value of a constant."""

    session: int
    object_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed (sent about every 0.5 s)."""


ServerEvent = PeerJoined | PeerSaid | PeerLeft | CopyUnreadable | ConstantLost | Tick
