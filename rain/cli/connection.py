"""How a command finds its server, and asks it one thing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from rain.cli import values
from rain.cli.output import FORMATS
from rain.common.errors import InvalidRequestError, RainConnectionError, RainException, RainTimeoutError
from rain.common.failure import Failure
from rain.common.structs import dataclass
from rain.net.access import AccessFile, newest_access_file, read_access_file
from rain.net.address import Address
from rain.net.secret import Secret, find_secret
from rain.protocol.messages import Heartbeat, Refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from rain.net.blocking import BlockingChannel
    from rain.protocol.messages import Message

SEQ = 1
"""Of the only question that `ask` asks on a connection."""
HEARTBEAT_SECONDS = 4.0
"""A server drops who is silent for longer than three times this."""


class _Answering(Protocol):
    @property
    def seq(self) -> int: ...


Answer = TypeVar("Answer", bound=_Answering)


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server and what proves to it that we may talk to it."""

    address: Address
    secret: Secret


def add_secret_options(parser: argparse.ArgumentParser) -> None:
    """Options that name the secret of a server."""
    parser.add_argument("--token-file", metavar="FILE", help="file with the secret of the server")
    parser.add_argument("--access-file", metavar="FILE", help="access file of the server")


def add_management_options(parser: argparse.ArgumentParser, timeout: float = 10.0) -> None:
    """Options of all verbs that talk to a running server; timeout: the default."""
    parser.add_argument(
        "--server", metavar="ADDR", help="default: RAIN_ADDRESS, RAIN_ACCESS_FILE, the newest access file"
    )
    add_secret_options(parser)
    parser.add_argument("--timeout", type=values.duration, default=timeout, metavar="T", help=f"default: {timeout:g} s")
    parser.add_argument("--output", choices=FORMATS, default="table", help="default: table")


def find_server(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> KnownServer:
    """The server which the options, the environment or the newest access file name.

    Raises:
        RainException: no server is known, or what names it cannot be used.
    """
    address = _address(options, environment)
    secret = find_secret(
        address, token=None, token_file=options.token_file, access_file=options.access_file, environ=environment
    )
    return KnownServer(address, secret)


def access_of(options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Path, AccessFile]:
    """The access file of the server which the options, the environment or the newest access file name.

    Raises:
        RainException: there is none.
    """
    named = options.access_file or (None if options.server else environment.get("RAIN_ACCESS_FILE"))
    if named:
        return Path(named), read_access_file(named)
    is_named = bool(options.server or environment.get("RAIN_ADDRESS"))
    address = _address(options, environment) if is_named else None
    found = newest_access_file(environment, address)
    if found is None:
        which = f"the server {address}" if is_named else "any server"
        raise RainException(f"there is no access file of {which}; name it by --access-file")
    return found


def _address(options: argparse.Namespace, environment: Mapping[str, str]) -> Address:
    text = options.server
    if not text and options.access_file:
        return read_access_file(options.access_file).address
    text = text or environment.get("RAIN_ADDRESS")
    if text:
        try:
            return Address.parse(text)
        except ValueError as error:
            raise RainException(str(error)) from None
    if path := environment.get("RAIN_ACCESS_FILE"):
        return read_access_file(path).address
    newest = newest_access_file(environment)
    if newest is None:
        raise RainException(
            "no server is known: name its address, set RAIN_ADDRESS, or start one with `rain start --simple`"
        )
    return newest[1].address


def ask(
    server: KnownServer, question: Message, answer: type[Answer], timeout: float, *, until_closed: bool = False
) -> Answer:
    """Ask a server one thing.

    Args:
        server: whom.
        question: a message with `seq` SEQ.
        answer: class of the expected answer.
        timeout: seconds for everything.
        until_closed: return only after the server has closed the connection.

    Raises:
        RainConnectionError: the server cannot be reached, or went away before it answered.
        RainTimeoutError: no answer in time.
        AuthenticationError: the server does not accept the secret.
        InvalidRequestError: it refused.
    """
    with Talk(server, timeout) as talk:
        answered = talk.ask(lambda _seq: question, answer)
        if until_closed:
            talk.wait_for_the_end()
        return answered


class Talk:
    """A connection on which a command asks several things, one after the other.

    Args:
        server: whom.
        timeout: seconds for everything, from now on.

    Raises:
        RainConnectionError: the server cannot be reached.
        AuthenticationError: it does not accept the secret.
    """

    def __init__(self, server: KnownServer, timeout: float) -> None:
        from rain.net.blocking import BlockingChannel

        self.server = server
        self.timeout = timeout
        self._seq = 0
        self.renew()
        self._channel: BlockingChannel = BlockingChannel.connect(
            server.address, "client", server.secret, timeout=timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def renew(self) -> None:
        """From now on there is again the whole timeout."""
        self._deadline = time.monotonic() + self.timeout

    def ask(self, make: Callable[[int], Message], answer: type[Answer], complaint: str = "") -> Answer:
        """Ask one thing.

        Args:
            make: makes the question from its `seq`.
            answer: class of the expected answer.
            complaint: what to say when the time is over; default: that the server has not answered.

        Raises:
            RainConnectionError: the server went away.
            RainTimeoutError: no answer in time.
            InvalidRequestError: it refused.
        """
        complaint = complaint or f"{self.server.address} has not answered in time"
        self._seq += 1
        left = _left(self._deadline, complaint)
        self._channel.send(make(self._seq))
        said = time.monotonic()
        while True:
            for message in self._channel.receive(min(left, HEARTBEAT_SECONDS)):
                if isinstance(message, answer) and message.seq == self._seq:
                    return message
                if isinstance(message, Refused) and message.seq == self._seq:
                    raise InvalidRequestError(Failure.from_map(message.failure).message)
            left = _left(self._deadline, complaint)
            if time.monotonic() - said >= HEARTBEAT_SECONDS:
                self._channel.send(Heartbeat())
                said = time.monotonic()

    def wait_for_the_end(self) -> None:
        """Wait until the server closes the connection.

        Raises:
            RainTimeoutError: it does not.
        """
        try:
            while True:
                self._channel.receive(_left(self._deadline, f"{self.server.address} is still running"))
                self._channel.send(Heartbeat())
        except RainConnectionError:
            return


def _left(deadline: float, complaint: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise RainTimeoutError(f"{complaint}; give a larger --timeout, or look into the log of the server")
    return left
