"""Taking values which executors made into the store."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rain.common import fs
from rain.common.comm import FrameError
from rain.common.failure import Failure
from rain.worker.core.events import BlockEnd, RunFailed, RunResult
from rain.worker.core.templates import is_directory
from rain.worker.foreign_specs import output_fields
from rain.worker.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.worker.core.actions import Run
    from rain.worker.core.events import ObjectKey
    from rain.worker.store import Store

_NO_NAMES = ("", os.curdir, os.pardir)
OutputEntry = tuple[int, bytes | None, bytes | None]


def take_result(store: Store, run: Run, row: list[Any], directories: Iterable[str]) -> RunResult | RunFailed:
    """Store what a run made that succeeded, by its row of `Results`, and tell how it ended.

    Args:
        store, directories: as of `take_outputs`.

    Raises:
        FrameError: the result is malformed.
    """
    if run.members:
        return _take_block(store, run, row, directories)
    _, _, start, duration, info, outputs = row
    if len(outputs) != len(run.outputs):
        raise FrameError(f"{len(outputs)} outputs of task {run.key[1]}, which has {len(run.outputs)}")
    try:
        taken = take_outputs(store, run, outputs, directories)
    except StoreError as error:
        return RunFailed(run.key, _not_stored(error, run), start, duration)
    return RunResult(run.key, start, duration, info, taken)


def _take_block(store: Store, run: Run, row: list[Any], directories: Iterable[str]) -> RunResult | RunFailed:
    _, _, start, duration, info, outputs, packed, ran = row
    if not (type(packed) is bytes and type(ran) is int and 0 < ran <= run.members and len(outputs) <= 1):
        raise FrameError(f"a result of block {run.key[1]} of a wrong form")
    if not outputs:
        return RunResult(run.key, start, duration, info, [], BlockEnd(packed, ran))
    stored = run.outputs[0] + ran - 1
    _, template_data = (run.template, run.template_data) if run.link is None else run.link.template(ran - 1)
    try:
        member = replace(run, outputs=(stored,), template_data=template_data)
        taken = take_outputs(store, member, outputs, directories)
    except StoreError as error:  # the members run one by one then, and the one to blame fails alone
        return RunFailed(run.key, _not_stored(error, run), start, duration)
    return RunResult(run.key, start, duration, info, taken, BlockEnd(packed, ran, stored))


def _not_stored(error: StoreError, run: Run) -> Failure:
    return Failure("task", str(error), session=run.key[0], task=run.key[1], attempts=run.key[2])


def take_outputs(store: Store, run: Run, outputs: list[Any], directories: Iterable[str]) -> list[OutputEntry]:
    """Store the values of a result; nothing of it is stored after an error.

    Args:
        store: takes the values.
        run: which made them.
        outputs: per output `[value, packed info or None, size]`. The value is bytes (of a directory its tar), the path
            of a file or tree, or the id of an input with the same value. The size is None where the executor does not
            tell it; where it does, bytes are small, tars are in order and trees are settled.
        directories: those in which paths may lie.

    Returns:
        Per output its size, packed info and the value itself where it is small.

    Raises:
        FrameError: the result is malformed.
        StoreError: a value cannot be stored.
    """
    session = run.key[0]
    taken: list[OutputEntry] = []
    try:
        for index, (value, info, size) in enumerate(outputs):
            key = (session, run.outputs[index])
            if type(value) is bytes and size is not None:
                store.put(key, value)
                taken.append((size, info, value))
                continue
            own_size = _take(store, run, index, value, size, directories)
            stored = store.get(key)
            inline = stored if isinstance(stored, bytes) else None
            taken.append((own_size if size is None else size, info, inline))
    except (StoreError, FrameError):
        store.delete([(session, number) for number in run.outputs])
        raise
    return taken


def _take(store: Store, run: Run, index: int, value: Any, size: int | None, directories: Iterable[str]) -> int:
    """Store one value; returns its size."""
    target = (run.key[0], run.outputs[index])
    directory = output_fields(run, index).get("data_type") == "dir"
    if isinstance(value, bytes):
        if not directory:
            store.put(target, value)
            return len(value)
        staged = store.stage_tar(value)
        store.put_staged(target, staged)
        return staged.size
    if isinstance(value, int):
        return _share(store, run, value, target, directory)
    if not isinstance(value, str):
        raise FrameError(f"a value of type {type(value).__name__!r}")
    path = _checked_path(value, directories)
    is_tree = os.path.isdir(path)
    if is_tree and os.path.islink(path):
        raise StoreError(f"The output at {path} is a symbolic link to a directory", path=path)
    if is_tree and directory:
        return store.put_tree(target, path, size=size)
    if is_tree or directory:
        found, declared = ("directory", "blob") if is_tree else ("file", "directory")
        raise StoreError(f"The output at {path} is a {found}, but a {declared} is declared", path=path)
    return store.put_file(target, path)


def _share(store: Store, run: Run, number: int, target: ObjectKey, directory: bool) -> int:
    source = next((item for item in run.inputs if item.object[1] == number), None)
    if source is None:
        raise FrameError(f"a result equal to object {number}, which is no input of task {run.key[1]}")
    if is_directory(source.spec) != directory:
        found, declared = ("blob", "directory") if directory else ("directory", "blob")
        raise StoreError(f"The output equal to input {number} is a {found}, but a {declared} is declared", path="")
    try:
        size = store.share(source.object, target)
    except KeyError:
        raise StoreError(f"The value of input {number}, which is the output too, is lost", path="") from None
    value = store.get(target)
    return fs.packed_size(value) if directory and isinstance(value, bytes) else size


def _checked_path(path: str, directories: Iterable[str]) -> str:
    written, name = os.path.split(path)
    if written in directories and name not in _NO_NAMES:
        return path
    parent = os.path.realpath(written)
    for directory in directories:
        base = os.path.realpath(directory)
        if parent == base or parent.startswith(base + os.sep):
            return path
    raise FrameError(f"the path {path!r} is outside of the executor's directories")
