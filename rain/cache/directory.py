"""The backend `dir`: one file per result in a directory, which any number of workers may share.

    PATH/results/ab/ab12...   an entry; its modification time is that of its last use
    PATH/turns/ab12...        locked (flock) by who computes this result; the lock ends with its process
    PATH/new/...              entries being written, moved to their place when they are whole
    PATH/size.lock            locked by who removes old entries

Nothing is ever half written in its place; what a power cut leaves is found out by the code in the entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rain.cache.backend import CacheError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

SHARE_BEFORE_LOOK = 16
"""The directory is measured again after so many-th part of its size was written."""

_LEFTOVER_SECONDS = 3600.0
"""A file in `new` that nobody touched for so long is of a process that died."""


class DirectoryBackend:
    """Results in a directory.

    Args:
        path: made if it does not exist.
        size: most bytes of all entries.
        threads: for reading and writing.
    """

    def __init__(self, path: Path, size: int, threads: Executor) -> None:
        self._results = path / "results"
        self._turns = path / "turns"
        self._new = path / "new"
        self._lock = path / "size.lock"
        self._size = size
        self._threads = threads
        self._written = size  # not known yet: measured at the first write
        self._open: set[DirectoryTurn] = set()

    async def ask(self, key: bytes) -> bytes | DirectoryTurn | None:
        """See `Backend`."""
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, key)
        try:
            return await asyncio.shield(asked)
        except OSError as error:
            raise self._failure(error) from error
        except asyncio.CancelledError:  # the thread goes on: a turn it takes has nobody to end it
            asked.add_done_callback(_end_unwanted)
            raise

    async def discard(self, key: bytes) -> None:
        """See `Backend`."""
        await self._in_thread(self._remove, self._place(key))

    async def close(self) -> None:
        """See `Backend`."""
        for turn in list(self._open):
            turn.end()

    async def store(self, key: bytes, entry: bytes) -> None:
        """Write an entry."""
        await self._in_thread(self._store, key, entry)

    def over(self, turn: DirectoryTurn) -> None:
        """The turn ended."""
        self._open.discard(turn)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> CacheError:
        return CacheError(f"{error.filename or self._results}: {error.strerror or error}")

    def _place(self, key: bytes) -> Path:
        name = key.hex()
        return self._results / name[:2] / name

    def _ask(self, key: bytes) -> bytes | DirectoryTurn | None:
        place = self._place(key)
        found = _read(place)
        if found is not None:
            return found
        turn = self._take_turn(key)
        if turn is None:
            return None
        found = _read(place)  # by who had the turn before
        if found is not None:
            turn.end()
            return found
        return turn

    def _take_turn(self, key: bytes) -> DirectoryTurn | None:
        self._turns.mkdir(parents=True, exist_ok=True)
        path = self._turns / key.hex()
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            if _is_at(descriptor, path):
                turn = DirectoryTurn(self, key, path, descriptor)
                self._open.add(turn)
                return turn
            os.close(descriptor)  # the file was removed by who had the turn before

    def _store(self, key: bytes, entry: bytes) -> None:
        if len(entry) > self._size:
            return
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        self._new.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._new, prefix=key.hex()[:8])
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(entry)
            os.replace(temporary, place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        self._written += len(entry)
        if self._written > self._size // SHARE_BEFORE_LOOK:
            self._written = 0
            self._make_room()

    def _make_room(self) -> None:
        """Remove those entries that were used least recently, until the others fit; one process at a time."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            entries = sorted(_entries(self._results))
            surplus = sum(size for _, size, _ in entries) - self._size
            for _, size, path in entries:
                if surplus <= 0:
                    break
                self._remove(Path(path))
                surplus -= size
            long_ago = time.time() - _LEFTOVER_SECONDS
            with os.scandir(self._new) as leftovers:
                for leftover in leftovers:
                    with contextlib.suppress(FileNotFoundError):
                        if leftover.stat().st_mtime < long_ago:
                            os.unlink(leftover.path)
        finally:
            os.close(descriptor)

    @staticmethod
    def _remove(path: Path) -> None:
        path.unlink(missing_ok=True)


class DirectoryTurn:
    """See `Turn`."""

    def __init__(self, backend: DirectoryBackend, key: bytes, path: Path, descriptor: int) -> None:
        self._backend = backend
        self._key = key
        self._path = path
        self._descriptor = descriptor

    async def store(self, entry: bytes) -> None:
        """See `Turn`."""
        try:
            await self._backend.store(self._key, entry)
        finally:
            self.end()

    async def give_up(self) -> None:
        """See `Turn`."""
        self.end()

    def end(self) -> None:
        """Let the next one have it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # removed by hand: the lock ends all the same
                self._path.unlink()
            os.close(descriptor)
            self._backend.over(self)


def _end_unwanted(asked: asyncio.Future[bytes | DirectoryTurn | None]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        answer = asked.result()
        if isinstance(answer, DirectoryTurn):
            answer.end()


def _read(place: Path) -> bytes | None:
    try:
        with open(place, "rb") as file:
            entry = file.read()
            os.utime(file.fileno())
    except FileNotFoundError:
        return None
    return entry


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _entries(results: Path) -> Iterator[tuple[float, int, str]]:
    """When used last, bytes and path of all entries."""
    for directory in results.iterdir():
        with os.scandir(directory) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    status = file.stat()
                    yield status.st_mtime, status.st_size, file.path
