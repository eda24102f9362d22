"""A memcached in memory, exact enough for leases and expiry, as a script for virtual networks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST = 1024 * 1024


@dataclass
class Stored:
    value: bytes
    flags: int
    cas: int
    expires: float | None
    won: bool = False
    stale: bool = False


class Model:
    """The items of one server; call it with a request to have the answer.

    Attributes:
        items: by key, expired ones included.
        requests: all so far.
        down: nothing is answered.
    """

    def __init__(self, *, meta: bool = True) -> None:
        self.items: dict[bytes, Stored] = {}
        self.requests: list[bytes] = []
        self.down = False
        self._meta = meta
        self._token = 0

    def __call__(self, request: bytes) -> bytes | None:
        self.requests.append(request)
        if self.down:
            return None
        line, _, rest = request.partition(b"\r\n")
        words = line.split()
        noreply = words[-1] == b"noreply"
        handle: Callable[..., bytes] | None = getattr(self, "_" + words[0].decode(), None)
        if handle is None or (words[0] in (b"mg", b"md", b"mn") and not self._meta):
            return b"ERROR\r\n"
        answer = (
            handle(*words[1 : len(words) - noreply], rest[:-2]) if rest else handle(*words[1 : len(words) - noreply])
        )
        return None if noreply else answer

    def get(self, key: bytes) -> Stored | None:
        """The item of a key, unless it is expired."""
        item = self.items.get(key)
        if item is not None and item.expires is not None and item.expires <= asyncio.get_running_loop().time():
            del self.items[key]
            return None
        return item

    def put(self, key: bytes, value: bytes, flags: int = 0, exptime: int = 0) -> None:
        """Store an item."""
        self._token += 1
        self.items[key] = Stored(value, flags, self._token, self._expiry(exptime))

    def _expiry(self, exptime: int) -> float | None:
        return None if exptime == 0 else asyncio.get_running_loop().time() + exptime

    def _version(self) -> bytes:
        return b"VERSION 1.6.18\r\n"

    def _mn(self) -> bytes:
        return b"MN\r\n"

    def _set(self, key: bytes, flags: bytes, exptime: bytes, size: bytes, data: bytes) -> bytes:
        assert len(data) == int(size)
        if len(data) > LARGEST:
            return b"SERVER_ERROR object too large for cache\r\n"
        self.put(key, data, int(flags), int(exptime))
        return b"STORED\r\n"

    def _add(self, key: bytes, *rest: bytes) -> bytes:
        return b"NOT_STORED\r\n" if self.get(key) else self._set(key, *rest)

    def _replace(self, key: bytes, *rest: bytes) -> bytes:
        return self._set(key, *rest) if self.get(key) else b"NOT_STORED\r\n"

    def _append(self, key: bytes, flags: bytes, exptime: bytes, size: bytes, data: bytes) -> bytes:
        item = self.get(key)
        if item is None:
            return b"NOT_STORED\r\n"
        item.value += data
        return b"STORED\r\n"

    def _prepend(self, key: bytes, flags: bytes, exptime: bytes, size: bytes, data: bytes) -> bytes:
        item = self.get(key)
        if item is None:
            return b"NOT_STORED\r\n"
        item.value = data + item.value
        return b"STORED\r\n"

    def _cas(self, key: bytes, flags: bytes, exptime: bytes, size: bytes, token: bytes, data: bytes) -> bytes:
        item = self.get(key)
        if item is None:
            return b"NOT_FOUND\r\n"
        if item.cas != int(token):
            return b"EXISTS\r\n"
        return self._set(key, flags, exptime, size, data)

    def _delete(self, key: bytes) -> bytes:
        if self.get(key) is None:
            return b"NOT_FOUND\r\n"
        del self.items[key]
        return b"DELETED\r\n"

    def _touch(self, key: bytes, exptime: bytes) -> bytes:
        item = self.get(key)
        if item is None:
            return b"NOT_FOUND\r\n"
        item.expires = self._expiry(int(exptime))
        return b"TOUCHED\r\n"

    def _get(self, *keys: bytes) -> bytes:
        return self._values(keys, cas=False)

    def _gets(self, *keys: bytes) -> bytes:
        return self._values(keys, cas=True)

    def _gat(self, exptime: bytes, *keys: bytes) -> bytes:
        for key in keys:
            self._touch(key, exptime)
        return self._values(keys, cas=False)

    def _gats(self, exptime: bytes, *keys: bytes) -> bytes:
        for key in keys:
            self._touch(key, exptime)
        return self._values(keys, cas=True)

    def _values(self, keys: tuple[bytes, ...], *, cas: bool) -> bytes:
        blocks = []
        for key in keys:
            item = self.get(key)
            if item is not None:
                token = b" %d" % item.cas if cas else b""
                blocks.append(b"VALUE %b %d %d%b\r\n%b\r\n" % (key, item.flags, len(item.value), token, item.value))
        return b"".join(blocks) + b"END\r\n"

    def _mg(self, key: bytes, *flags: bytes) -> bytes:
        options = {flag[:1]: flag[1:] for flag in flags}
        item = self.get(key)
        end = b""
        if item is None:
            if b"N" not in options:
                return b"EN\r\n"
            self.put(key, b"", 0, int(options[b"N"]))
            item = self.items[key]
            item.won = True
            end = b" W"
        else:
            left = None if item.expires is None else item.expires - asyncio.get_running_loop().time()
            due = b"R" in options and left is not None and left < int(options[b"R"])
            if item.won:
                end = b" Z"
            elif item.stale or due:
                item.won = True
                end = b" W"
            if item.stale:
                end += b" X"
        if b"T" in options:
            item.expires = self._expiry(int(options[b"T"]))
        told = b"".join(
            b" f%d" % item.flags if flag == b"f" else b" c%d" % item.cas for flag in options if flag in (b"f", b"c")
        )
        if b"v" not in options:
            return b"HD" + told + end + b"\r\n"
        return b"VA %d%b%b\r\n%b\r\n" % (len(item.value), told, end, item.value)

    def _md(self, key: bytes, *flags: bytes) -> bytes:
        options = {flag[:1]: flag[1:] for flag in flags}
        item = self.get(key)
        if item is None:
            return b"NF\r\n"
        if b"C" in options and int(options[b"C"]) != item.cas:
            return b"EX\r\n"
        if b"I" in options:
            item.stale, item.won = True, False
            self._token += 1
            item.cas = self._token
        else:
            del self.items[key]
        return b"HD\r\n"
