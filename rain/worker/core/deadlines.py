"""Time limits of running tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rain.worker.core.model import Task


class Deadlines:
    """Running tasks with a time limit, and when it is reached (unix seconds). There are few: one per slot at most."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until: dict[Task, float] = {}

    def started(self, task: Task, now: float) -> None:
        """A run starts; nothing happens if its template has no limit."""
        limit = task.template.timeout
        if limit is not None:
            self.until[task] = now + limit

    def ended(self, task: Task) -> None:
        """It runs no more."""
        self.until.pop(task, None)

    def due(self, now: float) -> list[Task]:
        """Tasks whose time is over."""
        return [task for task, until in self.until.items() if until <= now]

    def next(self) -> float | None:
        """The earliest deadline, None without any."""
        return min(self.until.values()) if self.until else None
