"""Many small values stored: a run of `set` commands is one request, so that a key costs no objects of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rain.memcache import outcomes
from rain.memcache.client_errors import NodeUnavailable
from rain.memcache.deadlines import describe
from rain.memcache.exchanges import duplicate, run
from rain.memcache.forms import CRLF, set_tail
from rain.memcache.replies import UNSUPPORTED, Fault
from rain.memcache.requests import Request, StoreRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rain.memcache.exchanges import Exchange
    from rain.memcache.node import Node
    from rain.memcache.replies import Reply

SMALL: Final = 4096
"""Bytes up to which a value may be part of a run."""
FEW: Final = 4
"""Keys below which a run does not pay."""

_MOST_BYTES = 15_000  # a TLS record must hold a run: see `tls.records`
_LINE = 40  # bytes of a line besides the key, at most


async def store_small(
    node: Node,
    keys: Iterable[bytes],
    items: Mapping[bytes, bytes | memoryview],
    flags: int,
    exptime: int,
    deadline: float | None,
    failures: dict[bytes, Exception],
) -> list[bytes]:
    """Set the keys of one node.

    Args:
        node: has all the keys.
        keys: not bound to different connections.
        items: their values, small ones.
        flags, exptime: of all of them.
        deadline: time of the loop at which they fail, or None.
        failures: to which what fails is added, by key.

    Returns:
        The keys of which nothing was sent, since this is not possible on their connection; or their node has changed.
    """
    left: list[bytes] = []

    def answered(node: Node, request: Request, reply: Reply) -> None:
        assert isinstance(request, StoreRun)
        if reply is UNSUPPORTED:
            left.extend(request.keys)
            return
        replies = request.replies
        if isinstance(reply, Fault):
            replies.append(reply)
        _judge(node, request, failures)
        for key in request.keys[len(replies) :]:
            failures[key] = _lost(node, key)

    def failed(request: Request, error: Exception) -> None:
        assert isinstance(request, StoreRun)
        _judge(node, request, failures)
        whole = describe(request)
        for key in request.keys[len(request.replies) :]:
            failures[key] = own = duplicate(error)
            own.args = (str(error).replace(whole, describe(Request("set", key))),)

    exchanges: list[Exchange] = []
    for request in runs(keys, items, flags, exptime):
        request.deadline = deadline
        exchanges.append((node, request))
    if len(exchanges) == 1 and node.shortcut is not None:
        reply = node.shortcut.ask(request)
        if reply is not None:
            answered(node, request, reply)
            return left
    await run(exchanges, answered, failed)
    return left


def runs(
    keys: Iterable[bytes], items: Mapping[bytes, bytes | memoryview], flags: int, exptime: int
) -> Iterator[StoreRun]:
    """The requests that store the values of these keys."""
    parts: list[bytes | memoryview] = []
    taken: list[bytes] = []
    room = _MOST_BYTES
    for key in keys:
        value = items[key]
        size = len(value)
        room -= size + len(key) + _LINE
        if room < 0 and parts:
            yield StoreRun(tuple(taken), b"".join(parts[:-1]))
            parts, taken = [], []
            room = _MOST_BYTES - size - len(key) - _LINE
        taken.append(key)
        parts += (b"set ", key, set_tail(flags, exptime, size), value, CRLF)
    yield StoreRun(tuple(taken), b"".join(parts[:-1]))


def _lost(node: Node, key: bytes) -> NodeUnavailable:
    text = f"set of {key!r} was lost with its connection to {node.address}, which sent what is no answer"
    return NodeUnavailable(f"{text} (it may have been executed)", address=node.address, sent=True)


def _judge(node: Node, request: StoreRun, failures: dict[bytes, Exception]) -> None:
    """Enter the failures among the keys that were answered."""
    for key, reply in zip(request.keys, request.replies, strict=False):
        if reply != b"STORED":
            try:
                outcomes.judge(Request("set", key), reply, node.address)
            except Exception as error:
                failures[key] = error
