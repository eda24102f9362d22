"""Finds what a test leaves behind: processes, threads, descriptors, sockets, shared memory, temporary directories.

Example (in a conftest.py):
    @pytest.fixture(autouse=True)
    def leak_check():
        with no_leaks():
            yield
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = 10.0
"""Seconds which things may take to go away."""

_NAME_PARTS = ("rain",)
_NAMED_BY_OWNER = ("shared_memory", "directories", "sockets")
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What exists now. Each entry is a readable text; equal things have equal texts.

    Attributes:
        processes: descendants of this process, and processes that lost their parent and run Rain; no zombies.
        threads: names of live threads which are not daemons of the interpreter itself.
        descriptors: open descriptors of this process.
        shared_memory: entries of /dev/shm with Rain's name, of others too.
        directories: entries of the temporary directory with Rain's name, of others too.
        sockets: bound unix sockets with Rain's name, of others too.
    """

    processes: frozenset[str]
    threads: frozenset[str]
    descriptors: frozenset[str]
    shared_memory: frozenset[str]
    directories: frozenset[str]
    sockets: frozenset[str]

    def new_since(self, before: Snapshot) -> dict[str, list[str]]:
        """What is here, not of others, and was not `before`, by kind; empty if nothing is."""
        grown = {}
        for field in fields(self):
            new = getattr(self, field.name) - getattr(before, field.name)
            # Judged only now: who owned something that lay here before may be gone, or its number be another's.
            mine = _ours(new) if new and field.name in _NAMED_BY_OWNER else new
            if mine:
                grown[field.name] = sorted(mine)
        return grown


def snapshot() -> Snapshot:
    """Take stock of this process and of what belongs to Rain on this machine."""
    return Snapshot(
        processes=_processes(),
        threads=frozenset(f"{thread.name} (ident {thread.ident})" for thread in threading.enumerate()),
        descriptors=_descriptors(),
        shared_memory=_named_entries(Path("/dev/shm")),
        directories=_temporary_directories(Path(tempfile.gettempdir())),
        sockets=_unix_sockets(),
    )


class LeakError(AssertionError):
    """Something was left behind."""


def check(before: Snapshot, *, grace: float = GRACE) -> None:
    """Wait until nothing is left that was not there `before`.

    Args:
        before: snapshot taken before.
        grace: seconds to wait.

    Raises:
        LeakError: names what is left.
    """
    end = time.monotonic() + grace
    while True:
        grown = snapshot().new_since(before)
        if not grown:
            return
        if time.monotonic() >= end:
            lines = [f"  {kind}: {', '.join(entries)}" for kind, entries in grown.items()]
            raise LeakError(f"left behind after {grace:g} s:\n" + "\n".join(lines))
        time.sleep(_POLL)


@contextlib.contextmanager
def no_leaks(*, grace: float = GRACE) -> Iterator[None]:
    """The block must leave nothing behind; not checked when it raises."""
    before = snapshot()
    yield
    check(before, grace=grace)


def _processes() -> frozenset[str]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        text = _describe(process)
        if text is not None:
            found.add(text)
    for process in psutil.process_iter(["ppid", "cmdline"]):
        command = process.info["cmdline"] or []
        if process.info["ppid"] == 1 and _runs_rain(command):
            text = _describe(process)
            if text is not None:
                found.add(text)
    return frozenset(found)


def _runs_rain(command: list[str]) -> bool:
    return any(part in ("-m", "rain") or Path(part).name == "rain" for part in command) and any(
        part.split(".")[0] == "rain" or Path(part).name == "rain" for part in command
    )


def _describe(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.NoSuchProcess:
        return None


def _descriptors() -> frozenset[str]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target != f"/proc/{os.getpid()}/fd":
                found.add(f"{entry} -> {target}")
    return frozenset(found)


def _ours(paths: frozenset[str]) -> frozenset[str]:
    """Without what belongs to clusters of others: names of Rain hold the process id of the owner."""
    mine = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}

    def is_foreign(path: str) -> bool:
        owners = [int(number) for number in re.findall(r"-(\d+)(?=[-.]|$)", path)]
        return any(pid not in mine and pid > 1 and psutil.pid_exists(pid) for pid in owners)

    return frozenset(path for path in paths if not is_foreign(path))


def _named_entries(folder: Path) -> frozenset[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return frozenset()
    return frozenset(str(folder / name) for name in names if any(part in name.lower() for part in _NAME_PARTS))


def _temporary_directories(folder: Path) -> frozenset[str]:
    """Entries with Rain's name; of the folders that all clusters of a user share, their entries."""
    shared = {f"rain-{os.getuid()}", "rain-logs", "rain-work"}
    entries = {entry for entry in _named_entries(folder) if Path(entry).name not in shared}
    for name in shared:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            entries.update(str(folder / name / entry) for entry in os.listdir(folder / name) if entry != "access")
    return frozenset(entries)


def _unix_sockets() -> frozenset[str]:
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        path = line.split(maxsplit=7)[7:]
        if path and any(part in path[0].lower() for part in _NAME_PARTS):
            found.add(path[0])
    return frozenset(found)
