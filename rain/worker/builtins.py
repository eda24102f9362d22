"""`Builtins`: the tasks which the worker runs itself.

A built-in is a function that gets a `Job`, starts what is to be done and ends the job, at once or later, with
`Job.finish` or by an exception. `OPERATIONS` names them by task type.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from rain.common.structs import dataclass
from rain.worker.builtin.directories import make_directory, slice_directory
from rain.worker.builtin.execute import execute
from rain.worker.builtin.files import export, open_directory, open_file
from rain.worker.builtin.job import BuiltinError, Job
from rain.worker.builtin.values import concat, sleep_milliseconds, sleep_seconds
from rain.worker.core.events import BuiltinStopped
from rain.worker.programs import Programs
from rain.worker.spare_directories import SpareDirectories

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from rain.process.guard import Guard
    from rain.worker.core.actions import Run
    from rain.worker.core.events import TaskKey, WorkerEvent
    from rain.worker.store import Store
    from rain.worker.task_logs import TaskLogs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operation:
    """What does the work, and how many outputs it makes; None: the config says."""

    start: Callable[[Job], None]
    outputs: int | None = 1


class Builtins:
    """Runs built-in tasks.

    Args:
        loop: the event loop of the worker.
        store: the values.
        task_logs: told of what programs wrote.
        report: gets the events, in the loop's thread.
        hear: calls what looks for programs that have ended, and reports; None: the loop does.
        wall_clock: gives unix seconds.
        sandboxes: existing directory in which those of programs are made.
        threads: for long work; None = the loop's own.
        guard: told of the process groups of programs, None without.

    Attributes:
        programs: those that run.
        spares: directories of programs that have ended.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        task_logs: TaskLogs,
        report: Callable[[WorkerEvent], None],
        hear: Callable[[Callable[[], None]], None] | None = None,
        wall_clock: Callable[[], float],
        sandboxes: str | os.PathLike[str],
        threads: Executor | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.loop = loop
        self.store = store
        self.task_logs = task_logs
        self.wall_clock = wall_clock
        self.threads = threads
        self.programs = Programs(loop, guard, hear)
        self.spares = SpareDirectories(loop, self.programs, self.remove_later)
        self._sandboxes = os.path.abspath(sandboxes)
        self._numbers = itertools.count(1)
        self._report = report
        self._jobs: dict[TaskKey, Job] = {}
        self._stopping: dict[TaskKey, Job] = {}  # with grace

    def run(self, run: Run) -> None:
        """Start a task; its end is reported as `RunsEnded` of executor 0."""
        job = Job(self, run)
        self._jobs[run.key] = job
        job.step(lambda: _begin(job))

    def stop(self, key: TaskKey, grace: float = 0.0) -> None:
        """Stop it.

        Args:
            key: the run.
            grace: 0.0 = at once, nothing is reported; else programs get SIGTERM and, so many seconds later, SIGKILL,
                and `BuiltinStopped` is reported when nothing is left, also of a task that had ended before.
        """
        job = self._jobs.pop(key, None)
        if grace > 0.0:
            if job is not None:
                self._stopping[key] = job
                job.stop(grace, lambda: self._stopped(key))
            elif key not in self._stopping:
                self._report(BuiltinStopped(key))
            return
        job = job or self._stopping.pop(key, None)
        if job is not None:
            job.stop(0.0, lambda: None)

    async def close(self) -> None:
        """Stop all, and wait until no program is left."""
        for key in [*self._jobs, *self._stopping]:
            self.stop(key)
        await self.programs.close()
        self.spares.close()

    def watched(self) -> Iterable[tuple[TaskKey, int, int]]:
        """Running programs whose memory is limited: run, process id, bytes."""
        return self.programs.watched()

    # --- for jobs -------------------------------------------------------------------------------

    def new_sandbox(self, name: str) -> str:
        """A path for a new directory, to be made by the caller."""
        return os.path.join(self._sandboxes, f"{name}.{next(self._numbers)}")

    def remove_later(self, remove: Callable[[], None]) -> None:
        """Remove something in a thread; its errors are logged."""

        def work() -> None:
            try:
                remove()
            except OSError as error:
                log.warning("Files of a task are left: %s", error)

        try:
            self.loop.run_in_executor(self.threads, work)
        except RuntimeError:  # the worker ends
            work()

    def ended(self, key: TaskKey, events: list[WorkerEvent]) -> None:
        """A job has ended by itself."""
        self._jobs.pop(key, None)
        for event in events:
            self._report(event)

    def _stopped(self, key: TaskKey) -> None:
        if self._stopping.pop(key, None) is not None:
            self._report(BuiltinStopped(key))


def _begin(job: Job) -> None:
    operation = OPERATIONS.get(job.type)
    if operation is None:
        raise BuiltinError(f"this version of Rain has no built-in task type {job.type!r}")
    if operation.outputs is not None:
        job.expect_outputs(operation.outputs)
    operation.start(job)


_BY_NAME = {
    "concat": Operation(concat),
    "sleep": Operation(sleep_seconds),
    "open": Operation(open_file),
    "open_dir": Operation(open_directory),
    "export": Operation(export, outputs=0),
    "make_directory": Operation(make_directory),
    "slice_directory": Operation(slice_directory),
    "run": Operation(execute, outputs=None),
}

OPERATIONS: dict[str, Operation] = {
    **{f"{prefix}/{name}": operation for prefix in ("buildin", "builtin") for name, operation in _BY_NAME.items()},
    **{f"!{name}": operation for name, operation in _BY_NAME.items() if name != "open_dir"},
    "!sleep": Operation(sleep_milliseconds),
}
"""What does the work, by task type."""
