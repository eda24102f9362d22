"""`SpareDirectories`: directories of programs that have ended, used again by the next ones."""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from rain.common import fs
from rain.worker.task_logs import STREAMS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from rain.worker.programs import Programs

_MODE = stat.S_IFDIR | 0o700
_MOST = 64
_MARK_NS = 1_000_000_019  # no program sets this time by chance
_KEPT_SECONDS = 0.5

_CLOSED_TOGETHER = 32
_MOST_HELD = 512


class SpareDirectories:
    """Empty directories, but for empty files for what programs write.

    Making and removing one with its two files takes 0.1 ms of cpu on ext4, and more of the disk. It is used again only
    if nobody is in it any more, and who has left the process group of its program was not killed with it. But if no
    process id was given to anybody but programs from the start of that one to the start of another after its end, it
    has started nobody. What is not used soon is removed.

    Args:
        loop: for the timer.
        programs: knows who else got process ids.
        remove_later: removes what takes long, in a thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        programs: Programs,
        remove_later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._loop = loop
        self._programs = programs
        self._remove_later = remove_later
        self._held = HeldDirectories(remove_later)
        self._own = os.geteuid()
        self._deserted: list[str] = []
        self._ended: list[str] = []  # their programs have ended, in the present sequence of process ids
        self._sequence = 0
        self._is_in_use = False
        self._timer: asyncio.TimerHandle | None = None

    def make(self, path: str) -> None:
        """Make a directory for a program, which may hold empty files for its streams.

        Raises:
            OSError: it cannot be made.
        """
        self._is_in_use = True
        if self._deserted:
            os.rename(self._deserted.pop(), path)
        else:
            os.mkdir(path, 0o700)

    def program_started(self) -> None:
        """A program has just been started."""
        if self._ended:
            if self._sequence == self._programs.sequence:
                self._deserted += self._ended
            else:
                self._remove_all(self._ended)
            self._ended = []

    def take_back(self, path: str, sequence: int) -> bool:
        """A program has ended that wrote nothing; False if its directory was not one used before, or is not as it was
        made: then it is to be emptied and offered.

        Args:
            path: the directory.
            sequence: that of the program; 0: it was not started.
        """
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return True
        # Entries that come or go change the time.
        if status.st_mtime_ns != _MARK_NS or not self._is_usable(status, sequence):
            return False
        self._keep(path, sequence)
        return True

    def offer(self, path: str, sequence: int) -> None:
        """A program has ended, and its directory was emptied.

        Args:
            path: the directory.
            sequence: that of the program; 0: it was not started.
        """
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if self._is_usable(status, sequence):
            os.utime(path, ns=(_MARK_NS, _MARK_NS))
            self._keep(path, sequence)
        else:
            self._remove(path)

    def _is_usable(self, status: os.stat_result, sequence: int) -> bool:
        is_as_made = status.st_mode == _MODE and status.st_uid == self._own
        count = len(self._deserted) + len(self._ended)
        return is_as_made and count < _MOST and sequence == self._programs.sequence

    def _keep(self, path: str, sequence: int) -> None:
        if self._sequence != sequence:
            self._remove_all(self._ended)
            self._ended = []
            self._sequence = sequence
        self._ended.append(path)
        if self._timer is None:
            self._timer = self._loop.call_later(_KEPT_SECONDS, self._look)

    def close(self) -> None:
        """Remove all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._remove_all(self._deserted)
        self._remove_all(self._ended)
        self._deserted, self._ended = [], []
        self._held.close()

    def _look(self) -> None:
        self._timer = None
        if self._is_in_use:
            self._is_in_use = False
            self._timer = self._loop.call_later(_KEPT_SECONDS, self._look)
        else:
            self._remove_all(self._deserted)
            self._remove_all(self._ended)
            self._deserted, self._ended = [], []

    def _remove_all(self, paths: list[str]) -> None:
        for path in paths:
            self._remove(path)

    def _remove(self, path: str) -> None:
        try:
            for _, name in STREAMS.values():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(path, name))
            self._held.remove(path)
        except FileNotFoundError:
            return
        except OSError:  # somebody is still at work there
            self._remove_later(partial(fs.remove_tree, path))


class HeldDirectories:
    """Removes empty directories without waiting until their space on the disk is free.

    Some file systems tell the disk of each block that becomes free, and wait for it, also for others that make a
    directory beside the one removed. What is held open is only freed when it is closed: many at a time, in a thread.

    Args:
        in_thread: calls a function in a thread, or at once where there is none.
    """

    def __init__(self, in_thread: Callable[[Callable[[], None]], None]) -> None:
        self._in_thread = in_thread
        self._open: list[int] = []
        self._closing = False

    def remove(self, path: str) -> None:
        """Remove an empty directory.

        Raises:
            OSError: it cannot be removed.
        """
        if len(self._open) >= _MOST_HELD:  # the disk is behind
            os.rmdir(path)
            return
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.rmdir(path)
        except OSError:
            os.close(descriptor)
            raise
        self._open.append(descriptor)
        if len(self._open) >= _CLOSED_TOGETHER and not self._closing:
            self._closing = True
            self._in_thread(self.close)

    def close(self) -> None:
        """Free the space of all that is held."""
        with contextlib.suppress(IndexError):  # another thread does the same at the end
            while True:
                os.close(self._open.pop())
        self._closing = False
