"""The links of a simulated network: how long messages take, what is cut, where a connection breaks at a message."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.testing.simloop import SimLoop

LOST, DELIVERED, IN_FLIGHT = "lost", "delivered", "in flight"
BREAKS = (LOST, DELIVERED, IN_FLIGHT)
"""How a connection breaks around a message: before it leaves; after it came, so that no answer comes back; while it is
on the way, so that both may be."""


class SimHandler(Protocol):
    """What a channel reports to; the same as `rain.net`'s ChannelHandler."""

    def messages_received(self, channel: Any, messages: list[Any]) -> None:
        """All messages of one read."""

    def channel_closed(self, channel: Any, reason: str) -> None:
        """The connection ended; called exactly once."""


@dataclass(frozen=True, slots=True)
class SimHello:
    """What the accepting side learns of its peer in the handshake.

    Attributes:
        role: `client`, `worker` or `data`.
        python: Python version of the peer.
        local: address under which the peer reached this side.
    """

    role: str
    python: str
    local: str


class Links:
    """What lies between nodes.

    Args:
        loop: the loop of the simulation.
        latency: smallest and largest one-way delay in seconds.
    """

    def __init__(self, loop: SimLoop, latency: tuple[float, float]) -> None:
        self._loop = loop
        self._latency = latency
        self._cuts: set[tuple[str, str]] = set()
        self._slow: dict[tuple[str, str], tuple[float, float]] = {}
        self._silent: set[str] = set()

    def cut(self, source: str, target: str) -> None:
        """Hold back what one node sends to another."""
        self._cuts.add((source, target))

    def heal(self, a: str, b: str) -> None:
        """Undo `cut` and `slow`, in both directions."""
        for pair in ((a, b), (b, a)):
            self._cuts.discard(pair)
            self._slow.pop(pair, None)

    def slow(self, a: str, b: str, latency: tuple[float, float]) -> None:
        """Each message between two nodes takes so long."""
        self._slow[a, b] = self._slow[b, a] = latency

    def lose_host(self, ip: str) -> None:
        """Nothing leaves this address any more."""
        self._silent.add(ip)

    def is_cut(self, source: str, source_ip: str, target: str) -> bool:
        """True if nothing gets from source to target now."""
        return (source, target) in self._cuts or source_ip in self._silent

    def draw_latency(self, source: str = "", target: str = "") -> float:
        """A one-way delay in seconds."""
        return self._loop.rng.uniform(*self._slow.get((source, target), self._latency))


class Sabotage:
    """Breaks a connection at a message of a chosen type.

    Attributes:
        struck: told the names of both nodes.
        hits: by (type of message, kind of break).
    """

    def __init__(self) -> None:
        self.struck: Callable[[str, str], None] = lambda _source, _target: None
        self.hits: Counter[tuple[str, str]] = Counter()
        self._armed: dict[str, tuple[str, int]] = {}

    def arm(self, message_type: str, kind: str, count: int = 1) -> None:
        """Break the connection at the `count`-th message of this type from now on."""
        self._armed[message_type] = (kind, count)

    def strike(self, messages: list[Any]) -> tuple[int, str] | None:
        """Where in these messages of one write a connection breaks, and how; None if it does not."""
        if not self._armed:
            return None
        for position, message in enumerate(messages):
            name = type(message).__name__
            if name in self._armed:
                kind, count = self._armed[name]
                if count > 1:
                    self._armed[name] = (kind, count - 1)
                    continue
                del self._armed[name]
                self.hits[name, kind] += 1
                return position, kind
        return None
