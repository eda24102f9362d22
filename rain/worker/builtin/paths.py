"""Paths of tasks, and values at paths."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from rain.common import fs
from rain.worker.builtin.job import BuiltinError, InputLost

if TYPE_CHECKING:
    from rain.common.errors import RainException
    from rain.worker.builtin.job import Job
    from rain.worker.core.events import ObjectKey
    from rain.worker.store import Store


def configured_path(job: Job) -> str:
    """The `path` of the config.

    Raises:
        BuiltinError: there is none.
    """
    config = job.config()
    path = config.get("path") if isinstance(config, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise BuiltinError(f"the config must have a path, not {config!r}")
    return path


def absolute_path(job: Job) -> str:
    """The absolute `path` of the config.

    Raises:
        BuiltinError: there is none, or it is relative.
    """
    path = configured_path(job)
    if not os.path.isabs(path):
        raise BuiltinError(f"the path {path!r} must be absolute")
    return path


def relative_path(path: Any) -> str:
    """A path that stays inside of the directory it is relative to, in its shortest form; `.` for the directory itself.

    Raises:
        BuiltinError: it is absolute, leads upward, or is no path.
    """
    if not isinstance(path, str) or not path or "\0" in path:
        raise BuiltinError(f"{path!r} is not a path")
    if os.path.isabs(path):
        raise BuiltinError(f"the path {path!r} must be relative")
    normal = os.path.normpath(path)
    if normal.split(os.sep, 1)[0] == os.pardir:
        raise BuiltinError(f"the path {path!r} leads upward")
    return normal


def stored_value(store: Store, key: ObjectKey) -> bytes | str:
    """The value of an input, or the path of its file or tree.

    Raises:
        InputLost: it is not here, or damaged.
    """
    value = store.get(key)
    if value is None:
        raise InputLost(key, "the value is not in the store")
    if isinstance(value, bytes):
        return value
    path = str(value)
    try:
        if not store.is_tree(key) and os.stat(path).st_size != store.size(key):
            raise InputLost(key, f"the stored value {path} is damaged")
    except (OSError, KeyError) as error:
        raise InputLost(key, f"the stored value {path} cannot be read: {error}") from error
    return path


def copy_out(store: Store, key: ObjectKey, directory: bool, target: str) -> None:
    """Write a value to `target` as a writable file, or as a tree; a directory may be there and gets its members.

    Raises:
        InputLost: the value is not here, or damaged.
        OSError: it cannot be written.
        RainException: the value is not a directory.
    """
    value = stored_value(store, key)
    if not directory:
        if isinstance(value, bytes):
            with open(target, "xb") as file:
                file.write(value)
        else:
            with open(value, "rb") as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    elif isinstance(value, bytes):
        fs.unpack_directory(value, target)
    elif os.path.isdir(value):
        fs.copy_tree(value, target)
    else:
        with open(value, "rb") as archive:
            fs.unpack_directory(archive, target)


def described(error: OSError | RainException) -> BuiltinError:
    """What the system refused, for the user; another worker may be luckier."""
    return BuiltinError(str(error), retriable=True)
