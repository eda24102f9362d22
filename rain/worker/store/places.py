"""Directories in which the store keeps value files."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil

SHARED_MEMORY = "/dev/shm"


class Place:
    """One directory of value files.

    A file of the store begins with `fresh` and ends with `release` and in no other way, so that released files can
    be kept and handed out again without a change elsewhere.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.device = os.stat(self.directory).st_dev
        self._prefix = self.directory + os.sep
        self._numbers = itertools.count(1)

    def fresh(self) -> str:
        """A path that no file has; the caller creates the file."""
        return f"{self._prefix}{next(self._numbers)}"

    def owns(self, path: str) -> bool:
        """Is the path directly in this directory?"""
        return path.startswith(self._prefix) and os.sep not in path[len(self._prefix) :]

    def release(self, path: str) -> None:
        """The file is not needed any more; whoever has it open or mapped keeps what he sees."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove(self) -> None:
        """Remove the directory with all files."""
        shutil.rmtree(self.directory, ignore_errors=True)


def create_shared_directory(parent: str = SHARED_MEMORY) -> str | None:
    """A new private directory in shared memory.

    Returns:
        Its path (mode 0700, named after user and process), None where there is no usable shared memory.
    """
    path = os.path.join(parent, f"rain-{os.geteuid()}-{os.getpid()}-{secrets.token_hex(8)}")
    try:
        os.mkdir(path, 0o700)
    except OSError:
        return None
    return path


def free_bytes(directory: str) -> int:
    """Free bytes of the file system, as an ordinary user sees them."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
