"""This process and its descendants: what they spend, by role; read from /proc, for it must work in any environment."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Roles = Callable[[str], str]

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
RESET_PEAK = "5"
CLIENT = "client"


def family() -> set[int]:
    """Ids of this process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it is gone
                parent = int(_stat(int(entry.name))[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    more = [os.getpid()]
    while more:
        process = more.pop()
        found.add(process)
        more += children.get(process, ())
    return found


def _stat(process: int) -> list[str]:
    """Fields of the file `stat` from the third one on: the second may contain anything."""
    return (PROC / str(process) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _by_role(role: Roles, value: Callable[[int], float]) -> dict[str, float]:
    """Sums of a value of all processes; this one has the role `client`."""
    sums: dict[str, float] = {}
    for process, name in _roles(role):
        with contextlib.suppress(OSError):  # it is gone
            sums[name] = sums.get(name, 0.0) + value(process)
    return sums


def _roles(role: Roles) -> Iterator[tuple[int, str]]:
    for process in family():
        with contextlib.suppress(OSError):  # it is gone
            command = (PROC / str(process) / "cmdline").read_bytes().decode("utf-8", "replace")
            yield process, CLIENT if process == os.getpid() else role(command.replace("\0", " ").strip())


def cpu(role: Roles) -> dict[str, float]:
    """Cpu seconds spent so far, those of ended children included."""
    return _by_role(role, lambda process: sum(map(int, _stat(process)[11:15])) / TICKS)


def resident(role: Roles) -> dict[str, float]:
    """Bytes of resident memory; a page that processes share counts in each."""
    return _by_role(role, lambda process: int((PROC / str(process) / "statm").read_text("ascii").split()[1]) * PAGE)


def peak(role: Roles) -> dict[str, float]:
    """Sums of the processes' own peaks of resident memory (bytes) since `reset_peak`, as the kernel counts them."""
    return _by_role(role, _peak)


def _peak(process: int) -> float:
    for line in (PROC / str(process) / "status").read_text("utf-8", "replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024.0
    return 0.0  # it is ending and has no memory any more


def reset_peak() -> None:
    """Let the peaks begin again with what is resident now."""
    for process in family():
        with contextlib.suppress(OSError):  # it is gone
            (PROC / str(process) / "clear_refs").write_text(RESET_PEAK, "ascii")


def growth(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """How much more it is by now; a process that ended meanwhile makes it no less."""
    return {name: max(0.0, round(value - before.get(name, 0.0), 3)) for name, value in after.items()}
