"""What a place for results can do."""

from __future__ import annotations

from typing import Protocol


class Turn(Protocol):
    """The right to compute one missing result. Everybody else who asks waits until it ends, at most for a while."""

    async def store(self, entry: bytes) -> None:
        """Store the result; the turn ends.

        Raises:
            CacheError: it could not be stored.
        """

    async def give_up(self) -> None:
        """There is no result; the turn ends, and the next who asks gets it.

        Raises:
            CacheError: the cache does not answer.
        """


class Backend(Protocol):
    """A place for results."""

    async def ask(self, key: bytes) -> bytes | Turn | None:
        """Look for a result.

        Returns:
            The entry; or, if there is none, a turn to compute it, or None: somebody else does, ask again later.

        Raises:
            CacheError: the cache does not answer, or not in time.
        """

    async def discard(self, key: bytes) -> None:
        """Remove an entry that is no good.

        Raises:
            CacheError: the cache does not answer.
        """

    async def close(self) -> None:
        """Let go of everything, turns included."""


class CacheError(Exception):
    """The cache cannot be used; the text says why."""
