"""Addresses of nodes: their types, the forms in which users write them, and URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

DEFAULT_PORT = 11211

_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::([^:]*))?")
_PLAIN = re.compile(r"([^\s,:/\[\]@]+)(?::([^:]*))?")
_SCHEMES = {"memcached": False, "memcacheds": True}


@dataclass(frozen=True)
class MemcachedHostAddress:
    """Host and TCP port of a node.

    `str()` gives `host:port`, with brackets around an IPv6 address.

    Attributes:
        address: host name or IP address (without brackets), as it shall be resolved.
        port: TCP port.
    """

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class MemcachedUnixSocketPath:
    """Path of the unix socket of a node; `str()` gives the path.

    Attributes:
        path: used as given, never made absolute.
    """

    path: str

    def __str__(self) -> str:
        return self.path


Address: TypeAlias = MemcachedHostAddress | MemcachedUnixSocketPath


def node_id(address: Address) -> bytes:
    """The text by which a node is hashed: host and port without separator, or the path."""
    if isinstance(address, MemcachedUnixSocketPath):
        return address.path.encode()
    return f"{address.address}{address.port}".encode()


def node_text(address: Address, *, closed: bool) -> str:
    """How a node looks in `repr()`."""
    if isinstance(address, MemcachedUnixSocketPath):
        return f"<Node path={address.path} closed={closed}>"
    return f"<Node host={address.address} port={address.port} closed={closed}>"


def parse_address(text: str) -> Address:
    """Read `host`, `host:port`, `[v6]`, `[v6]:port` or an absolute path.

    Raises:
        ValueError: none of these. What stands before an `@` is not repeated in the text: it may be a password.
    """
    if text.startswith("/"):
        return MemcachedUnixSocketPath(text)
    if "://" in text:
        raise ValueError("a URL stands alone, not in a sequence; in one URL several hosts are divided by commas")
    if "@" in text:
        raise ValueError("a node address must not contain '@'; pass username= and password=, or one URL")
    match = _BRACKETED.fullmatch(text) or _PLAIN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no node address; write host, host:port, [IPv6]:port or an absolute path")
    host, port = match.groups()
    return MemcachedHostAddress(host, DEFAULT_PORT if port is None else _port(port, host))


def _port(text: str, host: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError(f"the port of {host!r} is not a number from 1 to 65535")


def parse_url(url: str) -> tuple[list[Address], dict[str, str]]:
    """Read a URL `memcached://[user:password@]host[:port][,...][/][?option=value&...]`.

    Returns:
        The addresses, and the options as they stand there, percent-decoded; the scheme `memcacheds` gives
        `ssl=true`, user and password become `username` and `password`.

    Raises:
        ValueError: not such a URL, or an option given twice. The text never tells the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError("a URL of nodes begins with memcached:// or memcacheds://")
    if "#" in rest:
        raise ValueError("a URL of nodes has no fragment; write a '#' in user, password or path as %23")
    where, _, query = rest.partition("?")
    authority, slash, path = where.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    if hosts and "@" in rest[len(authority) :]:
        raise ValueError("write '/', '?' and '@' in user and password as %2F, %3F and %40")
    options = _options(query)
    if _SCHEMES[scheme]:
        _add(options, "ssl", "true")
    if at:
        user, colon, password = credentials.partition(":")
        if not colon:
            raise ValueError("a URL of nodes has user and password, or neither: user:password@host")
        _add(options, "username", _decoded(user, "user"))
        _add(options, "password", _decoded(password, "password"))
    return _addresses(hosts, slash + path), options


def _addresses(hosts: str, path: str) -> list[Address]:
    if not hosts and len(path) > 1:
        return [MemcachedUnixSocketPath(_decoded(path, "path"))]
    if path not in ("", "/"):
        raise ValueError(f"a URL of nodes has hosts or one path, not both: {hosts!r} is followed by a path")
    if not hosts:
        raise ValueError("the URL names no node")
    return [parse_address(_decoded(host, "host")) for host in hosts.split(",")]


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"option {name!r} of the URL has no value; write {name}=VALUE")
        _add(options, name, _decoded(value, f"option {name!r}"))
    return options


def _add(options: dict[str, str], name: str, value: str) -> None:
    if name in options:
        raise ValueError(f"option {name!r} stands in the URL more than once")
    options[name] = value


def _decoded(text: str, what: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"{what} in the URL is not percent-encoded UTF-8") from None
