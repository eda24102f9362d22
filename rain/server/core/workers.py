"""What the server knows of a worker."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from rain.common.structs import dataclass
from rain.server.core.story import Story, new_story
from rain.server.scheduler.resources import Request


@dataclass(slots=True, eq=False)
class Draining:
    """How far a draining worker is. left: objects to copy at the last look; since: when that number last changed;
    rounds: attempts to copy; is_told: it was told to stop."""

    left: int = -1
    since: float = 0.0
    rounds: int = 0
    is_told: bool = False


@dataclass(slots=True)
class Worker:
    """One incarnation of a worker.

    worker_id: its data address `IP:PORT`. offer: resource amounts when idle. free: what is left when all
    assigned tasks run that were not sent ahead; cpus below zero count those prefetched. queued: expected seconds of
    all assigned work. assigned: per session the assigned tasks with their expected seconds, in order of assignment.
    templates: (session, template number) pairs it has seen. withdrawing: tasks asked back. reserved: the
    request for which it is held free. told: messages sent to it. disagreements: digests in a row that differ from ours.
    story: what happened to it. draining: set while it is to end; ending: why it does. told_of_itself: its last
    monitoring.
    """

    incarnation: int
    peer: int
    worker_id: str
    hostname: str
    pid: int
    python: str
    resources: dict[str, Any]
    offer: dict[str, int]
    local: str
    free_cpus: int = 0
    free: dict[str, int] = field(default_factory=dict)
    queued: float = 0.0
    assigned: dict[int, dict[int, float]] = field(default_factory=dict)
    templates: set[tuple[int, int]] = field(default_factory=set)
    withdrawing: set[tuple[int, int]] = field(default_factory=set)
    reserved: Request | None = None
    told: int = 0
    disagreements: int = 0
    story: Story = field(default_factory=new_story)
    draining: Draining | None = None
    ending: str = ""
    told_of_itself: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free_cpus = self.offer["cpus"]
        self.free = {name: amount for name, amount in self.offer.items() if name != "cpus"}

    @property
    def cpus(self) -> int:
        """cpus it offers."""
        return self.offer["cpus"]

    @property
    def load(self) -> float:
        """Expected seconds until a new task could start; idle cpus count a little, so that tasks spread."""
        cpus = self.offer["cpus"] or 1
        return self.queued / cpus + 1e-6 * (cpus - self.free_cpus) / cpus

    def take(self, session: int, task: int, request: Request | None, expected: float) -> None:
        """Account for a task assigned to it; request: None if it is sent ahead and cannot run yet."""
        tasks = self.assigned.get(session)
        if tasks is None:
            tasks = self.assigned[session] = {}
        tasks[task] = expected
        self.queued += expected
        if request is None:
            return
        self.free_cpus -= request.cpus
        for name, amount in request.other:
            self.free[name] -= amount

    def release(self, session: int, task: int, request: Request | None) -> None:
        """Account for a task that left it; request: None if it was sent ahead and could not run yet."""
        tasks = self.assigned[session]
        self.queued -= tasks.pop(task)
        if not tasks:
            self.forget_session(session)
        if request is None:
            return
        self.free_cpus += request.cpus
        for name, amount in request.other:
            self.free[name] += amount

    def forget_session(self, session: int) -> None:
        """The last task of a session left it."""
        del self.assigned[session]
        if not self.assigned:
            self.queued = 0.0

    def fits_now(self, request: Request) -> bool:
        """True if the request could start at once."""
        if self.free_cpus < request.cpus:
            return False
        return all(self.free.get(name, 0) >= amount for name, amount in request.other)
