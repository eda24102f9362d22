"""Values between the store and the result cache: digests of inputs, copies of outputs, and the way back."""

from __future__ import annotations

import hashlib
import os
from hashlib import blake2b
from typing import TYPE_CHECKING

from rain.cache.entries import MAX_OUTPUT, CachedOutput
from rain.common.fs import pack_directory
from rain.worker.store.directories import Staged

if TYPE_CHECKING:
    from pathlib import Path

    from rain.worker.store import Store

DIGEST_BYTES = 32


def digest_of(value: bytes | Path) -> bytes:
    """Digest of a value: bytes, or the path of a file or tree. Slow where it is large: for threads.

    Raises:
        OSError, RainException: it cannot be read.
    """
    if isinstance(value, bytes):
        return blake2b(value, digest_size=DIGEST_BYTES).digest()
    if value.is_dir():
        return blake2b(pack_directory(value), digest_size=DIGEST_BYTES).digest()
    with open(value, "rb") as file:
        return hashlib.file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES)).digest()


def read_output(value: bytes | Path, size: int, info: bytes | None, directory: bool) -> CachedOutput | None:
    """Read an output for the cache, None if it is too large. Slow where it is large: for threads.

    Args:
        value: bytes, or the path of a file or tree.
        size: as reported to the server.
        info: packed object info.
        directory: whether it is one.

    Raises:
        OSError, RainException: it cannot be read.
    """
    if size > MAX_OUTPUT:
        return None
    if isinstance(value, bytes):
        data = value
    elif directory:
        data = pack_directory(value)
    else:
        data = value.read_bytes()
    return CachedOutput(data, size, info, directory) if len(data) <= MAX_OUTPUT else None


def stage_output(store: Store, output: CachedOutput, inline_limit: int) -> Staged:
    """Make an output from the cache ready for the store. Slow where it is large: for threads.

    Raises:
        StoreError: there is no room for it, or it is damaged.
        OSError: it cannot be written.
    """
    if output.directory:
        return store.stage_tar(output.data)
    size = len(output.data)
    if size < inline_limit:
        return Staged(size, data=output.data)
    path = store.new_file(size)
    try:
        with open(path, "wb") as file:
            file.write(output.data)
            os.fchmod(file.fileno(), 0o400)
    except OSError:
        store.discard_file(path)
        raise
    return Staged(size, path=path)
