"""What processes use: memory, descriptors, threads and cpu time, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses.

    Attributes:
        rss: resident bytes.
        descriptors: number of open descriptors.
        threads: number of threads.
        cpu: seconds of cpu time since its start, user and system.
    """

    rss: int
    descriptors: int
    threads: int
    cpu: float


def usage(pid: int) -> Usage:
    """What a process uses now.

    Raises:
        OSError: there is no such process.
    """
    folder = Path(f"/proc/{pid}")
    # The name of the program in parentheses may hold anything.
    fields = (folder / "stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    user, system, threads, pages = (int(fields[index]) for index in (11, 12, 17, 21))
    return Usage(
        rss=pages * _PAGE,
        descriptors=len(os.listdir(folder / "fd")),
        threads=threads,
        cpu=(user + system) / _TICK,
    )
