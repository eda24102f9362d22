"""Looks at processes of tasks: which there are, whether they use more memory than asked for."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeAlias

from rain.common.units import format_size
from rain.worker.core.events import LimitExceeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from rain.worker.core.actions import Run
    from rain.worker.core.events import TaskKey, WorkerEvent

    Watched: TypeAlias = "tuple[TaskKey, int, int]"

INTERVAL = 0.5
"""Seconds between two looks at the memory."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEAD = ("Z", "X", "x")


def memory_request(run: Run) -> int:
    """Bytes of memory which a task asked for, 0 if it did not."""
    return _memory_of(run.template_data.get("resources"))


def _memory_of(resources: Mapping[str, object] | None) -> int:
    memory = (resources or {}).get("memory")
    return memory if isinstance(memory, int) else 0


class MemoryMonitor:
    """Samples the memory of processes whose tasks asked for some, and reports those that take more.

    The looks happen in a thread, as the kernel counts the pages of large processes for milliseconds.

    Args:
        loop: the worker's loop.
        sources: each gives (key of the task, process id, allowed bytes) of the processes that now run tasks with a
            memory request; the descendants of the process belong to the task.
        report: takes LimitExceeded.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        sources: Iterable[Callable[[], Iterable[Watched]]],
        report: Callable[[WorkerEvent], None],
    ) -> None:
        self._loop = loop
        self._sources = tuple(sources)
        self._report = report
        self._closed = False
        self._timer = loop.call_later(INTERVAL, self._sample)

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        self._timer.cancel()

    def _sample(self) -> None:
        watched = [entry for source in self._sources for entry in source()]
        if watched:
            self._loop.run_in_executor(None, _exceeding, watched).add_done_callback(self._looked)
        else:
            self._timer = self._loop.call_later(INTERVAL, self._sample)

    def _looked(self, future: asyncio.Future[list[tuple[TaskKey, int]]]) -> None:
        if self._closed or future.cancelled():
            return
        self._timer = self._loop.call_later(INTERVAL, self._sample)
        for key, allowed in future.result():
            self._report(LimitExceeded(key, f"Memory limit of {format_size(allowed)} exceeded"))


def _exceeding(watched: list[Watched]) -> list[tuple[TaskKey, int]]:
    return [(key, allowed) for key, pid, allowed in watched if exceeds(pid, allowed)]


def exceeds(pid: int, allowed: int) -> bool:
    """Whether a process and its descendants have more than `allowed` bytes in memory.

    Pages which several of them share count once, those shared with others count in proportion. That is only looked
    up when the plain sum, which is cheap, is above the limit.
    """
    pids = descendants(pid)
    return sum(map(resident_size, pids)) > allowed and sum(map(proportional_size, pids)) > allowed


def descendants(pid: int) -> list[int]:
    """The process, its children and theirs, as far as they live and have not lost their parent."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                found += map(int, _read(f"/proc/{parent}/task/{thread}/children").split())
    return found


def resident_size(pid: int) -> int:
    """Bytes of a process in memory, shared ones included; 0 if it has ended."""
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def proportional_size(pid: int) -> int:
    """The same with shared pages divided among those who share them; as `resident_size` where that is not told."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return resident_size(pid)


def is_alive_in(pid: int, group: int) -> bool:
    """Whether a process lives and is in this process group."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return bool(fields) and fields[0] not in _DEAD and int(fields[2]) == group


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:  # it ended
        return ""
