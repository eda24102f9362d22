"""How a connection ends, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rain.memcache.connection import Connection
    from rain.memcache.requests import Request


class ConnectionEnded(ConnectionError):
    """Why a connection came to its end."""


class Overdue(ConnectionEnded):
    """The server did not answer for so long that the connection was given up."""


class Owner(Protocol):
    """Who decides what becomes of the requests of a connection that has ended: the handshake, then the node.

    Attributes:
        shortcut: the connection that may be asked with `Connection.ask`, or None.
    """

    shortcut: Connection | None

    def connection_ended(
        self, connection: Connection, reason: Exception, in_flight: list[Request], queued: list[Request]
    ) -> None:
        """Told once, unless the end was ordered by `finish`.

        Args:
            connection: the one that ended.
            reason: an `AuthenticationError` if the server wants credentials, `Overdue`, or another `ConnectionEnded`.
            in_flight: handed over and unanswered, in order; abandoned ones are counted already.
            queued: not handed over.
        """
