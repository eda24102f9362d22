"""Tasks which the worker runs itself: joining, sleeping.

A built-in is a function that gets a `Job`, starts what is to be done and ends the job, at once or later, with
`Job.finish` or by an exception. `OPERATIONS` names them by task type.
"""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from rain.common.failure import Failure
from rain.worker.core.events import RunFailed, RunResult, RunsEnded, StoreFailed
from rain.worker.store import INLINE_LIMIT, StoreError
from rain.worker.store.files import write_all

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Executor

    from rain.worker.core.actions import Run, RunInput
    from rain.worker.core.events import ObjectKey, TaskKey, WorkerEvent
    from rain.worker.store import Store

    Output = tuple[int, bytes | None, bytes | None]

T = TypeVar("T")

log = logging.getLogger(__name__)

COPY_IN_LOOP = 1 << 20
"""Work on more bytes than this is done in a thread."""

_PIECE = 4 << 20


class BuiltinError(Exception):
    """The task cannot be done; the text is for the user."""


class InputLost(Exception):
    """The value of an input cannot be read here."""

    def __init__(self, key: ObjectKey, reason: str) -> None:
        super().__init__(reason)
        self.key = key
        self.reason = reason


class Job:
    """One run of a built-in task.

    Attributes:
        run: what to do.
        store: where the values are.
    """

    def __init__(self, builtins: Builtins, run: Run) -> None:
        self.run = run
        self.store = builtins.store
        self._builtins = builtins
        self._loop = builtins.loop
        self._wall_start = builtins.wall_clock()
        self._start = builtins.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def config(self) -> Any:
        """The configuration of the task, None without one."""
        shared = self.run.template_data
        if "config" in shared:
            return shared["config"]
        return None if self.run.args is None else msgpack.unpackb(self.run.args)

    def size(self, source: RunInput) -> int:
        """Bytes of an input.

        Raises:
            InputLost: it is not here.
        """
        try:
            return self.store.size(source.object)
        except KeyError:
            raise InputLost(source.object, "the value is not in the store") from None

    def later(self, delay: float, then: Callable[[], None]) -> None:
        """Go on in `delay` seconds."""
        self._timer = self._loop.call_later(delay, self.step, then)

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None], abandon: Callable[[T], None]) -> None:
        """Call `work` in a thread, and with its result `then` in the loop, or `abandon` if the job was stopped."""
        future = self._loop.run_in_executor(self._builtins.threads, work)

        def done(future: asyncio.Future[T]) -> None:
            if not self._ended:
                self.step(lambda: then(future.result()))
            elif not future.cancelled() and future.exception() is None:
                abandon(future.result())

        future.add_done_callback(done)

    def finish(self, outputs: list[Output]) -> None:
        """The task is done. outputs: (size, packed info or None, inline value or None) for each output."""
        expected = len(self.run.outputs)
        if len(outputs) != expected:
            raise BuiltinError(f"the task has {expected} outputs declared, {self.type} produces {len(outputs)}")
        result = RunResult(self.run.key, self._wall_start, self._duration(), None, outputs)
        self._end([RunsEnded(0, [result], [])])

    def step(self, call: Callable[[], None]) -> None:
        """Do a part of the work; its errors end the job."""
        try:
            call()
        except BuiltinError as error:
            self._fail(str(error), retriable=False)
        except StoreError as error:
            self._fail(str(error))
        except InputLost as error:
            self._end([StoreFailed(error.key, error.reason), self._failed(f"an input was lost: {error.reason}")])
        except Exception as error:
            log.exception("Built-in task %s failed unexpectedly", self.run.key)
            self._fail(f"internal error: {error!r}")

    def stop(self) -> None:
        """End it without a report."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    @property
    def type(self) -> str:
        """The task type."""
        return str(self.run.template_data.get("task_type", ""))

    def stored(self, index: int, info: bytes | None) -> Output:
        """The entry of output `index`, whose value is in the store."""
        key = (self.run.key[0], self.run.outputs[index])
        value = self.store.get(key)
        return self.store.size(key), info, value if isinstance(value, bytes) and len(value) < INLINE_LIMIT else None

    def _duration(self) -> float:
        return self._loop.time() - self._start

    def _failed(self, text: str, *, retriable: bool = True) -> RunsEnded:
        session, task, _ = self.run.key
        failure = Failure("task", f"{self.type}: {text}", session=session, task=task, retriable=retriable)
        return RunsEnded(0, [RunFailed(self.run.key, failure, self._wall_start, self._duration())], [])

    def _fail(self, text: str, *, retriable: bool = True) -> None:
        self._end([self._failed(text, retriable=retriable)])

    def _end(self, events: list[WorkerEvent]) -> None:
        if self._ended:
            return
        self.stop()
        self._builtins.ended(self.run.key, events)


class Builtins:
    """Runs built-in tasks.

    Args:
        loop: the event loop of the worker.
        store: the values.
        report: gets the events, in the loop's thread.
        wall_clock: gives unix seconds.
        threads: for long work; None = the loop's own.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        report: Callable[[WorkerEvent], None],
        wall_clock: Callable[[], float],
        threads: Executor | None = None,
    ) -> None:
        self.loop = loop
        self.store = store
        self.wall_clock = wall_clock
        self.threads = threads
        self._report = report
        self._jobs: dict[TaskKey, Job] = {}

    def run(self, run: Run) -> None:
        """Start a task; its end is reported as `RunsEnded` of executor 0."""
        job = Job(self, run)
        self._jobs[run.key] = job
        operation = OPERATIONS.get(job.type, _unknown)
        job.step(lambda: operation(job))

    def stop(self, key: TaskKey) -> None:
        """Stop it; nothing is reported."""
        job = self._jobs.pop(key, None)
        if job is not None:
            job.stop()

    def close(self) -> None:
        """Stop all."""
        for key in list(self._jobs):
            self.stop(key)

    def ended(self, key: TaskKey, events: list[WorkerEvent]) -> None:
        """A job has ended by itself."""
        self._jobs.pop(key, None)
        for event in events:
            self._report(event)


def _unknown(job: Job) -> None:
    raise BuiltinError(f"this version of Rain has no built-in task type {job.type!r}")


def _sleep_seconds(job: Job) -> None:
    _sleep(job, _not_negative(job, "number of seconds", (int, float)))


def _sleep_milliseconds(job: Job) -> None:
    _sleep(job, _not_negative(job, "whole number of milliseconds", (int,)) / 1000)


def _not_negative(job: Job, what: str, kinds: tuple[type, ...]) -> float:
    config = job.config()
    if type(config) not in kinds or not math.isfinite(config) or config < 0:
        raise BuiltinError(f"the config must be a {what} that is not negative, not {config!r}")
    return float(config)


def _sleep(job: Job, seconds: float) -> None:
    if len(job.run.inputs) != 1:
        raise BuiltinError(f"exactly one input is needed, {len(job.run.inputs)} were given")
    (source,) = job.run.inputs

    def wake() -> None:
        session = job.run.key[0]
        for output in job.run.outputs:
            try:
                job.store.share(source.object, (session, output))
            except KeyError:
                raise InputLost(source.object, "the value is not in the store") from None
        job.finish([job.stored(0, _info_of(source))])

    job.size(source)
    job.later(seconds, wake)


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


def _concat(job: Job) -> None:
    for number, source in enumerate(job.run.inputs):
        if source.spec is not None and msgpack.unpackb(source.spec).get("data_type") == "dir":
            raise BuiltinError(f"input {number} is a directory, but only blobs can be joined")
    total = sum(job.size(source) for source in job.run.inputs)
    if not job.run.outputs:
        raise BuiltinError("the task has no output declared")
    target = (job.run.key[0], job.run.outputs[0])
    sources = [source.object for source in job.run.inputs]

    def stored(path: str) -> None:
        job.store.put_file(target, path)
        job.finish([job.stored(0, None)])

    if total < INLINE_LIMIT:
        job.store.put(target, b"".join(_read(job.store, key, 0, INLINE_LIMIT) for key in sources))
        job.finish([job.stored(0, None)])
    elif total <= COPY_IN_LOOP:
        stored(_join(job.store, sources, total))
    else:
        job.in_thread(lambda: _join(job.store, sources, total), stored, job.store.discard_file)


def _join(store: Store, sources: list[ObjectKey], total: int) -> str:
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
    return path


def _read(store: Store, key: ObjectKey, offset: int, length: int) -> bytes | memoryview:
    try:
        return store.read(key, offset, length)
    except KeyError:
        raise InputLost(key, "the value is not in the store") from None
    except StoreError as error:
        raise InputLost(key, str(error)) from error


OPERATIONS: dict[str, Callable[[Job], None]] = {
    "buildin/concat": _concat,
    "builtin/concat": _concat,
    "!concat": _concat,
    "buildin/sleep": _sleep_seconds,
    "builtin/sleep": _sleep_seconds,
    "!sleep": _sleep_milliseconds,
}
"""What does the work, by task type."""
