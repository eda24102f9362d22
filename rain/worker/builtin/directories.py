"""Directories made of values, and parts of directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rain.common import fs
from rain.common.errors import RainException
from rain.worker.builtin.job import BuiltinError, InputLost
from rain.worker.builtin.paths import configured_path, copy_out, described, relative_path, stored_value
from rain.worker.core.templates import is_directory
from rain.worker.store import StoreError

if TYPE_CHECKING:
    from rain.worker.builtin.job import Job
    from rain.worker.store import Staged, Store


def make_directory(job: Job) -> None:
    """Put values into a new directory."""
    config = job.config()
    paths = config.get("paths") if isinstance(config, dict) else None
    if not isinstance(paths, list):
        raise BuiltinError(f"the config must have a list of paths, not {config!r}")
    job.expect_inputs(len(paths))
    job.expect_output_kind(0, True, "the result")
    targets = [relative_path(path) for path in paths]
    for path, source in zip(targets, job.run.inputs, strict=True):
        if path == "." and not is_directory(source.spec):
            raise BuiltinError("a blob needs a path inside of the directory, not '.'")
    job.in_thread(lambda: _make(job, targets), lambda staged: _finish(job, staged), lambda staged: _drop(job, staged))


def _make(job: Job, targets: list[str]) -> Staged:
    root = job.store.new_tree()
    try:
        os.mkdir(root, 0o700)
        for path, source in zip(targets, job.run.inputs, strict=True):
            target = os.path.normpath(os.path.join(root, path))
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                copy_out(job.store, source.object, is_directory(source.spec), target)
            except OSError as error:
                raise BuiltinError(f"cannot put a value at the path {path!r}: {error.strerror}") from error
            except RainException as error:
                raise BuiltinError(f"cannot put a value at the path {path!r}: {error}") from error
        return job.store.stage_tree(root)
    except (BuiltinError, InputLost, OSError):
        fs.remove_tree(root)
        raise


def slice_directory(job: Job) -> None:
    """Take a file or a directory out of a directory."""
    path = configured_path(job)
    job.expect_inputs(1)
    if not is_directory(job.run.inputs[0].spec):
        raise BuiltinError(f"cannot take the path {path!r} out of the input: it is a blob, not a directory")
    directory = path.endswith("/")
    job.expect_output_kind(0, directory, f"the path {path!r}")
    name = relative_path(path)
    job.in_thread(
        lambda: _slice(job, path, name, directory),
        lambda staged: _finish(job, staged),
        lambda staged: _drop(job, staged),
    )


def _slice(job: Job, path: str, name: str, directory: bool) -> Staged:
    store = job.store
    key = job.run.inputs[0].object
    value = stored_value(store, key)
    if isinstance(value, str) and os.path.isdir(value):
        return _part(store, value, path, name, directory)
    root = store.new_tree()
    try:
        copy_out(store, key, True, root)
        return _part(store, root, path, name, directory)
    except (OSError, RainException) as error:
        if isinstance(error, StoreError):
            raise
        raise described(error) from error
    finally:
        fs.remove_tree(root)


def _part(store: Store, root: str, path: str, name: str, directory: bool) -> Staged:
    source = os.path.realpath(os.path.join(root, name))
    real_root = os.path.realpath(root)
    if not os.path.exists(source) or not (source + os.sep).startswith(real_root + os.sep):
        raise BuiltinError(f"there is no path {path!r} in the directory")
    if os.path.isdir(source) != directory:
        hint = "a directory; end the path with '/' to take it" if not directory else "not a directory"
        raise BuiltinError(f"the path {path!r} in the directory is {hint}")
    return store.stage_copy(source)


def _finish(job: Job, staged: Staged) -> None:
    job.finish([job.put(0, staged)])


def _drop(job: Job, staged: Staged | None) -> None:
    if staged is not None:
        job.store.discard_staged(staged)
