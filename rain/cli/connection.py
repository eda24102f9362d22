"""How a command finds its server, and asks it one thing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rain.cli import values
from rain.cli.output import FORMATS
from rain.common.errors import InvalidRequestError, RainConnectionError, RainException, RainTimeoutError
from rain.common.failure import Failure
from rain.net.access import newest_access_file, read_access_file
from rain.net.address import Address
from rain.net.secret import Secret, find_secret
from rain.protocol.messages import Heartbeat, Refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from rain.net.blocking import BlockingChannel
    from rain.protocol.messages import Message

SEQ = 1
"""A command asks one question per connection."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server and what proves to it that we may talk to it."""

    address: Address
    secret: Secret


def add_secret_options(parser: argparse.ArgumentParser) -> None:
    """Options that name the secret of a server."""
    parser.add_argument("--token-file", metavar="FILE", help="file with the secret of the server")
    parser.add_argument("--access-file", metavar="FILE", help="access file of the server")


def add_management_options(parser: argparse.ArgumentParser) -> None:
    """Options of all verbs that talk to a running server."""
    parser.add_argument(
        "--server", metavar="ADDR", help="default: RAIN_ADDRESS, RAIN_ACCESS_FILE, the newest access file"
    )
    add_secret_options(parser)
    parser.add_argument("--timeout", type=values.duration, default=10.0, metavar="T", help="default: 10 s")
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
    from rain.net.blocking import BlockingChannel

    deadline = time.monotonic() + timeout
    channel = BlockingChannel.connect(server.address, "client", server.secret, timeout=timeout)
    try:
        channel.send(question)
        answered = _receive_answer(channel, answer, deadline, server.address)
        if until_closed:
            _wait_for_the_end(channel, deadline, server.address)
        return answered
    finally:
        channel.close()


def _receive_answer(channel: BlockingChannel, answer: type[Answer], deadline: float, address: Address) -> Answer:
    while True:
        for message in channel.receive(_left(deadline, f"{address} has not answered in time")):
            if isinstance(message, answer):
                return message
            if isinstance(message, Refused):
                raise InvalidRequestError(Failure.from_map(message.failure).message)


def _wait_for_the_end(channel: BlockingChannel, deadline: float, address: Address) -> None:
    try:
        while True:
            channel.receive(_left(deadline, f"{address} is still running"))
            channel.send(Heartbeat())
    except RainConnectionError:
        return


def _left(deadline: float, complaint: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise RainTimeoutError(f"{complaint}; give a larger --timeout, or look into the log of the server")
    return left
