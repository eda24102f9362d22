"""What the pool keeps of one live executor."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rain.common.comm import FrameReader
from rain.worker.monitor import memory_request

if TYPE_CHECKING:
    import asyncio
    import socket

    from rain.worker.core.actions import Run
    from rain.worker.core.events import TaskKey
    from rain.worker.executor_frames import Codec
    from rain.worker.executor_process import ExecutorProcess
    from rain.worker.grace import GroupEnd


class ExecutorState:
    """A live executor."""

    __slots__ = ("_begun", "_forbidden", "codec", "connection", "directories", "due", "group_end", "log_ends", "number",
                 "process", "reader", "reported", "stop_is_told", "timer", "type", "unfinished", "unsent",
                 "values")  # fmt: skip

    def __init__(self, number: int, type: str, process: ExecutorProcess, values: str | None) -> None:
        self.number = number
        self.type = type
        self.process = process
        #: directory for large results, None = below its work directory
        self.values = values
        #: those in which its results may lie
        self.directories = (str(process.directory), *(() if values is None else (values,)))
        self.connection: socket.socket | None = None
        self.reader = FrameReader()
        #: None until it registered
        self.codec: Codec | None = None
        self.timer: asyncio.TimerHandle | None = None
        #: sent and not reported yet
        self.due: deque[Run] = deque()
        #: calls reported: the number of the last one
        self.reported = 0
        self.unsent = bytearray()
        #: sizes of its logs of stdout and stderr: what was written up to here is known to be of other runs
        self.log_ends = (0, 0)
        #: the run that it had begun when it was given up
        self.unfinished: Run | None = None
        #: while it ends with grace
        self.group_end: GroupEnd | None = None
        self.stop_is_told = False
        #: the call sent last where the worker itself sees to the order, else None: the executor tells what it began
        self._begun: int | None = None
        self._forbidden: dict[TaskKey, int] = {}

    def running(self) -> TaskKey | None:
        """The run which the executor began and did not report."""
        run = self.running_run()
        return None if run is None else run.key

    def running_run(self) -> Run | None:
        """The same, as it was sent."""
        index = self._progress() - self.reported - 1
        return self.due[index] if 0 <= index < len(self.due) else None

    def first_is_over(self) -> None:
        """The first call that was due is reported, or was never sent."""
        self.due.popleft()
        self.reported += 1

    @property
    def condition(self) -> str:
        """`coming`, `idle`, `busy` or `stopping`."""
        if self.group_end is not None:
            return "stopping"
        if self.codec is None:
            return "coming"
        return "busy" if self.due else "idle"

    def written_by(self, run: Run) -> list[tuple[int, int, int, int, int, int]]:
        """What this run, which is the last one, wrote, told as by an executor that knows of tasks."""
        before, after = self.log_ends, self.process.log_ends()
        if after[0] <= before[0] and after[1] <= before[1]:
            return []
        starts = min(before[0], after[0]), min(before[1], after[1])
        return [(run.key[1], run.key[2], starts[0], after[0], starts[1], after[1])]

    def written_by_call(self) -> list[tuple[int, int, int, int, int, int]]:
        """The same of the call under way, whose result has come, of an executor that gets one at a time."""
        return self.written_by(self.due[0]) if self.is_calling() else []

    def _progress(self) -> int:
        return self.process.progress() if self._begun is None else self._begun

    def may_begin(self) -> bool:
        """Begin the first call that is due, in the place of an executor that gets one at a time.

        False if it is forbidden; it must never begin then.
        """
        first = self.reported + 1
        if any(number <= first for number in self._forbidden.values()):
            return False
        self._begun = first
        return True

    def is_calling(self) -> bool:
        """Whether a call is under way of an executor that gets one at a time."""
        return self._begun is not None and self._begun > self.reported

    def forbid(self, key: TaskKey) -> bool:
        """It shall not begin this run; False if the run is not due. Whether that was in time tells `kept`, later."""
        position = next((position for position, run in enumerate(self.due, 1) if run.key == key), None)
        if position is None:
            return False
        self._forbidden[key] = self.reported + position
        self.process.forbid(min(self._forbidden.values()))
        return True

    def kept(self, key: TaskKey) -> bool:
        """Whether a forbidden run has not begun, and so never will; else it is not forbidden any more."""
        if self._progress() < self._forbidden[key]:
            return True
        del self._forbidden[key]
        self.process.forbid(min(self._forbidden.values(), default=0))
        return False

    def watched(self) -> tuple[TaskKey, int, int] | None:
        """The running task, process id and bytes, if it has a memory request."""
        memory = memory_request(self.due[0]) if self.due else 0
        key = self.running() if memory else None
        return None if key is None else (key, self.process.pid, memory)
