"""Addresses as users write them."""

from __future__ import annotations

import ipaddress
import re

from rain.common.structs import dataclass

DEFAULT_PORT = 7210
DEFAULT_HTTP_PORT = 7222
DEFAULT_HOST = "127.0.0.1"

_SCHEME = "rain://"
_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::(\d+))?")
_PLAIN = re.compile(r"([^\s:/\[\]]+)(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port.

    `str()` gives `host:port`, with brackets around an IPv6 address.

    Attributes:
        host: IP address without brackets, or host name.
        port: 0 to 65535; 0 lets the system choose one when listening.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(
        cls,
        text: str | int,
        port: str | int | None = None,
        *,
        default_host: str = DEFAULT_HOST,
        default_port: int = DEFAULT_PORT,
    ) -> Address:
        """Read `PORT`, `IP`, `IP:PORT`, `[IPv6]:PORT`, `host`, `host:port` or `rain://host:port`.

        Args:
            text: the address.
            port: the port, where it is given apart.
            default_host: host of a bare port.
            default_port: port where neither says one.

        Raises:
            ValueError: not an address, or a port given twice and different.
        """
        host, inner_port = _split(str(text).strip())
        outer_port = None if port is None else _port(str(port).strip(), str(port))
        if inner_port is not None and outer_port is not None and inner_port != outer_port:
            raise ValueError(f"the port is given twice: {text!r} and {port!r}")
        chosen = inner_port if inner_port is not None else outer_port
        return cls(host or default_host, default_port if chosen is None else chosen)

    @property
    def is_loopback(self) -> bool:
        """Only processes of this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _split(text: str) -> tuple[str, int | None]:
    """Host (empty: none was given) and port (None: none was given)."""
    rest = text.removeprefix(_SCHEME).removesuffix("/") if text.startswith(_SCHEME) else text
    if rest.isascii() and rest.isdigit():
        return "", _port(rest, text)
    if rest.count(":") > 1 and not rest.startswith("["):
        return _ipv6(rest, text), None
    if match := _BRACKETED.fullmatch(rest):
        return _ipv6(match[1], text), None if match[2] is None else _port(match[2], text)
    if match := _PLAIN.fullmatch(rest):
        return match[1], None if match[2] is None else _port(match[2], text)
    raise _not_an_address(text)


def _ipv6(host: str, text: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise _not_an_address(text) from error
    return host


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        raise ValueError(f"{text!r} has no valid port (0 to 65535)")
    return int(digits)


def _not_an_address(text: str) -> ValueError:
    return ValueError(f"{text!r} is not an address; expected PORT, HOST, HOST:PORT, [IPV6]:PORT or rain://HOST:PORT")
