"""New files of the store: in shared memory while the budget lasts, else on disk."""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import threading
from abc import ABC, abstractmethod

from rain.worker.store.errors import StoreError
from rain.worker.store.files import create_allocated
from rain.worker.store.places import Place, create_shared_directory, free_bytes
from rain.worker.store.segments import Segments

log = logging.getLogger(__name__)

_SPARE_PART = 4  # of the budget, for memory of values that are gone
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NewFiles(ABC):
    """Makes files and counts the shared memory in use.

    Args:
        data_directory, memory_budget, shared_memory: see `FileStore`.
    """

    def __init__(self, data_directory: str, memory_budget: int | None, shared_memory: str) -> None:
        self._disk = Place(data_directory)
        directory = None if memory_budget == 0 else create_shared_directory(shared_memory)
        self._memory = None if directory is None else Place(directory)
        if directory is None:
            memory_budget = 0
        elif memory_budget is None:
            memory_budget = free_bytes(directory) // 2
        self.memory_budget = memory_budget
        self._spares_limit = memory_budget // _SPARE_PART
        self._segments = None if directory is None else Segments(directory, self._spares_limit)
        self._reserved: dict[str, int] = {}  # bytes promised by `new_file`
        self._memory_used = 0
        self._lock = threading.Lock()

    @property
    def shared_directory(self) -> str | None:
        """The private directory in shared memory, None without one."""
        return None if self._memory is None else self._memory.directory

    @property
    def data_directory(self) -> str:
        """The directory on disk."""
        return self._disk.directory

    @property
    def memory_used(self) -> int:
        """Bytes of shared memory in use or promised."""
        return self._memory_used

    @abstractmethod
    def make_room(self, size: int = 0) -> bool:
        """Make shared memory free by moving values to disk."""

    def new_file(self, size_hint: int) -> str:
        """A path for a new value, to be written by the caller and given to `put_file` or `discard_file`.

        Args:
            size_hint: expected bytes, 0 if unknown. It is counted against the budget at once; the
                caller's thread may wait while other values are spilled for it.
        """
        memory = self._memory
        if memory is not None and size_hint <= self.memory_budget and self._reserve(size_hint):
            path = memory.fresh()
            self._reserved[path] = size_hint
            return path
        return self._disk.fresh()

    def create_file(self, size: int) -> tuple[int, str]:
        """A new file for a value of known size: its descriptor, open for reading and writing, and path.

        Its space is allocated at once, so that writing through a mapping cannot fail.

        Raises:
            StoreError: there is no room for it.
        """
        path = self.new_file(size)
        try:
            return self._create(path, size), path
        except OSError as error:
            self.discard_file(path)
            if error.errno not in _FULL or self._disk.owns(path):
                raise StoreError.of_os("cannot store a value", error, path=path, size=size) from error
        path = self._disk.fresh()
        try:
            return create_allocated(path, size), path
        except OSError as error:
            self.discard_file(path)
            raise StoreError.of_os("cannot store a value", error, path=path, size=size) from error

    def discard_file(self, path: str) -> None:
        """A file given by `new_file` or meant for `put_file` is not needed; it need not exist."""
        self._unreserve(path)
        if self._segments is not None:
            self._segments.remove(path)
            return
        with contextlib.suppress(OSError):
            os.unlink(path)

    def map_file(self, descriptor: int, path: str, size: int) -> mmap.mmap:
        """Map a file just made by `create_file`, for writing its value; at least `size` bytes. It may stay mapped.

        Raises:
            OSError: it cannot be mapped.
        """
        if self._segments is None or self._disk.owns(path):
            return mmap.mmap(descriptor, size)
        return self._segments.map(descriptor, size)

    # --- inside ---------------------------------------------------------------------------------

    def _create(self, path: str, size: int) -> int:
        """Make a file of a place, of memory that is there already if possible."""
        if self._segments is None or self._disk.owns(path):
            return create_allocated(path, size)
        if self._segments.claim(size, path):
            with contextlib.suppress(OSError):  # it cannot grow, or is not what it should be
                return create_allocated(path, size, exists=True)
            self._segments.remove(path)
        try:
            return create_allocated(path, size)
        except OSError as error:
            if error.errno not in _FULL or not self._segments.held():
                raise
        self._segments.remove(path)
        self._segments.trim(0)
        return create_allocated(path, size)

    def _is_own(self, path: str) -> bool:
        return self._disk.owns(path) or (self._memory is not None and self._memory.owns(path))

    def _trim_spares(self) -> None:
        """Values come before memory of values that are gone."""
        room = self.memory_budget - self._memory_used
        if self._segments is not None and room < self._spares_limit:
            self._segments.trim(max(room, 0))

    def _reserve(self, size: int) -> bool:
        with self._lock:
            fits = self._memory_used + size <= self.memory_budget
            if fits:
                self._memory_used += size
        if fits:
            self._trim_spares()
            return True
        if not size:
            return False
        try:
            room = self.make_room(size)
        except StoreError as error:
            log.warning("A new value goes to disk: %s", error)
            return False
        if room:
            with self._lock:
                self._memory_used += size
            self._trim_spares()
        return room

    def _unreserve(self, path: str) -> None:
        with self._lock:
            self._memory_used -= self._reserved.pop(path, 0)
