"""Making the chosen cache ready at the server, and opening it at workers."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from rain.cache.backend import CacheError
from rain.cache.choice import CacheChoice
from rain.cache.directory import DirectoryBackend
from rain.cache.keyfile import make_key_file, read_key_file

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from rain.cache.backend import Backend

MARK = "mark"
"""A file in the directory of the backend `dir`, by which a worker knows that it sees the directory of its server."""


def prepare(choice: CacheChoice | None) -> dict[str, Any]:
    """Make what the cache needs: its directory, or its key file.

    Returns:
        What workers are told, empty without a cache.

    Raises:
        OSError: it cannot be made.
        CacheError: others can write into the directory.
    """
    if choice is None:
        return {}
    if choice.directory is None:
        make_key_file(choice.key_file)
        return choice.to_map()
    choice.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(choice.directory)
    mark = choice.directory / MARK
    if not mark.exists():
        mark.write_text(secrets.token_hex(16))
    return {**choice.to_map(), MARK: mark.read_text()}


async def open_backend(told: dict[str, Any], threads: Executor) -> tuple[Backend, bytes]:
    """Open the cache that a server told of.

    Args:
        told: what `prepare` returned there, not empty.
        threads: for reading and writing.

    Returns:
        The backend, and the secret of its entries.

    Raises:
        CacheError: it cannot be used from here; the text says why.
    """
    try:
        choice = CacheChoice.from_map(told)
    except (KeyError, TypeError, ValueError) as error:
        raise CacheError(f"the server tells of it what this version does not understand: {error!r}") from error
    if choice.directory is not None:
        _check_mark(choice.directory, told.get(MARK))
        _check_private(choice.directory)
        return DirectoryBackend(choice.directory, choice.size, threads), b""
    from rain.cache.shared import MemcachedBackend

    secret = read_key_file(choice.key_file)
    try:
        return await MemcachedBackend.open(choice.servers or ""), secret
    except ValueError as error:
        raise CacheError(f"--cache {choice.servers}: {error}") from error


def _check_private(directory: Path) -> None:
    """Results are unpickled, so nobody else may put some there."""
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise CacheError(
            f"others can write into {directory}, and results found there would be believed; "
            f"let it belong to you, and run: chmod go-w {directory}"
        )


def _check_mark(directory: Path, mark: Any) -> None:
    try:
        found = (directory / MARK).read_text()
    except OSError as error:
        found, reason = None, error.strerror or str(error)
    else:
        reason = "another cache is there"
    if found != mark:
        raise CacheError(
            f"{directory} on the server's machine is not to be seen from here ({reason}); "
            "start the server with --cache dir:PATH in a shared file system, or with memcached://"
        )
