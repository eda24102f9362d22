"""`create_client`: from addresses or a URL, and options, to a client."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Unpack

from rain.memcache.addresses import (
    Address,
    MemcachedHostAddress,
    MemcachedUnixSocketPath,
    parse_address,
    parse_url,
)
from rain.memcache.base import Client
from rain.memcache.client import MemcachedClient
from rain.memcache.options import GivenOptions, Options, from_url
from rain.memcache.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType


class ClientInOpening(Coroutine[Any, Any, Client]):
    """A client to be: `await` it, give it to `asyncio.create_task`, or use it with `async with`; once."""

    def __init__(self, addresses: list[Address], options: Options) -> None:
        self._addresses = addresses
        self._options = options
        self._opening: Coroutine[Any, Any, Client] | None = None
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"<client of {', '.join(map(str, self._addresses))}, not yet open>"

    async def _open(self) -> Client:
        client = MemcachedClient(self._addresses, self._options)
        try:
            await client.open()
        except BaseException:
            await client.close()
            raise
        return client

    def _started(self) -> Coroutine[Any, Any, Client]:
        if self._opening is None:
            self._opening = self._open()
        return self._opening

    def __await__(self) -> Generator[Any, Any, Client]:
        if self._opening is not None:
            raise RuntimeError("what create_client() returned was used before; call create_client() again")
        return self._started().__await__()

    def send(self, value: Any) -> Any:
        """Run on, as coroutines do."""
        return self._started().send(value)

    def throw(self, *error: Any) -> Any:
        """Run on with an exception, as coroutines do."""
        return self._started().throw(*error)

    def close(self) -> None:
        """End without having run, as coroutines do."""
        self._started().close()

    async def __aenter__(self) -> Client:
        self._client = await self
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.close()


def create_client(node_addresses: Sequence[Address | str] | str, **options: Unpack[GivenOptions]) -> ClientInOpening:
    """Make a client of one or more Memcached nodes.

    It does not wait for connections: they open in the background, and nodes that are down never make it fail. Only
    with autodiscovery it waits, up to 10 s, until the nodes are known.

    Args:
        node_addresses: addresses of the nodes, which may also be written `"host:port"`, `"[IPv6]:port"` or `"/path"`;
            or one URL, `"memcached://user:password@host:port,host:port/?option=value"`.
        options: see docs/memcache/options.md. They win over those of the URL.

    Returns:
        What is to be awaited, or used with `async with`, to have the client:

            client = await create_client([MemcachedHostAddress("localhost", 11211)])
            async with create_client("memcached://cache-1,cache-2") as client: ...

    Raises:
        ValueError: no address, or an option that makes no sense.
        TypeError: an argument of the wrong type.
        OSError: a file of certificates cannot be read.
    """
    unknown = options.keys() - _SIGNATURE.parameters.keys()
    if unknown:
        raise TypeError(f"create_client() has no option {min(unknown)!r}")
    if isinstance(node_addresses, str):
        addresses, texts = parse_url(node_addresses)
        options = {**from_url(texts), **options}
    else:
        addresses = [_address(item) for item in node_addresses]
    if not addresses:
        raise ValueError("node_addresses is empty; give at least one node")
    checked = Options(**options)  # type: ignore[arg-type]  # min_connections=None is made the default there
    checked.check_addresses(addresses)
    return ClientInOpening(addresses, replace(checked, ssl_context=client_context(checked)))


def _address(item: Address | str) -> Address:
    if isinstance(item, str):
        return parse_address(item)
    if isinstance(item, (MemcachedHostAddress, MemcachedUnixSocketPath)):
        return item
    wanted = "a MemcachedHostAddress, a MemcachedUnixSocketPath or a str"
    raise TypeError(f"a node address must be {wanted}, not a {type(item).__name__}")


_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter(
            "node_addresses", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="Sequence[Address | str] | str"
        ),
        *(
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type
            )
            for option in fields(Options)
            if option.name != "ssl_context"
        ),
    ],
    return_annotation="ClientInOpening",
)
create_client.__signature__ = _SIGNATURE  # type: ignore[attr-defined]  # what tools and help() show
