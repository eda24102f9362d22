"""Which keys are bound to which connection, so that operations on one key see each other (pure)."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

C = TypeVar("C")


class Bindings(Generic[C]):
    """The loose writes of one node: requests handed over whose replies nobody waits for.

    Until a loose write is settled, all requests for its keys must travel on its connection. A write is settled when
    its connection has received a given number of replies, its *mark*: replies come in order, so one reply settles
    everything before it. Connections are any hashable objects.

    Attributes:
        active: True while anything is bound; requests need not ask otherwise.
    """

    def __init__(self) -> None:
        self.active = False
        self._keys: dict[bytes, tuple[C, int]] = {}
        self._all: tuple[C, int] | None = None
        self._writes: dict[C, deque[tuple[int, tuple[bytes, ...]]]] = {}

    def bind(self, keys: tuple[bytes, ...], connection: C, mark: int) -> None:
        """Bind keys, or all keys of the node if `keys` is empty, until `connection` has received `mark` replies."""
        bound = (connection, mark)
        if keys:
            for key in keys:
                self._keys[key] = bound
        else:
            self._all = bound
        self._writes.setdefault(connection, deque()).append((mark, keys))
        self.active = True

    def settle(self, connection: C, answered: int) -> None:
        """Forget the writes that are settled when `connection` has received `answered` replies."""
        writes = self._writes.get(connection)
        if writes is None:
            return
        while writes and writes[0][0] <= answered:
            self._forget(connection, *writes.popleft())
        if not writes:
            del self._writes[connection]
        self.active = bool(self._writes)

    def release(self, connection: C) -> None:
        """Forget everything bound to a connection that is gone."""
        for mark, keys in self._writes.pop(connection, ()):
            self._forget(connection, mark, keys)
        self.active = bool(self._writes)

    def find(self, keys: tuple[bytes, ...]) -> C | None:
        """The connection that requests for these keys must use (the first one found), or None if any will do."""
        for key in keys:
            bound = self._keys.get(key)
            if bound is not None:
                return bound[0]
        return None if self._all is None else self._all[0]

    def split(self, keys: list[bytes]) -> list[list[bytes]]:
        """Group keys so that no group is bound to more than one connection; order is kept within a group."""
        if not self.active:
            return [keys]
        groups: dict[C | None, list[bytes]] = {}
        for key in keys:
            groups.setdefault(self.find((key,)), []).append(key)
        return list(groups.values())

    def bound_to(self, connection: C) -> int:
        """How many loose writes of a connection are not settled."""
        return len(self._writes.get(connection, ()))

    def connections(self) -> list[C]:
        """The connections with loose writes."""
        return list(self._writes)

    def _forget(self, connection: C, mark: int, keys: tuple[bytes, ...]) -> None:
        bound = (connection, mark)
        for key in keys:
            if self._keys.get(key) == bound:  # otherwise a later write has bound it anew
                del self._keys[key]
        if not keys and self._all == bound:
            self._all = None
