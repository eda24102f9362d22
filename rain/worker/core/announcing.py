"""Which running tasks the server is told of: those that do not end at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.worker.core.batching import SHORT_BUILTIN, is_brief, is_short_builtin

if TYPE_CHECKING:
    from rain.worker.core.events import TaskKey
    from rain.worker.core.model import Task
    from rain.worker.core.outbox import Outbox

PATIENCE = 0.003
"""Seconds after which the server is told of a run that should have ended by then."""


class Announcer:
    """Tells the server that runs started; of brief ones only if they last, as each message costs both sides more than
    such a run."""

    __slots__ = ("_builtins", "_outbox", "_until")

    def __init__(self, outbox: Outbox, builtins: dict[TaskKey, tuple[Task, tuple[int, ...], float]]) -> None:
        self._outbox = outbox
        self._builtins = builtins
        #: brief runs not told of, and when they are (unix seconds); some have ended
        self._until: dict[Task, float] = {}

    def started(self, task: Task, now: float) -> None:
        """A run started."""
        if task.executor is None and is_short_builtin(task):
            self._until[task] = now + SHORT_BUILTIN
        elif is_brief(task):
            self._until[task] = now + PATIENCE
        else:
            self._outbox.started(task.key)

    def tell(self, now: float) -> None:
        """Tell of those that have lasted; to be called once per turn."""
        for task, until in list(self._until.items()):
            if not self._runs(task):
                del self._until[task]
            elif until <= now:
                del self._until[task]
                self._outbox.started(task.key)

    def next(self) -> float | None:
        """When `tell` is to be called at the latest."""
        return min(self._until.values(), default=None)

    def _runs(self, task: Task) -> bool:
        if task.executor is not None:
            return bool(task.executor.line) and task.executor.line[0] is task
        return self._builtins.get(task.key, (None,))[0] is task
