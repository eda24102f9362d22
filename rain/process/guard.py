"""`Guard`: a small separate process that cleans up after its owner, however that one ends."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

_PROGRAM = Path(__file__).with_name("guard_main.py")
MAX_PID = 1 << 22
"""Process ids of Linux are smaller."""

_END_TIMEOUT = 10.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Guard:
    """The owner's side of a guard process.

    When the owner ends without `close`, by SIGKILL too, the guard kills all process groups with SIGKILL and then
    removes all paths which it was told. It runs in its own session, so Ctrl-C in the terminal does not reach it.
    A parent-death signal alone would reach direct children only and is tied to a thread of the parent. Groups are
    told by a table in shared memory with a byte per process id, which the guard reads at the end: one store each.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        # The child inherits the blocked signals, so they cannot hit it before it ignores them.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        table = os.memfd_create("rain-guard", os.MFD_CLOEXEC)
        try:
            os.ftruncate(table, MAX_PID)  # pages are allocated where something is written
            self._groups = mmap.mmap(table, MAX_PID)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), str(table)],
                pass_fds=(table,),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: value for name, value in os.environ.items() if name != "RAIN_TOKEN"},
                start_new_session=True,
            )
        finally:
            os.close(table)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    @property
    def pid(self) -> int:
        """Process id of the guard."""
        return self._process.pid

    def add_group(self, group: int) -> None:
        """Kill this process group when the owner is gone."""
        if 0 < group < MAX_PID and not self._groups.closed:
            self._groups[group] = 1

    def remove_group(self, group: int) -> None:
        """The process group has ended: its number may belong to others soon."""
        if 0 < group < MAX_PID and not self._groups.closed:
            self._groups[group] = 0

    def add_path(self, path: str | os.PathLike[str]) -> None:
        """Remove this file or tree when the owner is gone."""
        self._order(b"path " + _escape(path))

    def remove_path(self, path: str | os.PathLike[str]) -> None:
        """The path is removed, or shall stay."""
        self._order(b"unpath " + _escape(path))

    def add_parent(self, path: str | os.PathLike[str]) -> None:
        """Remove this directory when the owner is gone and the paths are removed, if nothing else is in it."""
        self._order(b"parent " + _escape(path))

    def close(self) -> None:
        """End the guard; nothing is killed or removed. Idempotent."""
        if os.getpid() != self._owner or self._process.stdin is None or self._process.stdin.closed:
            return
        self._order(b"done")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._groups.close()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, line: bytes) -> None:
        """Send an order; a guard that somebody killed cannot be helped."""
        stdin = self._process.stdin
        if stdin is None or stdin.closed or os.getpid() != self._owner:
            return
        with contextlib.suppress(BrokenPipeError):
            stdin.write(line + b"\n")
            stdin.flush()


def _escape(path: str | os.PathLike[str]) -> bytes:
    return os.fsencode(os.path.abspath(path)).replace(b"\\", b"\\b").replace(b"\n", b"\\n")
