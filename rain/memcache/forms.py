"""What commands look like on the wire: their lines, classic and meta, and the shapes of their replies."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rain.memcache.requests import NO_SHAPE, WITH_CAS, Kind, Request, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

CRLF: Final = b"\r\n"
PROBE_LINE: Final = b"get rain:probe\r\n"

FETCH: Final = Shape(Kind.META, codes=(b"VA", b"EN"))
"""Of a fetch of one key in meta form; the parser has a short path for it."""
VALUES: Final = Shape(Kind.VALUES)
STORES: Final = Shape(Kind.LINE)
"""Of a run of `set`s: as many lines."""

STORAGE: Final = Shape(Kind.LINE, b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND")
_NUMBER = Shape(Kind.LINE, b"NOT_FOUND", pattern=rb"[0-9]{1,20}")
_OK = Shape(Kind.LINE, b"OK")

_COMMON_SHAPES = {
    **dict.fromkeys(("get_many", "gets_many", "gat_many", "gats_many", "get_config", "probe"), VALUES),
    **dict.fromkeys(("set", "add", "replace", "append", "prepend", "cas"), STORAGE),
    "set_many": STORES,
    **dict.fromkeys(("increment", "decrement"), _NUMBER),
    **dict.fromkeys(("flush_all", "verbosity"), _OK),
    "touch": Shape(Kind.LINE, b"TOUCHED", b"NOT_FOUND"),
    "delete": Shape(Kind.LINE, b"DELETED", b"NOT_FOUND"),
    "cache_memlimit": Shape(Kind.LINE, b"OK", pattern=rb"MEMLIMIT_TOO_SMALL.*"),
    "version": Shape(Kind.LINE, pattern=rb"VERSION .*"),
    "stats": Shape(Kind.STATS),
    "quit": NO_SHAPE,
    "config": Shape(Kind.CONFIG),
    "authenticate": Shape(Kind.LINE, b"STORED"),
}
CLASSIC_SHAPES: Final = {
    **_COMMON_SHAPES,
    **dict.fromkeys(("get", "gets", "gat", "gats", "barrier"), VALUES),
}
"""Shape of the reply by command; a command that is missing does not exist there."""

_META_FETCH = Shape(Kind.META, codes=(b"VA", b"EN"))
_META_DELETE = Shape(Kind.META, codes=(b"HD", b"NF", b"EX"))

META_SHAPES: Final = {
    **_COMMON_SHAPES,
    **dict.fromkeys(("get", "gets", "gat", "gats"), FETCH),
    **dict.fromkeys(("lease", "placeholder"), _META_FETCH),
    **dict.fromkeys(("meta_delete", "meta_delete_invalid"), _META_DELETE),
    "touch_fetch": Shape(Kind.META, codes=(b"HD", b"EN")),
    "barrier": Shape(Kind.META, codes=(b"MN",)),
}
"""The same for connections that use meta commands."""


@lru_cache(1024)
def set_tail(flags: int, exptime: int, size: int) -> bytes:
    """What follows the key in the line of a `set`."""
    return b" %d %d %d\r\n" % (flags, exptime, size)


def _noreply(request: Request) -> bytes:
    return b" noreply\r\n" if request.noreply else CRLF


def _storage(request: Request) -> bytes:
    value = request.value
    assert value is not None
    head = b"%b %b %d %d %d" % (
        request.command.encode(),
        request.key,
        request.flags,
        request.exptime,
        len(value),
    )
    return head + _noreply(request)


def _cas(request: Request) -> bytes:
    value = request.value
    assert value is not None
    return b"cas %b %d %d %d %d%b" % (
        request.key,
        request.flags,
        request.exptime,
        len(value),
        request.token,
        _noreply(request),
    )


def _authenticate(request: Request) -> bytes:
    assert request.value is not None
    return b"set _ _ _ %d\r\n" % len(request.value)


def _stats(request: Request) -> bytes:
    return " ".join(("stats", *request.arguments)).encode() + CRLF


CLASSIC_LINES: Final[dict[str, Callable[[Request], bytes]]] = {
    "get": lambda request: b"get %b\r\n" % request.key,
    "gets": lambda request: b"gets %b\r\n" % request.key,
    "gat": lambda request: b"gat %d %b\r\n" % (request.exptime, request.key),
    "gats": lambda request: b"gats %d %b\r\n" % (request.exptime, request.key),
    "get_many": lambda request: b"get %b\r\n" % b" ".join(request.keys),
    "gets_many": lambda request: b"gets %b\r\n" % b" ".join(request.keys),
    "gat_many": lambda request: b"gat %d %b\r\n" % (request.exptime, b" ".join(request.keys)),
    "gats_many": lambda request: b"gats %d %b\r\n" % (request.exptime, b" ".join(request.keys)),
    **dict.fromkeys(("set", "add", "replace", "append", "prepend"), _storage),
    "set_many": lambda request: b"",
    "cas": _cas,
    "increment": lambda request: b"incr %b %d%b" % (request.key, request.token, _noreply(request)),
    "decrement": lambda request: b"decr %b %d%b" % (request.key, request.token, _noreply(request)),
    "touch": lambda request: b"touch %b %d%b" % (request.key, request.exptime, _noreply(request)),
    "delete": lambda request: b"delete %b%b" % (request.key, _noreply(request)),
    "flush_all": lambda request: b"flush_all %d%b" % (request.exptime, _noreply(request)),
    "cache_memlimit": lambda request: b"cache_memlimit %d%b" % (request.token, _noreply(request)),
    "verbosity": lambda request: b"verbosity %d%b" % (request.token, _noreply(request)),
    "version": lambda request: b"version\r\n",
    "stats": _stats,
    "quit": lambda request: b"quit\r\n",
    "config": lambda request: b"config get cluster\r\n",
    "get_config": lambda request: b"get %b\r\n" % request.key,
    "barrier": lambda request: PROBE_LINE,
    "probe": lambda request: PROBE_LINE,
    "authenticate": _authenticate,
}
"""Line of a command by its name, end of line included; a data block and its end follow."""


def _meta_get(request: Request) -> bytes:
    """`mg k v [f] [c] [T<e>]`, for the fetches of one key."""
    line = b"mg %b v" % request.key
    if request.return_flags:
        line += b" f"
    if request.command in WITH_CAS:
        line += b" c"
    if request.command.startswith("gat"):
        line += b" T%d" % request.exptime
    return line + CRLF


def _lease(request: Request) -> bytes:
    refresh = b" R%d" % request.token if request.token else b""
    return b"mg %b v f c N%d%b\r\n" % (request.key, request.exptime, refresh)


META_LINES: Final[dict[str, Callable[[Request], bytes]]] = {
    **CLASSIC_LINES,
    **dict.fromkeys(("get", "gets", "gat", "gats"), _meta_get),
    "lease": _lease,
    "meta_delete": lambda request: b"md %b C%d\r\n" % (request.key, request.token),
    "meta_delete_invalid": lambda request: b"md %b I\r\n" % request.key,
    "touch_fetch": lambda request: b"mg %b f T%d\r\n" % (request.key, request.exptime),
    "placeholder": lambda request: b"mg %b v f c\r\n" % request.key,
    "barrier": lambda request: b"mn\r\n",
}
"""The same for connections that use meta commands."""
