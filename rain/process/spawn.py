"""What our own child programs do at their start, so that they end with their owner."""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER_FD = "RAIN_OWNER_FD"
"""Environment variable: descriptor of a pipe whose other end the owner holds."""

LARGE_PAGES = (
    "GLIBC_TUNABLES",
    f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={32 << 20}:glibc.malloc.trim_threshold={64 << 20}",
)
"""Environment variable and value which let malloc have large pages where the system has them on request: what a task
fills first, a new value above all, costs a third of the time then. And malloc shall not give the last large page back
after each value, only to ask for a fresh one for the next: the thresholds are those which it comes to by itself once it
has freed 32 MiB in one piece. For Python executors, not for what they start."""

_PR_SET_PDEATHSIG = 1


def die_with_parent(expected_parent: int | None = None) -> None:
    """Let the kernel kill this process by SIGKILL when the thread that started it ends.

    Args:
        expected_parent: process id of the parent; if it is gone already, this process ends at once.
    """
    import ctypes  # it takes its time, and few need it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if expected_parent is not None and os.getppid() != expected_parent:
        os._exit(1)


def end_group() -> None:
    """End this process at once, with its process group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def watch_owner(fd: int, gone: Callable[[], None] = end_group) -> threading.Thread:
    """Call `gone` in a thread when the other end of a pipe or socket is closed.

    Args:
        fd: read end of a pipe, or a socket. Nothing is read from it.
        gone: what to do; by default this process and its group end at once.

    Returns:
        The daemon thread that waits.
    """
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP | select.POLLHUP)

    def wait() -> None:
        poll.poll()
        gone()

    thread = threading.Thread(target=wait, name="rain-owner-watch", daemon=True)
    thread.start()
    return thread
