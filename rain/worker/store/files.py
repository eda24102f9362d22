"""Reading and writing value files."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from typing import TYPE_CHECKING

from rain.common.spares import open_claimed
from rain.worker.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

READ_ONLY = 0o400
_BLOCK = 512


class ValueFile:
    """A value in a file; several objects may share it, as values never change."""

    __slots__ = ("links", "path", "shared", "size", "users")

    def __init__(self, path: str, size: int, shared: bool) -> None:
        self.path = path
        self.size = size
        self.shared = shared  # in shared memory, counted in the budget
        self.users = 1  # objects with this value
        self.links: list[str] = []  # paths which it had before and which lead to it


def create_allocated(path: str, size: int, *, exists: bool = False) -> int:
    """Open a new file, or one that was claimed (`exists`), for reading and writing; all its space is allocated.

    Raises:
        OSError: there is no room for it; the file may be there.
    """
    if exists:
        descriptor = open_claimed(path, size)
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if size and os.fstat(descriptor).st_blocks * _BLOCK < size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, pieces: Iterable[bytes | memoryview]) -> None:
    """Write every byte of the pieces at the current position."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def copy_file(source: str, target: str) -> None:
    """Copy the bytes into the new file `target`; nothing is left of it when that fails."""
    try:
        shutil.copyfile(source, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(target)
        raise


def replace_by_link(path: str, target: str) -> None:
    """Put a symbolic link in the place of the file at once, so that the old path keeps leading to the value."""
    name = f"{path}.link"
    os.symlink(target, name)
    os.replace(name, path)


def map_range(path: str, size: int, offset: int, length: int) -> memoryview:
    """A range of a file as read-only mapping, which outlives the file's removal.

    Raises:
        StoreError: the file does not have `size` bytes.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _check_size(descriptor, path, size)
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        mapping = mmap.mmap(descriptor, offset - start + length, offset=start, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
    return memoryview(mapping)[offset - start :]


def read_range(path: str, size: int, offset: int, length: int) -> bytes:
    """A range of a file as bytes.

    Raises:
        StoreError: the file does not have `size` bytes.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _check_size(descriptor, path, size)
        pieces = []
        while length:
            piece = os.pread(descriptor, length, offset)
            if not piece:
                raise StoreError(f"the stored value {path} became shorter while it was read", path=path, size=size)
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces) if len(pieces) != 1 else pieces[0]


def _check_size(descriptor: int, path: str, size: int) -> None:
    found = os.fstat(descriptor).st_size
    if found != size:
        raise StoreError(
            f"the stored value {path} is damaged: it has {found:,} bytes instead of {size:,}", path=path, size=size
        )
