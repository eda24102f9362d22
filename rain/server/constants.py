"""Large constants of sessions, as files of the server's work directory."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ConstantStore:
    """Values of large constants; one file each, one folder per session.

    Args:
        directory: created when first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, session: int, obj: int) -> Path:
        return self._directory / str(session) / str(obj)

    def write(self, session: int, obj: int, offset: int, data: bytes) -> None:
        """Write a piece; offset 0 begins the value anew.

        Raises:
            OSError: e.g. the disk is full.
        """
        path = self._path(session, obj)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(path, "wb" if offset == 0 else "r+b") as file:
                file.seek(offset)
                file.write(data)
        except OSError as error:
            error.filename = str(path)  # a write that fails does not say it
            raise

    def share(self, session: int, obj: int, source: int) -> None:
        """Give an object the value of another one; it outlives that one.

        Raises:
            OSError: e.g. the disk is full.
        """
        os.link(self._path(session, source), self._path(session, obj))

    def drop(self, session: int, objects: list[int] | None) -> None:
        """Remove values; None = all of the session."""
        if objects is None:
            shutil.rmtree(self._directory / str(session), ignore_errors=True)
            return
        for obj in objects:
            with contextlib.suppress(FileNotFoundError):
                self._path(session, obj).unlink()

    def read(self, session: int, obj: int, offset: int, length: int) -> tuple[int, bytes] | None:
        """(total size, bytes from `offset`; length 0 = the whole rest), None if it is not here."""
        try:
            return read_piece(self._path(session, obj), offset, length)
        except FileNotFoundError:
            return None


def read_piece(path: Path, offset: int, length: int) -> tuple[int, bytes]:
    """(size of the file, bytes from `offset`; length 0 = the whole rest)."""
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        file.seek(offset)
        return total, file.read(length or -1)
