"""A naive model of what the server must do, as far as others can see it; for comparison in tests.

Everything derived is recomputed from scratch after each operation: which objects are needed (spec 6.2), which are
available, which finished tasks have to run again because their results were lost (6.9), which sessions failed (6.3),
which tasks are aborted because of others that failed or were cancelled (11.6, 11.9).
Where the server is free (which worker gets a task, when) the model only says what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rain.common.states import DataObjectState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

WAITING = frozenset({TaskState.notAssigned, TaskState.assigned, TaskState.running})
RUNNABLE = frozenset({TaskState.ready, TaskState.assigned, TaskState.running})


@dataclass(slots=True)
class RefObject:
    """A data object. producer: None for constants; copies: names of workers; at_server: the server has the value;
    from_block: it came in the report of a block."""

    producer: int | None
    kept: bool
    produced: bool = False
    at_server: bool = False
    from_block: bool = False
    copies: set[str] = field(default_factory=set)


@dataclass(slots=True)
class RefTask:
    """A task. done: its result was taken and is not lost; crashes: workers lost while it was running; ended: how it
    ended if it never will be done; together: inputs of the linked block in which it was submitted, for which it may
    wait as long as the block is one."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    retries: int = 0
    done: bool = False
    failures: int = 0
    crashes: int = 0
    ended: TaskState | None = None
    together: tuple[int, ...] = ()

    @property
    def is_open(self) -> bool:
        """Neither done nor ended."""
        return not self.done and self.ended is None


@dataclass(slots=True)
class RefSession:
    """A session. failed: id of the task to blame; tolerant: it goes on after failures; wanted: inputs of open tasks."""

    tasks: dict[int, RefTask] = field(default_factory=dict)
    objects: dict[int, RefObject] = field(default_factory=dict)
    failed: int | None = None
    tolerant: bool = False
    wanted: set[int] = field(default_factory=set)

    def needed(self, number: int) -> bool:
        """Kept, or input of an unfinished task."""
        return self.objects[number].kept or number in self.wanted

    def is_dead(self, number: int) -> bool:
        """It was not produced and never will be."""
        obj = self.objects[number]
        return obj.producer is not None and not obj.produced and self.tasks[obj.producer].ended is not None

    def roots(self, number: int) -> set[int]:
        """The failed and cancelled tasks because of which a task or object can never be finished."""
        task = self.tasks.get(number)
        if task is None:
            producer = self.objects[number].producer
            return self.roots(producer) if producer is not None and self.is_dead(number) else set()
        if task.ended is TaskState.aborted:
            return {root for i in task.inputs for root in self.roots(i)}
        return set() if task.ended is None else {number}

    def available(self, number: int) -> bool:
        """A consumer could read it now."""
        obj = self.objects[number]
        if obj.producer is None:
            return True
        return obj.produced and (bool(obj.copies) or obj.at_server)

    def runnable(self, number: int) -> bool:
        """The task is open and all its inputs are there."""
        task = self.tasks[number]
        return task.is_open and all(self.available(i) for i in task.inputs)

    def may_wait(self, number: int) -> bool:
        """The task is in a linked block which may have to wait for others' inputs."""
        return not all(self.available(i) for i in self.tasks[number].together)

    def unfinished(self) -> int:
        """How many tasks are open."""
        return sum(task.is_open for task in self.tasks.values())


class Reference:
    """All sessions and workers.

    Args:
        crash_limit: a task that was running on so many lost workers fails; 0 = never.
    """

    def __init__(self, crash_limit: int = 3) -> None:
        self.sessions: dict[int, RefSession] = {}
        self.workers: set[str] = set()
        self._crash_limit = crash_limit

    # --- operations -----------------------------------------------------------------------------

    def open(self, session: int, *, tolerant: bool = False) -> None:
        """A session was created."""
        self.sessions[session] = RefSession(tolerant=tolerant)

    def close(self, session: int) -> None:
        """A session was closed, or its client left."""
        self.sessions.pop(session, None)

    def refuses(self, session: int, tasks: dict[int, RefTask], objects: dict[int, RefObject]) -> bool:
        """True if this submit must be refused (spec 6.1)."""
        known = self.sessions.get(session)
        if known is None or known.failed is not None:
            return True
        old = known.tasks.keys() | known.objects.keys()
        if (tasks.keys() | objects.keys()) & old or tasks.keys() & objects.keys():
            return True
        produced = [number for task in tasks.values() for number in task.outputs]
        outputs = {number for number, obj in objects.items() if obj.producer is not None}
        if len(produced) != len(set(produced)) or set(produced) != outputs:
            return True
        for task in tasks.values():
            for number in task.inputs:
                if number in objects:
                    continue
                if number not in known.objects or not known.objects[number].kept:
                    return True
        return _has_cycle(tasks)

    def submit(self, session: int, tasks: dict[int, RefTask], objects: dict[int, RefObject]) -> None:
        """A submit was accepted."""
        known = self.sessions[session]
        known.objects.update(objects)
        known.tasks.update(tasks)
        self._settle(known)

    def unkeep(self, session: int, numbers: list[int]) -> None:
        """The keep flag was taken from these objects."""
        known = self.sessions[session]
        for number in numbers:
            known.objects[number].kept = False
        self._settle(known)

    def worker_joins(self, worker: str) -> None:
        """A worker registered."""
        self.workers.add(worker)

    def worker_leaves(self, worker: str, running: list[tuple[int, int]]) -> None:
        """A worker was lost while these (session, task) were running on it."""
        self.workers.discard(worker)
        for session, number in running:
            known = self.sessions.get(session)
            if known is None or known.failed is not None:
                continue
            task = known.tasks[number]
            task.crashes += 1
            if self._crash_limit and task.crashes >= self._crash_limit:
                self._fail(known, number)
        for known in self.sessions.values():
            for obj in known.objects.values():
                obj.copies.discard(worker)
            self._settle(known)

    def finishes(self, session: int, number: int, worker: str, inline: bool) -> None:
        """A run succeeded on a worker; inline: the values came with the message."""
        known = self.sessions.get(session)
        if known is None or known.failed is not None:
            return
        task = known.tasks[number]
        assert task.is_open, f"task {session}/{number} finished twice"
        task.done = True
        for output in task.outputs:
            if known.available(output):
                continue  # a run for another output; the first value stays
            obj = known.objects[output]
            obj.produced = True
            obj.copies.add(worker)
            obj.at_server = obj.at_server or (inline and obj.kept)
        self._settle(known)

    def finishes_in_block(self, session: int, numbers: Iterable[int]) -> None:
        """Members of a block succeeded: their values came with the message and are nowhere else."""
        known = self.sessions.get(session)
        if known is None or known.failed is not None:
            return
        for number in numbers:
            task = known.tasks[number]
            assert task.is_open, f"task {session}/{number} finished twice"
            task.done = True
            for output in task.outputs:
                if not known.available(output):
                    obj = known.objects[output]
                    obj.produced = obj.at_server = obj.from_block = True
        self._settle(known)

    def fails(self, session: int, number: int, *, retriable: bool = True) -> None:
        """A run failed."""
        known = self.sessions.get(session)
        if known is None or known.failed is not None:
            return
        task = known.tasks[number]
        task.failures += 1
        if task.failures > task.retries or not retriable:
            self._fail(known, number)

    def cancel(self, session: int, numbers: Iterable[int]) -> list[int]:
        """These tasks are cancelled; returns those that were open."""
        known = self.sessions[session]
        chosen = [number for number in dict.fromkeys(numbers) if known.tasks[number].is_open]
        for number in chosen:
            known.tasks[number].ended = TaskState.cancelled
        self._settle(known)
        return chosen

    def _fail(self, session: RefSession, number: int) -> None:
        if session.tolerant:
            session.tasks[number].ended = TaskState.failed
            self._settle(session)
        else:
            session.failed = number

    def stored(self, session: int, number: int, worker: str) -> None:
        """A worker has a copy after a transfer."""
        known = self.sessions.get(session)
        if known is not None and known.failed is None and worker in self.workers:
            known.objects[number].copies.add(worker)

    def copy_gone(self, session: int, number: int, worker: str) -> None:
        """A worker's copy turned out to be unreadable."""
        known = self.sessions.get(session)
        if known is not None and known.failed is None:
            known.objects[number].copies.discard(worker)
            self._settle(known)

    def deleted(self, session: int, number: int, worker: str) -> None:
        """The server told a worker to delete its copy.

        Raises:
            AssertionError: the object is still needed and this was the last copy.
        """
        known = self.sessions.get(session)
        if known is None or known.failed is not None:
            return
        copies = known.objects[number].copies
        if worker in copies:
            copies.discard(worker)
            text = f"object {session}/{number} is needed but its last copy was deleted on {worker}"
            assert known.available(number) or not known.needed(number), text

    # --- what must be visible -------------------------------------------------------------------

    def allowed_task_states(self, session: int, number: int) -> frozenset[TaskState]:
        """States which the task may show now."""
        known = self.sessions[session]
        if known.failed is not None:
            return frozenset({TaskState.failed} if number == known.failed else {TaskState.aborted, TaskState.finished})
        task = known.tasks[number]
        if not task.is_open:
            return frozenset({task.ended or TaskState.finished})
        if task.together:  # it has the state of its block, as long as there is one
            return RUNNABLE | WAITING
        return RUNNABLE if known.runnable(number) else WAITING

    def object_state(self, session: int, number: int) -> DataObjectState:
        """The state which the object must show now, in a session that has not failed."""
        known = self.sessions[session]
        obj = known.objects[number]
        if known.is_dead(number):
            return DataObjectState.aborted
        if not known.needed(number) and (obj.producer is None or obj.produced):
            return DataObjectState.removed
        return DataObjectState.finished if known.available(number) else DataObjectState.unfinished

    def wait_is_over(self, session: int, numbers: list[int]) -> bool:
        """True if a WAIT_ALL for these ids has its answer."""
        known = self.sessions[session]
        for number in numbers:
            if number in known.tasks:
                if known.tasks[number].is_open:
                    return False
            elif self.object_state(session, number) is DataObjectState.unfinished:
                return False
        return True

    # --- recomputation --------------------------------------------------------------------------

    @staticmethod
    def _settle(session: RefSession) -> None:
        """Purge what is not needed; run again what is needed and lost; abort what can never run; transitively."""
        if session.failed is not None:
            return
        changed = True
        while changed:
            changed = False
            consumed = {i for task in session.tasks.values() for i in task.inputs}
            session.wanted = {i for task in session.tasks.values() if task.is_open for i in task.inputs}
            for number, obj in session.objects.items():
                if obj.producer is None or not obj.produced:
                    continue
                if not session.needed(number):
                    # The server keeps inputs that it alone had, like constants.
                    obj.at_server = obj.at_server and obj.from_block and number in consumed
                    continue
                if not session.available(number):
                    session.tasks[obj.producer].done = False
                    obj.produced = False
                    changed = True
            for task in session.tasks.values():
                if task.is_open and any(session.is_dead(i) for i in task.inputs):
                    task.ended = TaskState.aborted
                    changed = True


def _has_cycle(tasks: dict[int, RefTask]) -> bool:
    producer = {output: number for number, task in tasks.items() for output in task.outputs}
    waiting = {number: {producer[i] for i in task.inputs if i in producer} for number, task in tasks.items()}
    while waiting:
        free = [number for number, before in waiting.items() if not before & waiting.keys()]
        if not free:
            return True
        for number in free:
            del waiting[number]
    return False
