"""What replies mean: for the caller a result or an exception, for the connection whether it can go on."""

from __future__ import annotations

from enum import Enum
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from rain.memcache import client_errors as errors
from rain.memcache.base import Item
from rain.memcache.replies import MISS, UNSUPPORTED, ErrorLine, Fault, Items, MetaItem, Violation
from rain.memcache.requests import MANY_KEY_FETCHES, ONE_KEY_FETCHES, STORAGE_COMMANDS, WITH_CAS, has_data_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.memcache.addresses import Address
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request

_UNAUTHENTICATED = (b"CLIENT_ERROR unauthenticated", b"CLIENT_ERROR bad authentication token format")


class Breach(Enum):
    """What a reply does to its connection."""

    OUT_OF_STEP = "out of step"
    """Abort it: what follows cannot be understood."""
    UNAUTHENTICATED = "unauthenticated"
    """Close it: the node wants credentials."""


def breach(request: Request | None, reply: Reply) -> Breach | None:
    """Tell what a reply does to its connection, or None; only a `Fault` does anything."""
    if not isinstance(reply, Fault):
        return None
    if not isinstance(reply, ErrorLine):
        return Breach.OUT_OF_STEP
    if reply.line.startswith(_UNAUTHENTICATED):
        return Breach.UNAUTHENTICATED
    if request is not None and has_data_block(request) and not reply.line.startswith(b"SERVER_ERROR"):
        return Breach.OUT_OF_STEP
    return None


def failure(request: Request, reply: Reply, address: Address | None) -> errors.CommandError:
    """Make the exception for a reply that is no success of its command."""
    if reply is UNSUPPORTED:
        text, reason = None, "is not possible in the protocol of this connection"
    elif isinstance(reply, Violation):
        text = _text(reply.line)
        reason = f"was answered with what breaks the protocol ({reply.reason}): {text}"
    else:
        text = _text(reply.line if isinstance(reply, Fault) else reply)
        reason = f"was answered {text}{_HINTS.get(text, '')}"
    key = f" {request.key!r}" if request.key else ""
    where = "" if address is None else f" at {address}"
    what = f"{request.command}{key}{where} {reason}"
    return _error_class(request, reply)(what, reply=text, command=request.command, address=address)


def _text(reply: object) -> str:
    return reply.decode("ascii", "backslashreplace") if isinstance(reply, bytes) else repr(reply)


def _error_class(request: Request, reply: Reply) -> type[errors.CommandError]:
    error = reply.line if isinstance(reply, ErrorLine) else b""
    if request.command == "authenticate" or error.startswith(_UNAUTHENTICATED):
        return errors.AuthenticationError
    if request.command in STORAGE_COMMANDS:
        return errors.StorageCommandError
    if error.startswith(b"CLIENT_ERROR"):
        return errors.ClientError
    if error.startswith(b"SERVER_ERROR"):
        return errors.ServerError
    return errors.CommandError


def judge(request: Request, reply: Reply, address: Address | None) -> Any:
    """Return the result of an operation, or raise what it raises.

    Returns:
        Of fetches of one key the item or None; of many keys a dict of the hits; of `increment` and `decrement` the
        number; of `version` the text; of `stats` a dict; of `config` and `get_config` the bytes or None; of meta
        commands the `MetaItem`; of all others None.
    """
    return _JUDGES[request.command](request, reply, address)


def item(request: Request, reply: Reply, address: Address | None) -> Item | None:
    """Judge the fetch of one key: the item, or None for a miss and for the placeholder of a lease."""
    if type(reply) is Item:
        return reply
    if reply is MISS:
        return None
    if not isinstance(reply, MetaItem):
        raise failure(request, reply, address)
    if not reply.value and (reply.won or reply.pending) and not reply.stale:
        return None
    flags = reply.flags if request.return_flags else None
    return Item(reply.value, flags, reply.cas if request.command in WITH_CAS else None)


def items(request: Request, reply: Reply, address: Address | None) -> dict[bytes, Item]:
    """Judge the fetch of many keys: the hits."""
    if not isinstance(reply, Items):
        raise failure(request, reply, address)
    flags = reply.flags if request.return_flags else repeat(None)
    cas = reply.cas if request.command in WITH_CAS else repeat(None)
    return dict(zip(reply.keys, map(Item, reply.values, flags, cas), strict=True))


def stored(request: Request, reply: Reply, address: Address | None) -> None:
    """Judge a storage command: stored, or an exception."""
    if reply != b"STORED":
        if reply == _CONDITION_FAILED.get(request.command) or (reply is UNSUPPORTED and request.command == "cas"):
            raise errors.NotStoredStorageCommandError(reply=_text(reply), command=request.command, address=address)
        raise failure(request, reply, address)


def _number(request: Request, reply: Reply, address: Address | None) -> int:
    if isinstance(reply, bytes) and reply.isdigit():
        return int(reply)
    raise _not_found_or_failure(request, reply, address)


def _done(request: Request, reply: Reply, address: Address | None) -> None:
    if reply != _SUCCESSES[request.command]:
        raise _not_found_or_failure(request, reply, address)


def _not_found_or_failure(request: Request, reply: Reply, address: Address | None) -> errors.CommandError:
    if reply == b"NOT_FOUND":
        return errors.NotFoundCommandError(reply="NOT_FOUND", command=request.command, address=address)
    return failure(request, reply, address)


def _version(request: Request, reply: Reply, address: Address | None) -> str:
    if isinstance(reply, bytes):
        return _text(reply.removeprefix(b"VERSION "))
    raise failure(request, reply, address)


def _stats(request: Request, reply: Reply, address: Address | None) -> dict[str, str]:
    if isinstance(reply, dict):
        return reply
    raise failure(request, reply, address)


def _config(request: Request, reply: Reply, address: Address | None) -> bytes | None:
    if isinstance(reply, Items):
        return reply.values[0] if reply.values else None
    raise failure(request, reply, address)


def _meta(request: Request, reply: Reply, address: Address | None) -> MetaItem:
    if isinstance(reply, MetaItem):
        return reply
    raise failure(request, reply, address)


def _alive(request: Request, reply: Reply, address: Address | None) -> None:
    if isinstance(reply, Fault) or reply is UNSUPPORTED:
        raise failure(request, reply, address)


_HINTS: Final = {
    "SERVER_ERROR object too large for cache": " (raise its option -I, or pass chunking=True)",
    "CLIENT_ERROR unauthenticated": " (pass username= and password=)",
}
"""What to do about some error lines."""

_CONDITION_FAILED: Final = {
    "add": b"NOT_STORED",
    "replace": b"NOT_STORED",
    "append": b"NOT_STORED",
    "prepend": b"NOT_STORED",
    "cas": b"EXISTS",
}

_SUCCESSES: Final = {
    "touch": b"TOUCHED",
    "delete": b"DELETED",
    "flush_all": b"OK",
    "cache_memlimit": b"OK",
    "verbosity": b"OK",
    "authenticate": b"STORED",
}

_JUDGES: Final[dict[str, Callable[[Request, Reply, Address | None], Any]]] = {
    **dict.fromkeys(ONE_KEY_FETCHES, item),
    **dict.fromkeys(MANY_KEY_FETCHES, items),
    **dict.fromkeys(STORAGE_COMMANDS, stored),
    **dict.fromkeys(("increment", "decrement"), _number),
    **dict.fromkeys(_SUCCESSES, _done),
    "version": _version,
    "stats": _stats,
    **dict.fromkeys(("config", "get_config"), _config),
    **dict.fromkeys(("lease", "placeholder", "touch_fetch", "meta_delete", "meta_delete_invalid"), _meta),
    **dict.fromkeys(("barrier", "probe"), _alive),
}
