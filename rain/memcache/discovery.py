"""Autodiscovery: what a configuration endpoint answers, and the task that asks it again and again."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rain.memcache import outcomes, requests
from rain.memcache.addresses import Address, MemcachedHostAddress
from rain.memcache.client_errors import AuthenticationError, CommandError, NodeUnavailable
from rain.memcache.default_values import DEFAULT_STARTUP_WAIT_AUTODISCOVERY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rain.memcache.cluster import NodeFactory
    from rain.memcache.node import Node
    from rain.memcache.options import Options

logger = logging.getLogger(__name__)

STARTUP_INTERVAL = 1.0
"""Seconds from a poll in vain to the next while `create_client` waits."""
CLOSING_TIME = 1.0
"""Seconds that a cancelled poll has to end."""


@dataclass(frozen=True)
class Configuration:
    """A list of nodes.

    Attributes:
        version: grows with each change of the list.
        addresses: the nodes, none twice.
    """

    version: int
    addresses: tuple[Address, ...]


def parse_configuration(data: bytes) -> Configuration:
    """Read what a configuration endpoint tells.

    Raises:
        ValueError: it is no version and list of `host|ip|port`.
    """
    version, _, nodes = data.decode().strip().partition("\n")
    if not (version.strip().isascii() and version.strip().isdigit()):
        raise ValueError(f"the version of the configuration is no number: {version[:40]!r}")
    return Configuration(int(version), tuple(dict.fromkeys(map(_address, nodes.split()))))


def _address(entry: str) -> Address:
    host, ip, port = entry.split("|") if entry.count("|") == 2 else ("", "", "")
    if not (host or ip) or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"an entry of the configuration is not HOST|IP|PORT: {entry[:300]!r}")
    return MemcachedHostAddress(host or ip, int(port))


class Discovery:
    """Asks configuration endpoints for the nodes.

    Args:
        endpoints: addresses of the endpoints.
        options: of the client.
        apply: takes a list of nodes into use, and tells whether it changed anything.
        node_factory: makes the connection to an endpoint.
        shuffle: puts the endpoints in random order.
    """

    def __init__(
        self,
        endpoints: Sequence[Address],
        options: Options,
        apply: Callable[[Sequence[Address]], bool],
        *,
        node_factory: NodeFactory,
        shuffle: Callable[[list[Node]], None] = random.shuffle,
    ) -> None:
        self._options = options
        self._apply = apply
        self._shuffle = shuffle
        alone = replace(
            options,
            timeout=options.autodiscovery_timeout,
            min_connections=1,
            max_connections=1,
            purge_unused_connections_after=None,
        )
        self._endpoints = [node_factory(address, alone, on_health=_no_report) for address in endpoints]
        self._version: int | None = None
        self._found = False
        self._reason: Exception | None = None
        self._polling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Wait for the first list of nodes, then keep polling.

        Raises:
            NodeUnavailable: no endpoint gave a list in time.
            AuthenticationError: an endpoint refused the credentials.
        """
        for endpoint in self._endpoints:
            endpoint.start()
        try:
            async with asyncio.timeout(DEFAULT_STARTUP_WAIT_AUTODISCOVERY):
                await self.poll()
                while not self._found:
                    await asyncio.sleep(STARTUP_INTERVAL)
                    await self.poll()
        except TimeoutError:
            endpoints = ", ".join(str(endpoint.address) for endpoint in self._endpoints)
            raise NodeUnavailable(
                f"autodiscovery found no nodes within {DEFAULT_STARTUP_WAIT_AUTODISCOVERY:g} s at {endpoints}: "
                f"{self._reason or 'no answer'}; check that these are configuration endpoints that can be reached"
            ) from self._reason
        self._polling = asyncio.get_running_loop().create_task(self._keep_polling())

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(self._options.autodiscovery_poll_interval)
            await self.poll()

    async def poll(self) -> bool:
        """Ask the endpoints, one after another, until one answers; failures are logged.

        Returns:
            True if nodes came or went.

        Raises:
            AuthenticationError: an endpoint refused the credentials, and no nodes are known yet.
        """
        order = list(self._endpoints)
        self._shuffle(order)
        for endpoint in order:
            try:
                configuration = await self._ask(endpoint)
            except (CommandError, OSError, ValueError) as error:
                logger.warning("autodiscovery at %s failed: %s", endpoint.address, error)
                if isinstance(error, AuthenticationError) and not self._found:
                    raise
                self._reason = error
            else:
                return self._take(endpoint, configuration)
        return False

    async def _ask(self, endpoint: Node) -> Configuration | None:
        """What an endpoint tells; None if its server has no such thing as a configuration."""
        deadline = asyncio.get_running_loop().time() + self._options.autodiscovery_timeout
        for request in (requests.config(), requests.get_config()):
            request.deadline = deadline
            reply = await endpoint.execute(request)
            try:
                data: bytes | None = outcomes.judge(request, reply, endpoint.address)
            except CommandError as error:
                if error.reply != "ERROR":
                    raise
                data = None
            if data is not None:
                return parse_configuration(data)
        return None

    def _take(self, endpoint: Node, configuration: Configuration | None) -> bool:
        if configuration is None:
            if self._found:
                return False
            logger.warning("%s has no autodiscovery; the configuration endpoints are used as nodes", endpoint.address)
            self._found = True
            return self._apply([each.address for each in self._endpoints])
        if not configuration.addresses:
            self._reason = ValueError(f"{endpoint.address} told an empty list of nodes")
            return False
        if configuration.version == self._version:
            return False
        self._found = True
        self._version = configuration.version
        return self._apply(configuration.addresses)

    async def close(self) -> None:
        """End polling, close the connections to the endpoints."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling], timeout=CLOSING_TIME)
            self._polling = None
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))


def _no_report(endpoint: Node) -> None:
    """The health of an endpoint is nobody's business."""
