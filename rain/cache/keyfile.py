"""The key file of a cache that others can write to: who has it is believed."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from typing import TYPE_CHECKING

from rain.cache.backend import CacheError
from rain.common.errors import AuthenticationError
from rain.net.access import read_private_text

if TYPE_CHECKING:
    from pathlib import Path

_LEAST_CHARACTERS = 32


def make_key_file(path: Path) -> None:
    """Write a key file with a fresh key, mode 0600, unless there is one.

    Raises:
        OSError: it cannot be written.
    """
    path = path.expanduser()
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        with contextlib.suppress(FileExistsError):  # another server was quicker
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def read_key_file(path: Path) -> bytes:
    """The key.

    Raises:
        CacheError: the file cannot be read, is readable by others, or holds less than 32 characters.
    """
    try:
        text = read_private_text(path.expanduser(), "key file of the result cache").strip()
    except AuthenticationError as error:
        raise CacheError(str(error)) from error
    if len(text) < _LEAST_CHARACTERS:
        raise CacheError(f"the key file of the result cache {path} holds less than {_LEAST_CHARACTERS} characters")
    return text.encode()
