"""Files and directories of the machine: taking them in, and writing values to them."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from rain.common import fs
from rain.common.errors import RainException
from rain.worker.builtin.job import COPY_IN_LOOP, BuiltinError
from rain.worker.builtin.paths import absolute_path, copy_out, described
from rain.worker.core.templates import is_directory

if TYPE_CHECKING:
    from rain.worker.builtin.job import Job
    from rain.worker.core.actions import RunInput
    from rain.worker.store import Staged


def open_file(job: Job) -> None:
    """Copy a file in."""
    path = absolute_path(job)
    job.expect_inputs(0)
    _check(path, directory=False)
    job.expect_output_kind(0, False, f"the path {path!r}")
    _copy_in(job, path, slow=os.path.getsize(path) > COPY_IN_LOOP)


def open_directory(job: Job) -> None:
    """Copy a directory in."""
    path = absolute_path(job)
    job.expect_inputs(0)
    _check(path, directory=True)
    job.expect_output_kind(0, True, f"the path {path!r}")
    _copy_in(job, path, slow=True)


def _check(path: str, *, directory: bool) -> None:
    if not os.path.exists(path):
        raise BuiltinError(f"the path {path!r} does not exist on this worker", retriable=True)
    if os.path.isdir(path) != directory:
        text = "is not a directory" if directory else "is a directory"
        raise BuiltinError(f"the path {path!r} {text}", retriable=True)
    if not directory and not os.path.isfile(path):
        raise BuiltinError(f"the path {path!r} is not a regular file", retriable=True)


def _copy_in(job: Job, path: str, *, slow: bool) -> None:
    def stored(staged: Staged) -> None:
        job.finish([job.put(0, staged)])

    def work() -> Staged:
        return job.store.stage_copy(path)

    if slow:
        job.in_thread(work, stored, lambda staged: None if staged is None else job.store.discard_staged(staged))
    else:
        stored(work())


def export(job: Job) -> None:
    """Write the input to a path."""
    path = absolute_path(job)
    job.expect_inputs(1)
    (source,) = job.run.inputs
    directory = is_directory(source.spec)

    def done(_: None) -> None:
        job.finish([])

    if directory or job.size(source) > COPY_IN_LOOP:
        job.in_thread(lambda: _export(job, source, path, directory), done, lambda _: None)
    else:
        _export(job, source, path, directory)
        done(None)


def _export(job: Job, source: RunInput, path: str, directory: bool) -> None:
    """Write beside the path, then put it there at once, so that nobody sees a part of it."""
    target = os.path.normpath(path)
    if not directory and (path.endswith(os.sep) or (os.path.exists(target) and not os.path.isfile(target))):
        raise BuiltinError(f"cannot write a blob to the path {path!r}: it is not a regular file", retriable=True)
    if directory and os.path.lexists(target) and (os.path.islink(target) or not os.path.isdir(target)):
        raise BuiltinError(f"cannot write a directory to the path {path!r}: there is a file", retriable=True)
    part = f"{target}.{secrets.token_hex(4)}.part"
    try:
        copy_out(job.store, source.object, directory, part)
        os.rename(part, target)
    except (OSError, RainException) as error:
        fs.remove_tree(part)
        if isinstance(error, OSError):
            raise BuiltinError(f"cannot write to the path {path!r}: {error.strerror}", retriable=True) from error
        raise described(error) from error
    except BaseException:
        fs.remove_tree(part)
        raise
