"""Ready tasks, in queues by what runs them and what they need."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeAlias

from rain.worker.core.model import READY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.worker.core.executors import Executor
    from rain.worker.core.model import Task, Template
    from rain.worker.core.resources import Request, ResourcePool

Env: TypeAlias = "tuple[tuple[str, str | None], ...]"

_FEW = 64


class ReadyQueue:
    """Ready tasks of one executor type, environment and resource request, best first.

    Tasks mostly come in order and then only pass through a deque; the others go to a heap. Tasks that left the
    state `ready` otherwise than by `pop` stay as stale entries until they surface or outnumber the rest.
    """

    __slots__ = ("batched", "busy", "count", "env", "fifo", "in_flight", "late", "request", "templates", "type")

    def __init__(self, type: str, env: Env, request: Request) -> None:
        #: executor type, `""` for built-in tasks
        self.type = type
        self.env = env
        self.request = request
        #: whether its executors take several runs at once
        self.batched = type == "py"
        self.fifo: deque[Task] = deque()
        self.late: list[tuple[int, int, Task]] = []
        #: ready tasks, stale entries not counted
        self.count = 0
        #: runs of its tasks sent to executors and not ended
        self.in_flight = 0
        #: executors that start for a task of this queue, or run some
        self.busy: dict[Executor, None] = {}
        #: templates that use it
        self.templates = 0

    def extend(self, tasks: list[Task]) -> None:
        """Add tasks, each with a larger order than the one before."""
        fifo = self.fifo
        if not fifo or fifo[-1].order < tasks[0].order:
            fifo.extend(tasks)
        else:
            for task in tasks:
                heappush(self.late, (task.order, id(task), task))
        self.count += len(tasks)

    def first(self) -> Task | None:
        """The best task, None if empty."""
        fifo, late = self.fifo, self.late
        while fifo and fifo[0].state != READY:
            fifo.popleft()
        while late and late[0][2].state != READY:
            heappop(late)
        if late and (not fifo or late[0][0] < fifo[0].order):
            return late[0][2]
        return fifo[0] if fifo else None

    def pop_first(self) -> Task:
        """Take out the best task; there must be one."""
        self.first()
        return self.pop()

    def pop(self) -> Task:
        """Take out what `first` returned."""
        self.count -= 1
        if self.late and (not self.fifo or self.late[0][0] < self.fifo[0].order):
            return heappop(self.late)[2]
        return self.fifo.popleft()

    def pop_alike(self, template: Template, most: int) -> list[Task]:
        """Take out what `first` returned, and up to `most` tasks in all as long as the next is of the same template
        and may share a batch, which blocks may not."""
        tasks = [self.pop()]
        fifo = self.fifo
        if not self.late and not template.session.solo:
            while fifo and len(tasks) < most:
                task = fifo[0]
                if task.template is not template or task.state != READY or task.members:
                    break
                tasks.append(fifo.popleft())
            self.count -= len(tasks) - 1
        return tasks

    def put_back(self, tasks: list[Task]) -> None:
        """Tasks that `pop_alike` took out last, without its first, stay here after all."""
        self.fifo.extendleft(reversed(tasks))
        self.count += len(tasks)

    def left(self) -> None:
        """A task of the queue is not ready any more; its entry is stale."""
        self.count -= 1
        if len(self.fifo) + len(self.late) > 2 * self.count + _FEW:
            self.fifo = deque(task for task in self.fifo if task.state == READY)
            self.late = [entry for entry in self.late if entry[2].state == READY]
            heapify(self.late)

    def __iter__(self) -> Iterator[Task]:
        """The ready tasks, in no particular order (for checks)."""
        yield from (task for task in self.fifo if task.state == READY)
        yield from (entry[2] for entry in self.late if entry[2].state == READY)


class _Line:
    """Queues with the same request, by their best task. One entry per queue is valid: the one in `listed`."""

    __slots__ = ("heap", "listed", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.heap: list[tuple[int, int, ReadyQueue]] = []
        self.listed: dict[ReadyQueue, int] = {}

    def offer(self, queue: ReadyQueue, order: int) -> None:
        listed = self.listed.get(queue)
        if listed is None or order < listed:
            self.listed[queue] = order
            heappush(self.heap, (order, id(queue), queue))

    def best(self) -> tuple[int, ReadyQueue] | None:
        heap, listed = self.heap, self.listed
        while heap:
            order, _, queue = heap[0]
            if listed.get(queue) != order:
                heappop(heap)
                continue
            first = queue.first()
            if first is not None and first.order == order:
                return order, queue
            heappop(heap)
            del listed[queue]
            if first is not None:
                self.offer(queue, first.order)
        return None


class ReadyQueues:
    """All queues of a worker, and which one is next."""

    __slots__ = ("_lines", "queues")

    def __init__(self) -> None:
        self.queues: dict[tuple[str, Env, tuple[object, ...]], ReadyQueue] = {}
        self._lines: dict[tuple[object, ...], _Line] = {}

    def queue(self, type: str, env: Env, request: Request) -> ReadyQueue:
        """The queue for such tasks, made if needed; one more template uses it."""
        key = (type, env, request.key)
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = ReadyQueue(type, env, request)
        queue.templates += 1
        return queue

    def released(self, queue: ReadyQueue) -> None:
        """A template does not use the queue any more."""
        queue.templates -= 1
        if queue.templates == 0:
            del self.queues[(queue.type, queue.env, queue.request.key)]

    def grown(self, queue: ReadyQueue) -> None:
        """Tasks were added to the queue."""
        first = queue.first()
        if first is None:
            return
        line = self._lines.get(queue.request.key)
        if line is None:
            line = self._lines[queue.request.key] = _Line(queue.request)
        line.offer(queue, first.order)

    def next(self, pool: ResourcePool) -> ReadyQueue | None:
        """The queue with the best task of all that fit into the free resources."""
        found: tuple[int, ReadyQueue] | None = None
        for line in list(self._lines.values()):
            best = line.best()
            if best is None:
                del self._lines[line.request.key]
            elif (found is None or best[0] < found[0]) and pool.fits(line.request):
                found = best
        return found[1] if found else None

    def better_waits(self, order: int, queue: ReadyQueue, pool: ResourcePool) -> bool:
        """Whether a task of another queue, better than `order`, could start if a run of `queue` gave way."""
        for line in self._lines.values():
            best = line.best()
            if best is not None and best[0] < order and best[1] is not queue and pool.fits(line.request, queue.request):
                return True
        return False
