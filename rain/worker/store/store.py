"""`FileStore`: values that are bytes, in memory or in files."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rain.worker.store.errors import StoreError
from rain.worker.store.files import (
    READ_ONLY,
    ValueFile,
    copy_file,
    map_range,
    read_range,
    replace_by_link,
    write_all,
)
from rain.worker.store.new_files import NewFiles
from rain.worker.store.places import SHARED_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.worker.core.events import ObjectKey

T = TypeVar("T")

log = logging.getLogger(__name__)

INLINE_LIMIT = 64 << 10
"""Values below this size (bytes) are kept in memory, the others as files."""

SMALL_VALUES_BUDGET = 1 << 30
"""Default for the bytes of all values kept in memory."""

_REMOVED_AT_ONCE = 8 << 20
"""More bytes of deleted values than this are freed in a thread: the system takes 0.1 ms for 1 MiB of shared memory."""

_READ_AT_MOST = 8 << 20  # longer ranges of files on disk are mapped, not read into memory


class FileStore(NewFiles):
    """Values by object key: small ones as bytes in memory, large ones as read-only files.

    Files lie in a private directory in shared memory while the budget lasts; the least recently used ones are moved
    to the data directory (spilled) to make room. A path once given stays valid until the value is deleted.
    Every method may be called from any thread.

    Args:
        data_directory: existing directory on disk for spilled and other large values.
        memory_budget: bytes of shared memory to use at most; None: half of what is free there now. 0: none.
        shared_memory: file system in memory in which the private directory is made.
        small_budget: bytes of small values kept in memory at most; those beyond become files.
    """

    def __init__(
        self,
        data_directory: str,
        *,
        memory_budget: int | None = None,
        shared_memory: str = SHARED_MEMORY,
        small_budget: int = SMALL_VALUES_BUDGET,
    ) -> None:
        super().__init__(data_directory, memory_budget, shared_memory)
        self.small_budget = small_budget
        self._small: dict[ObjectKey, bytes] = {}
        self._small_bytes = 0
        self._files: dict[ObjectKey, ValueFile] = {}
        self._resident: dict[ValueFile, None] = {}  # files in shared memory, the least recently used first
        self._spilling = threading.Lock()  # taken before `_lock`, held over the copying
        self._spiller: ThreadPoolExecutor | None = None
        self._remover: ThreadPoolExecutor | None = None
        self._spill_planned = False
        self._spill_failed = False

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._small or key in self._files

    def __len__(self) -> int:
        return len(self._small) + len(self._files)

    # --- taking values in -----------------------------------------------------------------------

    def put(self, key: ObjectKey, value: bytes) -> None:
        """Store a value; one that exists already wins.

        Raises:
            StoreError: there is no room for it.
        """
        if key in self:
            return
        size = len(value)
        if size < INLINE_LIMIT and self._put_small(key, value):
            return
        descriptor, path = self.create_file(size)
        try:
            try:
                write_all(descriptor, (value,))
            finally:
                os.close(descriptor)
        except OSError as error:
            self.discard_file(path)
            raise StoreError.of_os("cannot store a value", error, path=path, size=size) from error
        self._take(key, path, size)

    def put_file(self, key: ObjectKey, path: str) -> int:
        """Move a file in, by renaming where possible.

        Args:
            path: a path given by `new_file` or `create_file`, or any regular file, or a link to one.

        Returns:
            The size of the stored value, which is that of an older one if there is one.

        Raises:
            StoreError: there is no such file or no room for it; the file is gone then.
        """
        if key in self:
            self.discard_file(path)
            return self.size(key)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
                path, status = self._copy_in(path)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"cannot store {path}: it is not a regular file", path=path)
            size = status.st_size
            if size < INLINE_LIMIT:
                value = Path(path).read_bytes()
                self.discard_file(path)
                self.put(key, value)
                return len(value)
            if not self._is_own(path):
                path = self._adopt(path, status)
        except OSError as error:
            self.discard_file(path)
            raise StoreError.of_os("cannot store a file", error, path=path) from error
        self._take(key, path, size)
        return size

    def share(self, source: ObjectKey, target: ObjectKey) -> int:
        """Give another object the same value, without a copy.

        Returns:
            Its size.

        Raises:
            KeyError: there is no value of `source`.
        """
        with self._lock:
            value = self._small.get(source)
            if value is not None:
                if target not in self:
                    self._small[target] = value
                    self._small_bytes += len(value)
                return len(value)
            file = self._files[source]
            if target not in self:
                file.users += 1
                self._files[target] = file
            return file.size

    # --- giving values out ----------------------------------------------------------------------

    def get(self, key: ObjectKey) -> bytes | Path | None:
        """The value as bytes if it is in memory, else the path of its file, None if it is not here."""
        value = self._small.get(key)
        if value is not None:
            return value
        with self._lock:
            file = self._files.get(key)
            if file is None:
                return None
            self._touch(file)
            return Path(file.path)

    def size(self, key: ObjectKey) -> int:
        """Bytes of the value.

        Raises:
            KeyError: it is not here.
        """
        value = self._small.get(key)
        return len(value) if value is not None else self._files[key].size

    def read(self, key: ObjectKey, offset: int, length: int) -> bytes | memoryview:
        """A range of a value, cut at its end. A view stays valid when the value is deleted.

        Raises:
            KeyError: the value is not here.
            StoreError: it is damaged or unreadable.
        """
        value = self._small.get(key)
        if value is not None:
            return memoryview(value)[offset : offset + length]
        while True:
            with self._lock:
                file = self._files[key]
                self._touch(file)
                path, shared = file.path, file.shared
            length = min(length, file.size - offset)
            if length <= 0:
                return b""
            try:
                reader = map_range if shared or length > _READ_AT_MOST else read_range
                return reader(path, file.size, offset, length)
            except OSError as error:
                if self._files.get(key) is file and file.path == path:
                    raise StoreError.of_os("cannot read a value", error, path=path, size=file.size) from error
                # deleted or spilled meanwhile: look again

    def place(self, key: ObjectKey) -> tuple[str, int] | None:
        """Path and inode number of the file that a value is, None if it is none or cannot be found there.

        The file may be spilled or deleted at any moment; whoever has it open or mapped keeps it.
        """
        with self._lock:
            file = self._files.get(key)
            if file is None:
                return None
            self._touch(file)
            path = file.path
        try:
            return path, os.lstat(path).st_ino
        except OSError:
            return None

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove values; unknown keys do not matter."""
        released: list[ValueFile] = []
        with self._lock:
            for key in keys:
                value = self._small.pop(key, None)
                if value is not None:
                    self._small_bytes -= len(value)
                    continue
                file = self._files.pop(key, None)
                if file is None:
                    continue
                file.users -= 1
                if not file.users:
                    self._forget(file)
                    released.append(file)
        left = [(file.size, paths) for file in released if (paths := self._not_kept(file))]
        gone = [path for _, paths in left for path in paths]
        if sum(size for size, _ in left) > _REMOVED_AT_ONCE:
            self._later(self._remove_files, gone)
        else:
            self._remove_files(gone)

    def make_room(self, size: int = 0) -> bool:
        """Spill until `size` more bytes fit the budget of shared memory.

        Returns:
            False if they cannot.

        Raises:
            StoreError: spilling failed, e.g. the disk is full.
        """
        with self._spilling:
            while True:
                with self._lock:
                    if self._memory_used + size <= self.memory_budget:
                        return True
                    file = next(iter(self._resident), None)
                    if file is None:
                        return False
                self._spill(file)

    def close(self) -> None:
        """Remove all values and the directory in shared memory. The store is not usable afterwards."""
        if self._spiller is not None:
            self._spiller.shutdown()
        self.delete(list(self._small) + list(self._files))
        for path in list(self._reserved):
            self.discard_file(path)
        if self._remover is not None:
            self._remover.shutdown()
        if self._segments is not None:
            self._segments.close()
        if self._memory is not None:
            self._memory.remove()

    # --- inside ---------------------------------------------------------------------------------

    def _put_small(self, key: ObjectKey, value: bytes) -> bool:
        with self._lock:
            if self._small_bytes + len(value) > self.small_budget and value:
                return False
            self._small[key] = value
            self._small_bytes += len(value)
        return True

    def _copy_in(self, path: str) -> tuple[str, os.stat_result]:
        """What a link leads to, as a file of its own."""
        size = os.stat(path).st_size
        target = self.new_file(size)
        try:
            copy_file(path, target)
        except OSError:
            self.discard_file(target)
            raise
        self.discard_file(path)
        return target, os.lstat(target)

    def _adopt(self, path: str, status: os.stat_result) -> str:
        """Move a foreign file into one of the places: the one on its file system, if any."""
        for place in (self._memory, self._disk):
            if place is not None and place.device == status.st_dev:
                target = place.fresh()
                os.rename(path, target)
                return target
        return self._copy_in(path)[0]

    def _take(self, key: ObjectKey, path: str, size: int) -> None:
        """Enter a complete file of one of the places; room is made for it if needed."""
        try:
            os.chmod(path, READ_ONLY)
        except OSError as error:
            self.discard_file(path)
            raise StoreError.of_os("cannot store a value", error, path=path, size=size) from error
        file = ValueFile(path, size, shared=not self._disk.owns(path))
        with self._lock:
            self._memory_used -= self._reserved.pop(path, 0)
            taken = key not in self
            if taken:
                self._files[key] = file
                if file.shared:
                    self._memory_used += size
                    self._resident[file] = None
        if not taken:
            self.discard_file(path)
        elif file.shared:
            self._trim_spares()
            if self._memory_used > self.memory_budget:
                self._over_budget(key, size)

    def _over_budget(self, key: ObjectKey, size: int) -> None:
        """Spill in the background, unless that falls behind: then whoever brings values waits for it."""
        if not self._spill_failed and self._memory_used <= self.memory_budget + self.memory_budget // 4:
            self._plan_spill()
            return
        try:
            self.make_room()
        except StoreError as error:
            self.delete([key])
            raise StoreError(
                f"cannot keep a value of {size:,} bytes: shared memory holds {self._memory_used:,} of the "
                f"{self.memory_budget:,} bytes allowed, and {error}",
                path=error.path,
                size=size,
                errno=error.errno,
            ) from error
        self._spill_failed = False

    def _plan_spill(self) -> None:
        with self._lock:
            if self._spill_planned:
                return
            self._spill_planned = True
            if self._spiller is None:
                self._spiller = ThreadPoolExecutor(1, "rain-spill")
        self._spiller.submit(self._spill_in_background)

    def _spill_in_background(self) -> None:
        with self._lock:
            self._spill_planned = False
        try:
            self.make_room()
        except StoreError as error:
            self._spill_failed = True
            log.warning("Values stay in shared memory beyond its budget: %s", error)

    def _spill(self, file: ValueFile) -> None:
        """Move one file from shared memory to disk, leaving a link for those who know its path."""
        target = self._disk.fresh()
        try:
            copy_file(file.path, target)
            os.chmod(target, READ_ONLY)
            with self._lock:
                if file.users:
                    if self._segments is not None:
                        self._segments.forget(os.stat(file.path).st_ino)
                    replace_by_link(file.path, target)
                    file.links.append(file.path)
                    self._forget(file)
                    file.path, file.shared = target, False
                    return
        except OSError as error:
            if file.users:
                with contextlib.suppress(OSError):
                    os.unlink(target)
                raise StoreError.of_os("cannot spill a value", error, path=target, size=file.size) from error
        self._disk.release(target)

    def _touch(self, file: ValueFile) -> None:
        if file.shared:
            self._resident.pop(file, None)
            self._resident[file] = None

    def _forget(self, file: ValueFile) -> None:
        """The file leaves shared memory."""
        if file.shared:
            self._memory_used -= file.size
            self._resident.pop(file, None)

    def _not_kept(self, file: ValueFile) -> list[str]:
        """The paths of a file that is to go; its memory is kept for new values if possible, and then there is none."""
        segments, room = self._segments, self.memory_budget - self._memory_used
        paths = [file.path, *file.links]
        if segments is None or not file.shared:
            return paths
        return [path for path in paths if self._disk.owns(path) or not segments.keep(path, file.size, room)]

    def _remove_files(self, paths: list[str]) -> None:
        for path in paths:
            try:
                if self._disk.owns(path):
                    self._disk.release(path)
                elif self._segments is not None:
                    self._segments.remove(path)
            except OSError as error:
                log.warning("A value without use is left: %s", error)

    def _later(self, work: Callable[[T], None], subject: T) -> None:
        """Do what may take long in a thread."""
        with self._lock:
            if self._remover is None:
                self._remover = ThreadPoolExecutor(1, "rain-remove")
        try:
            self._remover.submit(work, subject)
        except RuntimeError:  # the store is closed
            work(subject)
