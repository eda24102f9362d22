"""Directories of an executor: the cwd of tasks, the staging area, and where large results go."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
from typing import TYPE_CHECKING

from rain.common import fs, spares
from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRESS_FILE = "progress"
"""Two numbers of 8 bytes, little endian: of the call which the executor began last, and of the first one which it must
not begin (0: none)."""

_MAX_PARTS = 512
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOENT)


def open_progress(path: str) -> memoryview:
    """Map a progress file, which is made if needed; elements 0 and 1 are the numbers."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, 16)
        return memoryview(mmap.mmap(descriptor, 16)).cast("Q")
    finally:
        os.close(descriptor)


class Workspace:
    """The directories below the work directory.

    Args:
        root: work directory of the executor, exists.

    Attributes:
        values: directory for large results, None = below the work directory.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.task = os.path.join(self.root, "task")
        self.stage = os.path.join(self.root, "stage")
        self._spare = os.path.join(self.root, "values")
        for directory in (self.task, self.stage, self._spare):
            os.makedirs(directory, exist_ok=True)
        self.values: str | None = None
        self._numbers = itertools.count(1)
        self._staged: list[str] = []
        self._taken: dict[str, str] = {}
        self._clean_mtime = -1

    def reset_task(self) -> None:
        """Make the task directory the cwd and empty it, if anything happened in it."""
        try:
            os.chdir(self.task)
            changed = os.stat(".").st_mtime_ns != self._clean_mtime
        except OSError:  # a task removed it
            changed = True
        if changed:
            self._empty_task()

    def _empty_task(self) -> None:
        if os.path.islink(self.task) or not os.path.isdir(self.task):
            fs.remove_tree(self.task)
            os.makedirs(self.task)
        os.chmod(self.task, 0o700)
        for name in os.listdir(self.task):
            fs.remove_tree(os.path.join(self.task, name))
        os.chdir(self.task)
        self._clean_mtime = os.stat(".").st_mtime_ns

    def exists(self, path: str) -> bool:
        """Tell whether there is something at a path relative to the task directory."""
        return os.path.lexists(os.path.join(self.task, path))

    def is_directory(self, path: str) -> bool:
        """Tell whether a path relative to the task directory leads to a directory."""
        return os.path.isdir(os.path.join(self.task, path))

    def stage_path(self, path: str) -> str:
        """Move something out of the task directory; return its new place.

        Raises:
            RainException: the path leads out of the task directory.
            FileNotFoundError: there is nothing.
        """
        source = os.path.abspath(os.path.join(self.task, path))
        if os.path.isabs(path) or not source.startswith(self.task + os.sep):
            raise RainException(f"Only a relative path inside of the task's directory can be staged, not {path!r}")
        if not os.path.lexists(source):
            raise FileNotFoundError(errno.ENOENT, "Nothing to stage at", path)
        target = os.path.join(self.stage, str(next(self._numbers)))
        if os.path.islink(source):
            self._copy_target(source, target)
        else:
            os.rename(source, target)
        self._staged.append(target)
        return target

    @staticmethod
    def _copy_target(link: str, target: str) -> None:
        (fs.copy_tree if os.path.isdir(link) else fs.copy_file)(os.path.realpath(link), target)
        os.unlink(link)

    def take_staged(self, path: str) -> str | None:
        """A file that became a result and which the worker will move away; None if it was not staged in this call.

        The file staged stays until the end of the call, as it may be returned twice.
        """
        if path not in self._staged:
            return None
        target = os.path.join(self._spare, str(next(self._numbers)))
        try:
            os.link(path, target)
        except OSError:  # no hard links here
            fs.copy_file(path, target)
        return target

    @property
    def has_staged(self) -> bool:
        """Whether something was staged in this call."""
        return bool(self._staged)

    def is_staged(self, path: str) -> bool:
        """Tell whether the path was given out in this call, by `stage_path` or `new_staged`."""
        return path in self._staged

    def new_staged(self) -> str:
        """A path for something that is removed after the call unless it is taken."""
        path = os.path.join(self.stage, str(next(self._numbers)))
        self._staged.append(path)
        return path

    def place_of_tree(self, path: str) -> str:
        """Where a staged directory lies now, as it may be a result already."""
        return self._taken.get(path, path)

    def take_tree(self, path: str) -> str:
        """A staged and settled directory becomes a result, which the worker will move away; once more, a copy of it."""
        target = os.path.join(self._spare, str(next(self._numbers)))
        taken = self._taken.get(path)
        if taken is None:
            os.rename(path, target)
            self._taken[path] = target
        else:
            fs.copy_tree(taken, target)
            fs.settle_tree(target)
        return target

    def drop_staged(self) -> None:
        """Remove what was staged and is not part of a result."""
        if self._staged:
            for path in self._staged:
                fs.remove_tree(path)  # a result is another link to it, or was moved
            self._staged.clear()
            self._taken.clear()

    def write_value(self, parts: Sequence[bytes | memoryview]) -> str:
        """Write a result into a new file; return its path.

        Raises:
            OSError: there is no room for it.
        """
        name = str(next(self._numbers))
        if self.values is not None:
            path = os.path.join(self.values, name)
            size = sum(memoryview(part).nbytes for part in parts)
            found = spares.claim(os.path.join(os.path.dirname(self.values), spares.DIRECTORY), size, path)
            try:
                _write_file(path, parts, spare=size if found else 0)
                return path
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
        path = os.path.join(self._spare, name)
        _write_file(path, parts)
        return path


def _write_file(path: str, parts: Sequence[bytes | memoryview], *, spare: int = 0) -> None:
    """Write a new file, or into a spare one that was claimed for so many bytes."""
    if spare:
        descriptor = spares.open_claimed(path, spare)
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for start in range(0, len(parts), _MAX_PARTS):
            _write_all(descriptor, [memoryview(part).cast("B") for part in parts[start : start + _MAX_PARTS]])
    except OSError as error:
        os.unlink(path)
        error.filename = path  # the system does not say it, and users must know which disk is full
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, views: list[memoryview]) -> None:
    views = [view for view in views if view.nbytes]
    while views:
        written = os.writev(descriptor, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if views and written:
            views[0] = views[0][written:]
