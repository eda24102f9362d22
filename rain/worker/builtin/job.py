"""`Job`: one run of a built-in task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgpack

from rain.common import fs
from rain.common.failure import Failure
from rain.worker.core.events import RunFailed, RunResult, RunsEnded, StoreFailed
from rain.worker.core.templates import is_directory
from rain.worker.foreign_specs import output_fields
from rain.worker.store import INLINE_LIMIT, Staged, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Executor

    from rain.worker.core.actions import Run, RunInput
    from rain.worker.core.events import ObjectKey, TaskKey, WorkerEvent
    from rain.worker.programs import Programs
    from rain.worker.spare_directories import SpareDirectories
    from rain.worker.store import Store
    from rain.worker.task_logs import TaskLogs

    Output = tuple[int, bytes | None, bytes | None]

T = TypeVar("T")

log = logging.getLogger(__name__)

COPY_IN_LOOP = 1 << 20
"""Work on more bytes than this is done in a thread."""


class BuiltinError(Exception):
    """The task cannot be done; the text is for the user.

    Args:
        text: what is wrong.
        retriable: another run may help.
        named: the text is told with the type of the task before it.
    """

    def __init__(self, text: str, *, retriable: bool = False, named: bool = True) -> None:
        super().__init__(text)
        self.retriable = retriable
        self.named = named


class InputLost(Exception):
    """The value of an input cannot be read here."""

    def __init__(self, key: ObjectKey, reason: str) -> None:
        super().__init__(reason)
        self.key = key
        self.reason = reason


class Host(Protocol):
    """What jobs need of the worker."""

    loop: asyncio.AbstractEventLoop
    store: Store
    programs: Programs
    task_logs: TaskLogs
    spares: SpareDirectories
    threads: Executor | None
    wall_clock: Callable[[], float]

    def new_sandbox(self, name: str) -> str:
        """A path for a new directory."""

    def remove_later(self, remove: Callable[[], None]) -> None:
        """Remove something in a thread."""

    def ended(self, key: TaskKey, events: list[WorkerEvent]) -> None:
        """A job has ended by itself."""


class Job:
    """One run of a built-in task.

    Attributes:
        run: what to do.
        host: the worker around it.
        store: where the values are.
        stopper: stops what the job has going on outside of it, given the grace in seconds and what to call when
            nothing is left; None if there is no such thing.
        at_end: called when the job ends by itself.
    """

    def __init__(self, host: Host, run: Run) -> None:
        self.run = run
        self.host = host
        self.store = host.store
        self.stopper: Callable[[float, Callable[[], None]], None] | None = None
        self.at_end: Callable[[], None] | None = None
        self._wall_start = host.wall_clock()
        self._start = host.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def type(self) -> str:
        """The task type."""
        return str(self.run.template_data.get("task_type", ""))

    # --- what is asked --------------------------------------------------------------------------

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

    def expect_outputs(self, count: int) -> None:
        """Check the number of outputs.

        Raises:
            BuiltinError: it is another.
        """
        declared = len(self.run.outputs)
        if declared != count:
            raise BuiltinError(f"the task has {declared} outputs declared, {self.type} produces {count}")

    def expect_inputs(self, count: int) -> None:
        """Check the number of inputs; raises as `expect_outputs`."""
        given = len(self.run.inputs)
        if given != count:
            raise BuiltinError(
                f"exactly {count} {'input is' if count == 1 else 'inputs are'} needed, {given} were given"
            )

    def is_directory_output(self, index: int) -> bool:
        """Tell whether an output is declared as a directory."""
        return output_fields(self.run, index).get("data_type") == "dir"

    def expect_output_kind(self, index: int, directory: bool, what: str) -> None:
        """Check that an output is declared as what it is going to be.

        Raises:
            BuiltinError: a blob is declared for a directory, or the reverse.
        """
        if self.is_directory_output(index) != directory:
            found, declared = ("directory", "blob") if directory else ("blob", "directory")
            raise BuiltinError(f"{what} is a {found}, but the output is declared as a {declared}")

    # --- going on -------------------------------------------------------------------------------

    def later(self, delay: float, then: Callable[[], None]) -> None:
        """Go on in `delay` seconds."""
        self._timer = self.host.loop.call_later(delay, self.step, then)

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None], abandon: Callable[[T | None], None]) -> None:
        """Call `work` in a thread, and with its result `then` in the loop.

        If the job was stopped meanwhile, `abandon` is called instead, with None where the work failed.
        """
        future = self.host.loop.run_in_executor(self.host.threads, work)

        def done(future: asyncio.Future[T]) -> None:
            if not self._ended:
                self.step(lambda: then(future.result()))
            elif future.cancelled() or future.exception() is not None:
                abandon(None)
            else:
                abandon(future.result())

        future.add_done_callback(done)

    def step(self, call: Callable[[], None]) -> None:
        """Do a part of the work; its errors end the job."""
        try:
            call()
        except BuiltinError as error:
            self._fail(str(error), retriable=error.retriable, named=error.named)
        except StoreError as error:
            self.store.delete([(self.run.key[0], number) for number in self.run.outputs])
            self._fail(str(error))
        except InputLost as error:
            self._end([StoreFailed(error.key, error.reason), self._failed(f"an input was lost: {error.reason}")])
        except Exception as error:
            log.exception("Built-in task %s failed unexpectedly", self.run.key)
            self._fail(f"internal error: {error!r}")

    # --- the end --------------------------------------------------------------------------------

    def put(self, index: int, staged: Staged, info: bytes | None = None) -> Output:
        """Store the value of an output; returns its entry for `finish`.

        Raises:
            StoreError: there is no room for it.
        """
        key = (self.run.key[0], self.run.outputs[index])
        self.store.put_staged(key, staged)
        return staged.size, info, self._inline(key)

    def shared(self, index: int, source: RunInput, info: bytes | None) -> Output:
        """Give an output the value of an input; returns its entry for `finish`.

        Raises:
            InputLost: it is not here.
        """
        key = (self.run.key[0], self.run.outputs[index])
        try:
            size = self.store.share(source.object, key)
        except KeyError:
            raise InputLost(source.object, "the value is not in the store") from None
        value = self._inline(key)
        if value is not None and is_directory(source.spec):
            size = fs.packed_size(value)
        return size, info, value

    def finish(self, outputs: list[Output]) -> None:
        """The task is done. outputs: (size, packed info or None, inline value or None) for each output."""
        result = RunResult(self.run.key, self._wall_start, self._duration(), None, outputs)
        self._end([RunsEnded(0, [result], [])])

    def stop(self, grace: float, then: Callable[[], None]) -> None:
        """End it without a report.

        Args:
            grace: seconds between SIGTERM and SIGKILL to a program, 0.0 = SIGKILL at once.
            then: called when nothing is left.
        """
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self.stopper is not None:
            self.stopper(grace, then)
        else:
            then()

    def _inline(self, key: ObjectKey) -> bytes | None:
        value = self.store.get(key)
        return value if isinstance(value, bytes) and len(value) < INLINE_LIMIT else None

    def _duration(self) -> float:
        return self.host.loop.time() - self._start

    def _failed(self, text: str, *, retriable: bool = True, named: bool = True) -> RunsEnded:
        session, task, _ = self.run.key
        message = f"{self.type}: {text}" if named else text
        failure = Failure("task", message, session=session, task=task, retriable=retriable)
        return RunsEnded(0, [RunFailed(self.run.key, failure, self._wall_start, self._duration())], [])

    def _fail(self, text: str, *, retriable: bool = True, named: bool = True) -> None:
        self._end([self._failed(text, retriable=retriable, named=named)])

    def _end(self, events: list[WorkerEvent]) -> None:
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self.at_end is not None:
            self.at_end()
        self.host.ended(self.run.key, events)
