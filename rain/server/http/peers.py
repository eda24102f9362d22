"""Whose process is at the other end of a connection over loopback: the kernel's socket table tells."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_UID, _INODE = 7, 9

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_ip(text: str) -> IPAddress:
    """An address as the socket module gives it; an IPv4 address inside an IPv6 one becomes the former.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def peer_uid(peer: tuple[str, int], local: tuple[str, int]) -> int | None:
    """The uid of who opened the other end of a TCP connection of this machine; None if it is not found.

    Args:
        peer: IP address and port of the other end.
        local: of this end.
    """
    wanted = {
        f"{theirs} {ours} ".encode()
        for theirs, ours in zip(_forms(parse_ip(peer[0]), peer[1]), _forms(parse_ip(local[0]), local[1]), strict=True)
    }
    for path in _TABLES:
        try:
            table = path.read_bytes()
        except OSError:  # e.g. there is no IPv6
            continue
        for ends in wanted:
            at = table.find(ends)
            if at >= 0:
                uid = _uid(table[table.rfind(b"\n", 0, at) + 1 : table.find(b"\n", at)])
                if uid is not None:
                    return uid
    return None


def _uid(line: bytes) -> int | None:
    """The owner, unless nobody holds the socket any more: for these the kernel says 0, which would be root."""
    fields = line.split()
    return None if len(fields) <= _INODE or fields[_INODE] == b"0" else int(fields[_UID])


def _forms(address: IPAddress, port: int) -> list[str]:
    """How the tables write an end of a connection. IPv4 over an IPv6 socket is written as a mapped address."""
    if isinstance(address, ipaddress.IPv6Address):
        return [_written(address.packed, port)] * 2
    return [_written(address.packed, port), _written(b"\0" * 10 + b"\xff\xff" + address.packed, port)]


def _written(packed: bytes, port: int) -> str:
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
