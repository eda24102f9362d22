"""Every exception of the Memcached client.

    Exception
      ClusterNoAvailableNodes
      CommandError
        StorageCommandError
          NotStoredStorageCommandError
        NotFoundCommandError
        AuthenticationError
        ClientError
        ServerError
      NodeUnavailable(ConnectionError, asyncio.TimeoutError)

Besides these, operations raise `ValueError` and `TypeError` for wrong arguments, `RuntimeError` when the client is
closed, and `asyncio.TimeoutError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rain.memcache.addresses import Address


class ClusterNoAvailableNodes(Exception):
    """There is no node to which a key could be sent."""


class CommandError(Exception):
    """A node answered with an error line, or with something that is no answer to the command.

    Attributes:
        reply: the line received, without the end of line, or None if there was none.
        command: name of the command, for instance `"touch"`, or None.
        address: address of the node, or None.
    """

    def __init__(
        self,
        *args: Any,
        reply: str | None = None,
        command: str | None = None,
        address: Address | None = None,
    ) -> None:
        super().__init__(*args)
        self.reply = reply
        self.command = command
        self.address = address

    def __str__(self) -> str:
        if self.args or self.reply is None:
            return super().__str__()
        where = f" at {self.address}" if self.address is not None else ""
        return f"{self.command or 'command'}{where} was answered {self.reply}"


class StorageCommandError(CommandError):
    """A storage command was not done."""


class NotStoredStorageCommandError(StorageCommandError):
    """The condition of a storage command did not hold; `args` is empty."""


class NotFoundCommandError(CommandError):
    """The key is absent; `args` is empty."""


class AuthenticationError(CommandError):
    """The node wants credentials, or refused those it was given."""


class ClientError(CommandError):
    """The node answered `CLIENT_ERROR`."""


class ServerError(CommandError):
    """The node answered `SERVER_ERROR`."""


class NodeUnavailable(ConnectionError, TimeoutError):
    """A node cannot be reached, or the connection to it was lost.

    It is an `asyncio.TimeoutError`, too: a node that is down is, for most callers, one that does not answer in time.

    Attributes:
        address: address of the node, or None.
        sent: True if the request may have been executed.
    """

    def __init__(self, *args: Any, address: Address | None = None, sent: bool = False) -> None:
        super().__init__(*args)
        self.address = address
        self.sent = sent
