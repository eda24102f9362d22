"""Runs that were told to stop: what is said of them when nothing of them is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.common.structs import dataclass
from rain.protocol.messages import TaskFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.worker.core.events import TaskKey
    from rain.worker.core.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Stop:
    """grace: seconds between SIGTERM and SIGKILL, 0.0 = none; verdict: told at the end, None = TasksStopped."""

    grace: float
    verdict: TaskFailed | None


class Stops:
    """Runs that are gone for the core while something of them may be left in a process."""

    __slots__ = ("_outbox", "pending")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.pending: dict[TaskKey, Stop] = {}

    def expect(self, key: TaskKey, grace: float, verdict: TaskFailed | None = None) -> None:
        """The run shall stop; `over` tells the server."""
        self.pending[key] = Stop(grace, verdict)

    def grace(self, key: TaskKey) -> float:
        """Seconds which its processes get, 0.0 for one of which nobody wants to hear."""
        stop = self.pending.get(key)
        return 0.0 if stop is None else stop.grace

    def over(self, keys: Iterable[TaskKey]) -> None:
        """Nothing of these is left; those that nobody expects do not matter."""
        if not self.pending:
            return
        for key in keys:
            stop = self.pending.pop(key, None)
            if stop is None:
                continue
            if stop.verdict is None:
                self._outbox.stopped(key)
            else:
                self._outbox.failed(stop.verdict)

    def forget_session(self, session: int) -> None:
        """Nobody wants to hear of its runs any more."""
        for key in [key for key in self.pending if key[0] == session]:
            del self.pending[key]
