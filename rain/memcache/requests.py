"""Commands to bytes: one `Request` per command, its lines in classic and in meta form.

A request says what is wanted; the dialect of a connection decides how it is written and which shape its reply has. The
functions below make requests, named by command. They check nothing: whatever comes here was validated.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.memcache.replies import Reply


CONFIG_KEY: Final = b"AmazonElastiCache:cluster"
PROBE_KEY: Final = b"rain:probe"

ONE_KEY_FETCHES = frozenset({"get", "gets", "gat", "gats"})
MANY_KEY_FETCHES = frozenset({"get_many", "gets_many", "gat_many", "gats_many"})
STORAGE_COMMANDS = frozenset({"set", "add", "replace", "append", "prepend", "cas"})
WITH_CAS = frozenset({"gets", "gats", "gets_many", "gats_many"})
PLAIN_READS = frozenset({"get", "gets", "get_many", "gets_many", "version", "stats", "placeholder"})


class Kind(IntEnum):
    """How a reply is built of lines and data blocks."""

    NONE = 0
    LINE = 1  # one line
    VALUES = 2  # VALUE lines with their blocks, then END
    META = 3  # one line, with a data block after VA
    STATS = 4  # STAT lines, then END; or one of the known lines
    CONFIG = 5  # CONFIG line, data block, END; or END alone


class Shape:
    """What the reply to a command may be; an error line may always come instead.

    Args:
        kind: how it is built.
        lines: what a reply of one line may be.
        pattern: further such lines.
        codes: of meta replies.

    Attributes:
        replies: the lines, by the bytes that come when one of them is all of a reply.
    """

    __slots__ = ("codes", "kind", "lines", "pattern", "replies")

    def __init__(self, kind: Kind, *lines: bytes, pattern: bytes | None = None, codes: tuple[bytes, ...] = ()) -> None:
        self.kind = kind
        self.lines = frozenset(lines)
        self.replies = {line + b"\r\n": line for line in lines}
        self.pattern = None if pattern is None else re.compile(pattern)
        self.codes = frozenset(codes)


NO_SHAPE: Final = Shape(Kind.NONE)


class Request:
    """One command on one connection, neutral of the dialect.

    Attributes:
        command: `get`, `gets`, `gat`, `gats` (one key); the same with `_many` (one command with several keys); `set`,
            `set_many` (a `StoreRun`), `add`, `replace`, `append`, `prepend`, `cas`; `increment`, `decrement`,
            `touch`, `delete`; `flush_all`,
            `version`, `stats`, `cache_memlimit`, `verbosity`, `quit`; `config` and `get_config` (discovery); `lease`,
            `meta_delete`, `meta_delete_invalid`, `touch_fetch`, `placeholder` (meta only); `barrier`, `probe`,
            `authenticate`.
        key: the key, or `b""` where there is none.
        keys: the keys of `*_many`, all different.
        value: the data block, or None.
        flags: number stored along with the value.
        exptime: expiry as the server takes it; of `lease` its seconds, of `flush_all` the delay.
        token: of `cas` and `meta_delete` the version, of `increment` and `decrement` the delta, of `lease` the seconds
            of staleness, of `cache_memlimit` megabytes, of `verbosity` the level.
        arguments: of `stats`; of `authenticate` the user name and the password.
        return_flags: the caller wants the flags.
        noreply: the server is asked not to answer.
        commands: how many commands it counts for in metrics.
        own: made by the client for itself, not counted in metrics.
        waiter: the future of the caller, or None; a request whose waiter is done is abandoned.
        deadline: time of the loop at which the waiter fails, or None.
        carrier: the connection it was handed over to; kept by the connection only.
        sent_before: it is a plain read that was sent once already.
        on_late: told of the reply that came after the request was abandoned, or None.
        shape: of the reply; set by the dialect.
    """

    __slots__ = (
        "arguments",
        "carrier",
        "command",
        "commands",
        "deadline",
        "exptime",
        "flags",
        "key",
        "keys",
        "noreply",
        "on_late",
        "own",
        "return_flags",
        "sent_before",
        "shape",
        "token",
        "value",
        "waiter",
    )

    def __init__(
        self,
        command: str,
        key: bytes = b"",
        keys: tuple[bytes, ...] = (),
        value: bytes | memoryview | None = None,
        flags: int = 0,
        exptime: int = 0,
        token: int = 0,
        arguments: tuple[str, ...] = (),
        return_flags: bool = False,
        noreply: bool = False,
        own: bool = False,
    ) -> None:
        self.command = command
        self.key = key
        self.keys = keys
        self.value = value
        self.flags = flags
        self.exptime = exptime
        self.token = token
        self.arguments = arguments
        self.return_flags = return_flags
        self.noreply = noreply
        self.own = own
        self.commands = 1
        self.waiter: Any = None
        self.deadline: float | None = None
        self.carrier: Any = None
        self.sent_before = False
        self.on_late: Callable[[Request, Reply], None] | None = None
        self.shape: Shape = NO_SHAPE

    def __repr__(self) -> str:
        return f"<Request {self.command} {self.key!r}>" if self.key else f"<Request {self.command}>"


class StoreRun(Request):
    """Several `set`s that are sent as one buffer and answered as one request.

    Attributes:
        replies: what came back so far: a line or an error line for each of the first keys. The reply to the whole is
            `STORED` if all are; else `NOT_STORED`, or the `Fault` that ended the connection at the next key.

    Args:
        keys: all different.
        data: the commands with their data blocks, except the last end of line.
    """

    __slots__ = ("replies",)

    def __init__(self, keys: tuple[bytes, ...], data: bytes) -> None:
        super().__init__("set_many", b"", keys, data)
        self.commands = len(keys)
        self.replies: list[Reply] = []


def is_plain_read(request: Request) -> bool:
    """True for a request that changes nothing, so that it may be sent again when its connection was lost."""
    return request.command in PLAIN_READS


def has_data_block(request: Request) -> bool:
    """True for a request whose line is followed by data, which a server that refused the line may read as commands."""
    return request.value is not None


def is_abandoned(request: Request) -> bool:
    """True when nobody waits for the reply any more."""
    waiter = request.waiter
    return waiter is not None and bool(waiter.done())


def fetch(command: str, key: bytes, return_flags: bool = False, exptime: int = 0) -> Request:
    """Make a `get`, `gets`, `gat` or `gats`."""
    return Request(command, key, (), None, 0, exptime, 0, (), return_flags)


def fetch_many(command: str, keys: tuple[bytes, ...], return_flags: bool = False, exptime: int = 0) -> Request:
    """Make a `get_many`, `gets_many`, `gat_many` or `gats_many`; the keys must be different."""
    return Request(command, b"", keys, None, 0, exptime, 0, (), return_flags)


def store(
    command: str,
    key: bytes,
    value: bytes | memoryview,
    flags: int = 0,
    exptime: int = 0,
    token: int = 0,
    noreply: bool = False,
) -> Request:
    """Make a `set`, `add`, `replace`, `append`, `prepend` or `cas`; a memoryview must be one of bytes."""
    return Request(command, key, (), value, flags, exptime, token, (), False, noreply)


def arithmetic(command: str, key: bytes, delta: int, noreply: bool = False) -> Request:
    """Make an `increment` or a `decrement`."""
    return Request(command, key, token=delta, noreply=noreply)


def touch(key: bytes, exptime: int, noreply: bool = False) -> Request:
    """Make a `touch`."""
    return Request("touch", key, exptime=exptime, noreply=noreply)


def delete(key: bytes, noreply: bool = False) -> Request:
    """Make a `delete`."""
    return Request("delete", key, noreply=noreply)


def flush_all(delay: int = 0, noreply: bool = False) -> Request:
    """Make a `flush_all`, done after `delay` seconds."""
    return Request("flush_all", exptime=delay, noreply=noreply)


def version(own: bool = False) -> Request:
    """Make a `version`."""
    return Request("version", own=own)


def stats(arguments: tuple[str, ...] = ()) -> Request:
    """Make a `stats`."""
    return Request("stats", arguments=arguments)


def cache_memlimit(megabytes: int, noreply: bool = False) -> Request:
    """Make a `cache_memlimit`."""
    return Request("cache_memlimit", token=megabytes, noreply=noreply)


def verbosity(level: int, noreply: bool = False) -> Request:
    """Make a `verbosity`."""
    return Request("verbosity", token=level, noreply=noreply)


def quit_() -> Request:
    """Make a `quit`, which is never answered: the server closes the connection."""
    return Request("quit", noreply=True, own=True)


def config() -> Request:
    """Make a `config get cluster`."""
    return Request("config", own=True)


def get_config() -> Request:
    """Make the fetch by which old engines tell their configuration."""
    return Request("get_config", CONFIG_KEY, own=True)


def lease(key: bytes, seconds: int, stale: int = 0) -> Request:
    """Make a fetch that leaves a placeholder for `seconds` on a miss, and wins the refresh of a stale item."""
    return Request("lease", key, exptime=seconds, token=stale)


def meta_delete(key: bytes, token: int) -> Request:
    """Make a deletion that happens only if the item has this version."""
    return Request("meta_delete", key, token=token)


def meta_delete_invalid(key: bytes) -> Request:
    """Make the request that marks an item as stale, which also gives a win back."""
    return Request("meta_delete_invalid", key)


def touch_fetch(key: bytes, exptime: int) -> Request:
    """Make a touch that answers the flags of the item."""
    return Request("touch_fetch", key, exptime=exptime)


def placeholder(key: bytes) -> Request:
    """Make the fetch that tells an empty value from the placeholder of a lease."""
    return Request("placeholder", key, own=True)


def barrier() -> Request:
    """Make a request whose reply shows that all before it were executed; where there is no `mn`, it asks a key."""
    return Request("barrier", PROBE_KEY, own=True)


def probe() -> Request:
    """Make the request that every server and proxy answers."""
    return Request("probe", PROBE_KEY, own=True)


def authenticate(username: str, password: str) -> Request:
    """Make the request that hands the credentials over."""
    credentials = f"{username} {password}".encode()
    return Request("authenticate", value=credentials, arguments=(username, password), own=True)
