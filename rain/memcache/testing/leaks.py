"""Whether something is left behind: processes, descriptors, tasks and timers (Linux)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

GRACE_SECONDS = 2.0
"""What ends by itself so soon is not a leak: a process that was told to end, a transport that is closing."""
STEP_SECONDS = 0.01


class Leaked(AssertionError):
    """Something was left behind; the text says what."""


def children() -> set[str]:
    """`PID COMMAND` of the child processes of this one, ended ones that nobody waited for included."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in _text(task / "children").split():
            found.add(f"process {pid} {_text(Path('/proc', pid, 'cmdline')).replace(chr(0), ' ').strip()}")
    return found


def descriptors() -> set[str]:
    """`NUMBER TARGET` of the open files, sockets and pipes of this process."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"descriptor {number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # the one that lists the others
    return found


def loop_leaks() -> set[str]:
    """Tasks and timers of the running loop, except the task that asks. Only asyncio's own loops tell their timers."""
    loop = asyncio.get_running_loop()
    found = {f"task {task!r}" for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    return found | {f"timer {timer!r}" for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()}


class LeakCheck:
    """A context manager: at its end the process has the children and descriptors that it had at the beginning.

    Raises:
        Leaked: at the end, after a grace of two seconds.
    """

    def __enter__(self) -> Self:
        self._before = children() | descriptors()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while left := (children() | descriptors()) - self._before:
            if time.monotonic() > deadline:
                if kind is not None:
                    return  # that exception tells more
                raise Leaked("left behind: " + "; ".join(sorted(left)))
            time.sleep(STEP_SECONDS)


async def settled(allowed: set[str]) -> None:
    """Wait until the loop has no task and timer but those allowed.

    Raises:
        Leaked: after a grace of two seconds.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while left := loop_leaks() - allowed:
        if time.monotonic() > deadline:
            raise Leaked("left behind: " + "; ".join(sorted(left)))
        await asyncio.sleep(STEP_SECONDS)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
