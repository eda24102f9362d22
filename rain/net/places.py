"""Places of values: files which a worker tells to those who reach it on the same machine, so that they map the value
instead of having it sent.

A place is told over a data connection, hence after both sides have proven that they know the secret. It is used only if
the file is what was told: on this machine, of this user, read-only, of the size the value has.
"""

from __future__ import annotations

import os
import stat
import struct

from rain.common.mapping import map_descriptor
from rain.protocol.limits import MAX_PLACE, ProtocolError

_INODE = struct.Struct("<Q")
_WRITABLE = 0o222


def pack_place(path: str, inode: int) -> bytes:
    """Encode a place: the path of a file, and its inode number, which a like-named file elsewhere does not have."""
    return _INODE.pack(inode) + os.fsencode(path)


def map_place(place: bytes | bytearray, size: int) -> memoryview | None:
    """Map the value of `size` bytes at a packed place; None if it cannot be used here.

    Raises:
        ProtocolError: it is no place.
    """
    if not _INODE.size < len(place) <= MAX_PLACE or 0 in place[_INODE.size :]:
        raise ProtocolError(f"a place of {len(place)} bytes, which is none")
    (inode,) = _INODE.unpack_from(place)
    try:
        descriptor = os.open(bytes(place[_INODE.size :]), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # another machine or user, or spilled or deleted a moment ago
        return None
    try:
        status = os.fstat(descriptor)
        is_it = (
            stat.S_ISREG(status.st_mode)
            and not status.st_mode & _WRITABLE
            and (status.st_ino, status.st_uid, status.st_size) == (inode, os.geteuid(), size)
        )
        return map_descriptor(descriptor, size) if is_it and size else None
    except OSError:  # too many mappings
        return None
    finally:
        os.close(descriptor)
