"""Operations on many keys: grouped by node, cut into commands, sent side by side, collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.memcache import outcomes, requests
from rain.memcache.bulk import FEW, SMALL, store_small
from rain.memcache.exchanges import accept, execute_all, run, send_and_forget, together
from rain.memcache.replies import UNSUPPORTED, Items, MetaItem
from rain.memcache.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rain.memcache.base import Item
    from rain.memcache.chunking import Chunking
    from rain.memcache.cluster import Cluster
    from rain.memcache.exchanges import Exchange
    from rain.memcache.node import Node
    from rain.memcache.replies import Reply

_MOST_KEYS = 256
_LONGEST_LINE = 16_000
_LONGEST_TOUCHING_LINE = 2_000
_TOUCHING = frozenset({"gat_many", "gats_many"})
_LINE_OVERHEAD = 20
"""Bytes of a line besides the keys and the blanks before them: the command, an expiry."""


class ManyKeys:
    """The `*_many` operations of one client; keys and values that come here are checked."""

    def __init__(self, cluster: Cluster, chunking: Chunking | None) -> None:
        self._cluster = cluster
        self._chunking = chunking

    async def fetch(
        self, command: str, keys: list[bytes], return_flags: bool, exptime: int, deadline: float | None
    ) -> dict[bytes, Item]:
        """The items of `get_many`, `gets_many`, `gat_many`, `gats_many`; the first failure is raised."""
        chunking = self._chunking
        exchanges: list[Exchange] = []
        for node, group in self._cluster.group(keys).items():
            for piece in cut(command, node.parts(group)):
                request = requests.fetch_many(command, tuple(piece), return_flags or chunking is not None, exptime)
                request.deadline = deadline
                exchanges.append((node, request))
        items: dict[bytes, Item] = {}
        empty: list[tuple[Node, bytes]] = []
        for (node, request), reply in zip(exchanges, await execute_all(exchanges), strict=True):
            found: dict[bytes, Item] = outcomes.judge(request, reply, node.address)
            if isinstance(reply, Items) and b"" in reply.values:
                empty += [(node, key) for key, item in found.items() if not item.value and not item.flags]
            items.update(found)
        if empty:
            await drop_placeholders(empty, items, deadline)
        if chunking is not None:
            await self._resolve(chunking, items, return_flags, exptime if command in _TOUCHING else None, deadline)
        return items

    async def _resolve(
        self,
        chunking: Chunking,
        items: dict[bytes, Item],
        return_flags: bool,
        exptime: int | None,
        deadline: float | None,
    ) -> None:
        for key, found in list(items.items()):
            item = await chunking.resolve(key, found, deadline, exptime)
            if item is None:
                del items[key]
                continue
            items[key] = item
            if not return_flags:
                item.flags = None

    async def store(
        self,
        items: Mapping[bytes, bytes | memoryview],
        flags: int,
        exptime: int,
        noreply: bool,
        deadline: float | None,
    ) -> dict[bytes, Exception]:
        """The failures of `set_many`."""
        chunking = self._chunking
        large: list[Request] = []

        def make(node: Node, keys: Iterable[bytes]) -> Iterator[Exchange]:
            for key in keys:
                request = Request("set", key, (), items[key], flags, exptime, 0, (), False, noreply)
                request.deadline = deadline
                if chunking is not None and chunking.is_large(request):
                    large.append(request)
                else:
                    yield node, request

        failures: dict[bytes, Exception] = {}
        rest = list(items)
        if chunking is None and not noreply and len(items) >= FEW:
            rest = await self._store_small(items, flags, exptime, deadline, failures)
        if rest:
            failures.update(await self._run(rest, make, accept))
        for request in large:
            assert chunking is not None
            try:
                await chunking.store(request)
            except RuntimeError:
                raise
            except Exception as error:
                failures[request.key] = error
        return failures

    async def _store_small(
        self,
        items: Mapping[bytes, bytes | memoryview],
        flags: int,
        exptime: int,
        deadline: float | None,
        failures: dict[bytes, Exception],
    ) -> list[bytes]:
        """Store the small values in runs; gives the keys that are not among them."""
        small = [key for key, value in items.items() if len(value) <= SMALL]
        left = [key for key in items if len(items[key]) > SMALL] if len(small) < len(items) else []

        async def store(node: Node, keys: list[bytes]) -> None:
            left.extend(await store_small(node, keys, items, flags, exptime, deadline, failures))

        if small:
            groups = self._cluster.group(small).items()
            await together([store(node, part) for node, keys in groups for part in node.parts(keys)])
        return left

    async def delete(self, keys: list[bytes], noreply: bool, deadline: float | None) -> dict[bytes, Exception]:
        """The failures of `delete_many`."""

        def make(node: Node, keys: Iterable[bytes]) -> Iterator[Exchange]:
            for key in keys:
                request = requests.delete(key, noreply)
                request.deadline = deadline
                yield node, request

        return await self._run(keys, make, accept)

    async def touch(
        self, keys: list[bytes], exptime: int, noreply: bool, deadline: float | None
    ) -> dict[bytes, Exception]:
        """The failures of `touch_many`."""
        if self._chunking is not None:
            return await self._touch_parts(self._chunking, keys, exptime, noreply, deadline)

        def make(node: Node, keys: Iterable[bytes]) -> Iterator[Exchange]:
            for key in keys:
                request = requests.touch(key, exptime, noreply)
                request.deadline = deadline
                yield node, request

        return await self._run(keys, make, accept)

    async def _touch_parts(
        self, chunking: Chunking, keys: list[bytes], exptime: int, noreply: bool, deadline: float | None
    ) -> dict[bytes, Exception]:
        rest: list[tuple[Node, Request, Reply]] = []

        def make(node: Node, keys: Iterable[bytes]) -> Iterator[Exchange]:
            for key in keys:
                yield node, chunking.touch_request(node, key, exptime, deadline)

        def answered(node: Node, request: Request, reply: Reply) -> None:
            rest.append((node, request, reply))

        failures = await self._run(keys, make, answered)
        for node, request, reply in rest:
            try:
                await chunking.touch_rest(node, request, reply, noreply=noreply)
            except RuntimeError:
                raise
            except Exception as error:
                failures[request.key] = error
        return failures

    async def _run(
        self,
        keys: Iterable[bytes],
        make: Callable[[Node, Iterable[bytes]], Iterator[Exchange]],
        answered: Callable[[Node, Request, Reply], None],
    ) -> dict[bytes, Exception]:
        failures: dict[bytes, Exception] = {}

        def failed(request: Request, error: Exception) -> None:
            failures[request.key] = error

        await together([run(make(node, group), answered, failed) for node, group in self._cluster.group(keys).items()])
        return failures


def cut(command: str, groups: list[list[bytes]]) -> list[list[bytes]]:
    """Cut lists of keys so that each piece is one command that servers accept."""
    longest = (_LONGEST_TOUCHING_LINE if command in _TOUCHING else _LONGEST_LINE) - _LINE_OVERHEAD
    pieces = []
    for keys in groups:
        if len(keys) <= _MOST_KEYS and sum(map(len, keys)) + len(keys) <= longest:
            pieces.append(keys)
            continue
        piece: list[bytes] = []
        length = 0
        for key in keys:
            length += 1 + len(key)
            if length > longest or len(piece) == _MOST_KEYS:
                pieces.append(piece)
                piece = []
                length = 1 + len(key)
            piece.append(key)
        pieces.append(piece)
    return pieces


async def drop_placeholders(
    asked: Sequence[tuple[Node, bytes]], items: dict[bytes, Item], deadline: float | None
) -> None:
    """Ask again for keys whose values came empty: those that are placeholders of leases are taken out of `items`."""
    exchanges: list[Exchange] = []
    for node, key in asked:
        request = requests.placeholder(key)
        request.deadline = deadline
        exchanges.append((node, request))
    for (node, request), reply in zip(exchanges, await execute_all(exchanges), strict=True):
        if reply is UNSUPPORTED:
            continue
        give_win_back(node, request, reply)
        found: MetaItem = outcomes.judge(request, reply, node.address)
        is_placeholder = not found.value and not found.stale and (found.won or found.pending)
        if is_placeholder or found.code != "VA":
            del items[request.key]
            continue
        item = items[request.key]
        item.value = found.value
        item.flags = None if item.flags is None else found.flags
        item.cas = None if item.cas is None else found.cas


def give_win_back(node: Node, request: Request, reply: Reply) -> None:
    """A plain fetch that was told to refresh a stale item does not: leave it to the next one."""
    if isinstance(reply, MetaItem) and reply.won:
        back = requests.meta_delete_invalid(request.key)
        back.own = True
        send_and_forget(node, back)
