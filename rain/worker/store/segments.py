"""`Segments`: memory of values that are gone, kept for new ones; what this process received stays mapped."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import mmap
import os
import signal
import threading
import time
from typing import NamedTuple

from rain.common import spares

log = logging.getLogger(__name__)

MOST_FILES = 64
MOST_BYTES = 1 << 30
KEEP_SECONDS = 30.0
"""How long memory is kept that nobody takes."""

MAP_FROM = 4 << 20
"""From this size on (bytes), files made by this process stay mapped."""


_MOST_WAITING = 8


class _Mapped(NamedTuple):
    """A file which this process has mapped. descriptor: open for reading and writing."""

    descriptor: int
    mapping: mmap.mmap

    def drop(self) -> None:
        os.close(self.descriptor)
        with contextlib.suppress(BufferError):  # the traceback of an error holds views; they end with it
            self.mapping.close()


class Segments:
    """Files of deleted values in shared memory, at most `MOST_FILES`, `MOST_BYTES` and a part of the budget.

    A file is taken again only when nobody else has it open or mapped, which the kernel knows: who still reads a deleted
    value goes on seeing it. Until then it waits. Every method may be called from any thread.

    Args:
        parent: the store's directory in shared memory.
        limit: bytes to keep at most.
    """

    def __init__(self, parent: str, limit: int) -> None:
        self.directory = os.path.join(parent, spares.DIRECTORY)
        self._limit = min(limit, MOST_BYTES)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._keeping = threading.RLock()
        self._has_leases = True  # on this file system
        self._waiting: dict[str, int] = {}  # names of files that somebody has open, and their bytes
        self._mapped: dict[int, _Mapped] = {}  # by inode number, which nothing else can have while it is open

    def held(self) -> int:
        """Bytes that are kept."""
        with self._keeping:
            return sum(size for size, _ in spares.spare_files(self.directory)) + sum(self._waiting.values())

    # --- new values -----------------------------------------------------------------------------

    def claim(self, size: int, target: str) -> bool:
        """Make a spare file of at most `size` bytes the file `target`; False if there is none that suits."""
        with self._keeping:
            self._look_again()
        return spares.claim(self.directory, size, target)

    def map(self, descriptor: int, size: int) -> mmap.mmap:
        """Map a new file for writing, at least `size` bytes; from `MAP_FROM` on it stays mapped until it goes.

        Args:
            descriptor: of the file, allocated and open for reading and writing; it is the caller's to close.
            size: bytes of the value.

        Raises:
            OSError: it cannot be mapped.
        """
        inode = os.fstat(descriptor).st_ino
        with self._lock:
            known = self._mapped.get(inode)
            if known is not None and len(known.mapping) >= size:
                return known.mapping
        mapping = mmap.mmap(descriptor, size)
        if size >= MAP_FROM:
            self.forget(inode)
            with self._lock:  # the mapping must be of the very same open file, see `_is_free`
                own = os.dup(descriptor)
                self._mapped[inode] = _Mapped(own, mapping)
        return mapping

    # --- values that are gone -------------------------------------------------------------------

    def keep(self, path: str, size: int, room: int) -> bool:
        """Keep the file of a value that is gone. It is moved away first, so that nobody can open it any more.

        Args:
            path: of the file.
            size: its bytes.
            room: bytes that may be kept in all, besides the limit.

        Returns:
            False if it is not kept; then it is still at its path.
        """
        if size < spares.SMALLEST or not self._has_leases:
            return False
        with self._keeping:
            self._look_again()
            found = [held for held, _ in spares.spare_files(self.directory)] + list(self._waiting.values())
            if len(found) >= MOST_FILES or sum(found) + size > min(room, self._limit):
                return False
            name = f"{size}.{next(self._numbers)}"
            waiting = os.path.join(self.directory, f".{name}")
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.directory, 0o700)
                os.rename(path, waiting)
            except OSError:
                return False
            self._waiting[name] = size
            if len(self._waiting) > _MOST_WAITING:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                self.remove(os.path.join(self.directory, f".{oldest}"))
            os.chmod(waiting, 0o600)
            os.utime(waiting)
            self._look_again()
        return True

    def _look_again(self) -> None:
        """Make those files that waited and that nobody has open any more spare files. To be called while keeping."""
        for name in list(self._waiting):
            path = os.path.join(self.directory, f".{name}")
            is_free = self._is_free(path)
            if is_free or not self._has_leases:
                del self._waiting[name]
            if is_free:
                os.rename(path, os.path.join(self.directory, name))
            elif not self._has_leases:
                self.remove(path)

    def _is_free(self, path: str) -> bool:
        """Whether nobody else has the file open or mapped: only then the kernel grants a lease for writing."""
        own = -1
        try:
            own = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            status = os.fstat(own)
            if status.st_nlink != 1:
                return False
            with self._lock:
                known = self._mapped.get(status.st_ino)
            if known is not None:  # open once more, it would not be free
                os.close(own)
                own = -1
            descriptor = own if known is None else known.descriptor
            # Should somebody open it right now, the kernel sends a signal; the usual one would end this process.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return False
        except OSError as error:
            log.info("Memory of deleted values is not used again: %s", error)
            self._has_leases = False
            return False
        finally:
            if own >= 0:
                os.close(own)
        return True

    def forget(self, inode: int) -> None:
        """A file goes, or its memory shall: unmap it if it is mapped here."""
        with self._lock:
            known = self._mapped.pop(inode, None)
        if known is not None:
            known.drop()

    def remove(self, path: str) -> None:
        """Remove a file that may be mapped here; it need not exist."""
        with contextlib.suppress(OSError):
            if self._mapped:
                self.forget(os.lstat(path).st_ino)
            os.unlink(path)

    def trim(self, keep: int, *, idle: float | None = None) -> None:
        """Give memory back, the longest unused first, until at most `keep` bytes are kept.

        Args:
            keep: bytes.
            idle: unix seconds; what was kept before goes in any case, and what is mapped here of files that are gone.
        """
        with self._keeping:  # which others wait for: nothing is freed meanwhile
            gone = self._take_out(keep, idle)
        for path in gone:
            self.remove(path)
        if idle is not None:
            for inode, known in list(self._mapped.items()):
                with contextlib.suppress(OSError):  # forgotten meanwhile
                    if not os.fstat(known.descriptor).st_nlink:
                        self.forget(inode)

    def _take_out(self, keep: int, idle: float | None) -> list[str]:
        """Rename what is to be removed, so that nobody takes it; the new paths."""
        self._look_again()
        entries = []
        names = [name for _, name in spares.spare_files(self.directory)] + [f".{name}" for name in self._waiting]
        for name in names:
            with contextlib.suppress(OSError):  # taken meanwhile
                status = os.stat(os.path.join(self.directory, name))
                entries.append((status.st_mtime, status.st_size, name))
        held = sum(size for _, size, _ in entries)
        gone = []
        for since, size, name in sorted(entries):
            if held > keep or (idle is not None and since < idle):
                if name.startswith("."):
                    del self._waiting[name[1:]]
                target = os.path.join(self.directory, f".gone-{next(self._numbers)}")
                with contextlib.suppress(OSError):
                    os.rename(os.path.join(self.directory, name), target)
                    gone.append(target)
                held -= size
        return gone

    def trim_idle(self) -> None:
        """Give back what nobody has taken for `KEEP_SECONDS`."""
        self.trim(MOST_BYTES, idle=time.time() - KEEP_SECONDS)

    def close(self) -> None:
        """Unmap everything."""
        for inode in list(self._mapped):
            self.forget(inode)
