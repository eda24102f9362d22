"""Joining blobs, and handing values on after a while."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import msgpack

from rain.worker.builtin.job import COPY_IN_LOOP, BuiltinError, InputLost
from rain.worker.core.templates import is_directory
from rain.worker.store import INLINE_LIMIT, Staged, StoreError
from rain.worker.store.files import write_all

if TYPE_CHECKING:
    from rain.worker.builtin.job import Job
    from rain.worker.core.actions import RunInput
    from rain.worker.core.events import ObjectKey
    from rain.worker.store import Store

_PIECE = 4 << 20


def sleep_seconds(job: Job) -> None:
    """Give the input on after so many seconds."""
    _sleep(job, _not_negative(job, "number of seconds", (int, float)))


def sleep_milliseconds(job: Job) -> None:
    """The same with whole milliseconds, the old spelling."""
    _sleep(job, _not_negative(job, "whole number of milliseconds", (int,)) / 1000)


def _not_negative(job: Job, what: str, kinds: tuple[type, ...]) -> float:
    config = job.config()
    if type(config) not in kinds or not math.isfinite(config) or config < 0:
        raise BuiltinError(f"the config must be a {what} that is not negative, not {config!r}")
    return float(config)


def _sleep(job: Job, seconds: float) -> None:
    job.expect_inputs(1)
    (source,) = job.run.inputs
    job.expect_output_kind(0, is_directory(source.spec), "the input")
    job.size(source)
    job.later(seconds, lambda: job.finish([job.shared(0, source, _info_of(source))]))


def _info_of(source: RunInput) -> bytes | None:
    """The packed info of a value that is that of the input."""
    if source.spec is None:
        return source.info
    content_type = msgpack.unpackb(source.spec).get("content_type")
    info = {} if source.info is None else msgpack.unpackb(source.info)
    if not content_type or info.get("content_type"):
        return source.info
    packed: bytes = msgpack.packb({**info, "content_type": content_type})
    return packed


def concat(job: Job) -> None:
    """Join blobs."""
    for number, source in enumerate(job.run.inputs):
        if is_directory(source.spec):
            raise BuiltinError(f"input {number} is a directory, but only blobs can be joined")
    job.expect_output_kind(0, False, "the result")
    total = sum(job.size(source) for source in job.run.inputs)
    sources = [source.object for source in job.run.inputs]

    def stored(staged: Staged) -> None:
        job.finish([job.put(0, staged)])

    if total < INLINE_LIMIT:
        stored(Staged(total, data=b"".join(_read(job.store, key, 0, INLINE_LIMIT) for key in sources)))
    elif total <= COPY_IN_LOOP:
        stored(_join(job.store, sources, total))
    else:
        job.in_thread(
            lambda: _join(job.store, sources, total),
            stored,
            lambda staged: job.store.discard_staged(staged) if staged is not None else None,
        )


def _join(store: Store, sources: list[ObjectKey], total: int) -> Staged:
    """Write the values one after the other into a new file."""
    descriptor, path = store.create_file(total)
    try:
        try:
            for key in sources:
                offset = 0
                while piece := _read(store, key, offset, _PIECE):
                    write_all(descriptor, (piece,))
                    offset += len(piece)
        finally:
            os.close(descriptor)
    except OSError as error:
        store.discard_file(path)
        raise StoreError.of_os("cannot store a value", error, path=path, size=total) from error
    except InputLost:
        store.discard_file(path)
        raise
    return Staged(total, path=path)


def _read(store: Store, key: ObjectKey, offset: int, length: int) -> bytes | memoryview:
    try:
        return store.read(key, offset, length)
    except KeyError:
        raise InputLost(key, "the value is not in the store") from None
    except StoreError as error:
        raise InputLost(key, str(error)) from error
