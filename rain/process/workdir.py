"""Work directories and log directories of servers and workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MARKER = ".rain-workdir"


class SetupError(RainException):
    """A process cannot start as asked; the text says what to change."""


class WorkDirectory:
    """A work directory taken by this process.

    Attributes:
        path: absolute path.
        created: True if it did not exist before.
    """

    def __init__(self, path: Path, created: bool) -> None:
        self.path = path
        self.created = created

    def remove(self) -> None:
        """Remove what is in it, and the directory itself if `claim_workdir` created it."""
        _empty(self.path)
        if self.created:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def claim_workdir(path: str | os.PathLike[str], subdirectories: Iterable[str] = ()) -> WorkDirectory:
    """Make a directory the work directory of this process.

    It must be absent, empty, or left over from a process that is dead; what that one left is removed. The
    subdirectories are created.

    Raises:
        SetupError: it is anything else, is owned by another user, or cannot be written.
    """
    directory = Path(path).absolute()
    try:
        created = _make_private(directory, "work directory")
        _check_unused(directory)
        _empty(directory)
        with open(directory / MARKER, "x", encoding="ascii") as marker:
            marker.write(f"{os.getpid()}\n")
        for name in subdirectories:
            (directory / name).mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise SetupError(f"cannot use {directory} as work directory: {error}") from error
    return WorkDirectory(directory, created)


def make_log_directory(path: str | os.PathLike[str], subdirectories: Iterable[str] = ()) -> Path:
    """Create a log directory and folders in it, mode 0700; it may exist.

    Raises:
        SetupError: it is owned by another user or cannot be created.
    """
    directory = Path(path).absolute()
    try:
        _make_private(directory, "log directory")
        for name in subdirectories:
            (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"cannot use {directory} as log directory: {error}") from error
    return directory


def remove_tree(path: Path) -> None:
    """Remove a directory tree; read-only directories in it do not hinder. It may be absent."""

    def make_writable(function: Callable[[str], object], name: str, _: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            elif function is os.unlink:  # what cannot even be looked at is gone: others remove the same tree
                function(name)

    shutil.rmtree(path, onerror=make_writable)


def write_ready_file(path: str | os.PathLike[str]) -> None:
    """Create the file with the single line `ready`, all at once."""
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    Path(temporary).write_text("ready\n", "ascii")
    os.replace(temporary, path)


def _make_private(directory: Path, kind: str) -> bool:
    """Create the directory with its parents, or check whose it is; True if created."""
    if not os.path.lexists(directory):
        for parent in reversed(directory.parents):
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=0o700)
        directory.mkdir(mode=0o700)
        return True
    status = os.stat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise SetupError(f"cannot use {directory} as {kind}: it is not a directory")
    if status.st_uid != os.geteuid() or os.lstat(directory).st_uid != os.geteuid():
        raise SetupError(
            f"cannot use {directory} as {kind}: it is owned by another user (uid {status.st_uid}); choose another one"
        )
    return False


def _check_unused(directory: Path) -> None:
    names = os.listdir(directory)
    if not names:
        return
    if MARKER not in names:
        raise SetupError(
            f"cannot use {directory} as work directory: it is not empty and not of Rain; "
            "choose an empty directory or one that does not exist"
        )
    text = (directory / MARKER).read_text("ascii", errors="replace").strip()
    if text.isdecimal() and int(text) != os.getpid() and _is_alive(int(text)):
        raise SetupError(
            f"cannot use {directory} as work directory: the process {text} uses it; stop that one or choose another"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def _empty(directory: Path) -> None:
    """Remove everything in the directory, the marker last."""
    for name in sorted(os.listdir(directory), key=lambda name: name == MARKER):
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
