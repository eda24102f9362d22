"""Which worker gets which ready task.

Minimises the expected finish: seconds of work queued at a worker plus seconds to move the inputs it lacks.
Tasks stay at the server until a worker can start them, except for a short prefetch of measured, short work.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from rain.server.core.ahead import MOST_INPUTS, dependents
from rain.server.core.assign import assign, assign_ahead, assignment_message, portions
from rain.server.core.blocks import cut, part_size, single_out
from rain.server.core.dissolving import dissolve
from rain.server.core.graph import NOT_ASSIGNED
from rain.server.core.session import UNKNOWN_DURATION, Session
from rain.server.scheduler.queues import ClassQueue, split

if TYPE_CHECKING:
    from rain.server.core.blocks import Block
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker
    from rain.server.scheduler.resources import Request

BANDWIDTH = 1e9
"""Bytes per second assumed between workers."""
TRANSFER_DELAY = 100e-6
"""Seconds a transfer costs whatever its size."""
UNBALANCED_SECONDS = 0.001
"""Work by which one worker may get ahead of others in exchange for fewer choices."""
LONGEST_PREFETCHED = 0.05
"""Tasks expected to take longer are not sent ahead."""
REFILLED_BELOW = 0.875
"""A worker gets more sent ahead when it has less than this part of what it may have: many tasks in few messages."""
LOCALITY_INPUTS = 16
"""Only so many inputs of a task, the first ones, are weighed; bounds the cost of wide tasks."""
STARVATION_SECONDS = 10.0
"""A task blocked for so long gets a worker reserved."""


def schedule(state: ServerState) -> None:
    """Assign ready tasks to workers, best first, and send one message per worker and session."""
    if not state.workers:
        return
    assigned: dict[tuple[int, int], list[int]] = {}
    for queue in list(state.queue.classes()):
        _schedule_class(state, queue, assigned)
    for (incarnation, number), tasks in assigned.items():
        worker, session = state.workers[incarnation], state.sessions[number]
        for portion in portions(state, session, tasks):
            state.send(worker.peer, assignment_message(state, session, worker, portion))


def _schedule_class(state: ServerState, queue: ClassQueue, assigned: dict[tuple[int, int], list[int]]) -> None:
    """Place tasks of one class until none is left or no worker has room."""
    request, is_ready = queue.request, state.is_ready
    packed = queue.head(is_ready)
    if packed is None:
        state.queue.drop_class(queue)
        _end_reservation(state, request)
        return
    choice = Choice(state, request)
    while packed is not None:
        number, task = split(packed)
        session = state.sessions[number]
        worker = choice.best(session, task)
        if worker is None:
            break
        queue.blocked_since = None
        tasks = assigned.setdefault((worker.incarnation, number), [])
        graph = session.graph
        block = graph.blocks.get(task) if graph.blocks else None
        if block is not None:
            _take_from_block(state, queue, choice, session, worker, block, tasks)
            choice.assigned(worker)
            packed = queue.head(is_ready)
            continue
        inputs, group = graph.inputs[task], graph.group[task]
        room = choice.room(session, worker)
        while True:
            queue.pop()
            assign(state, session, worker, task)
            tasks.append(task)
            _send_ahead(state, session, worker, task, choice, tasks)
            packed = queue.head(is_ready)
            if packed is None or packed >> 32 != number or worker.queued > room:
                break
            task = packed & 0xFFFFFFFF
            if graph.inputs[task] is not inputs or graph.group[task] != group or task in graph.blocks:
                break
        choice.assigned(worker)
    if packed is None:
        _end_reservation(state, request)
    else:
        _blocked(state, queue)


def _send_ahead(
    state: ServerState, session: Session, worker: Worker, task: int, choice: Choice, tasks: list[int]
) -> None:
    """Assign what only waits for tasks of the worker, the given one among them, depth first: at most as much work as is
    prefetched. Of several tasks that wait for the same one only the first goes while other workers are idle."""
    if worker.draining is not None or (worker.reserved is not None and worker.reserved != choice.request):
        return
    states = session.graph.state
    limit = state.options.prefetch_seconds * worker.cpus
    most = 1 if choice.others_idle(worker) else MOST_INPUTS
    stack = dependents(session, worker, task, LONGEST_PREFETCHED, most)[::-1]
    while stack and worker.queued < limit:
        task = stack.pop()
        if states[task] == NOT_ASSIGNED:
            assign_ahead(session, worker, task)
            tasks.append(task)
            stack += dependents(session, worker, task, LONGEST_PREFETCHED, most)[::-1]


def _take_from_block(
    state: ServerState,
    queue: ClassQueue,
    choice: Choice,
    session: Session,
    worker: Worker,
    block: Block,
    tasks: list[int],
) -> None:
    """Assign part of the block at the head of the queue, or some of its members one by one. A linked block is assigned
    as a whole, or its members are queued by themselves."""
    size = part_size(state, session, block)
    if not size and block.link is not None:
        queue.pop()
        rows = _dissolve(state, choice, session, worker, block)
        for row in rows:
            assign(state, session, worker, row)
        tasks += rows
        return
    count = size or min(block.count, 1 + choice.followers(session, block.row, worker))
    if count == block.count:
        queue.pop()
    if not size:
        rows = single_out(session, block, count)
    else:
        rows = [block.row if size == block.count else cut(session, block, size).row]
    for row in rows:
        assign(state, session, worker, row)
    tasks += rows


def _dissolve(state: ServerState, choice: Choice, session: Session, worker: Worker, block: Block) -> list[int]:
    """Queue the members of a linked block by themselves; returns those that the worker may have at once."""
    ready = [row for row in dissolve(state, session, block) if not session.graph.missing[row]]
    for row in ready:
        state.make_ready(session, row)
    return ready[: 1 + choice.followers(session, ready[0], worker)] if ready else []


def _end_reservation(state: ServerState, request: Request) -> None:
    """No task with this request waits any more."""
    for worker in state.workers.values():
        if worker.reserved == request:
            worker.reserved = None


def _blocked(state: ServerState, queue: ClassQueue) -> None:
    """Tasks of the class could not be placed; after a while hold a worker free for them."""
    if queue.blocked_since is None:
        queue.blocked_since = state.now
        return
    if state.now - queue.blocked_since < STARVATION_SECONDS:
        return
    workers = state.workers.values()
    if any(worker.reserved == queue.request for worker in workers):
        return
    able = [w for w in workers if w.reserved is None and could_run(w, queue.request)]
    if able:
        min(able, key=lambda w: (w.load, w.incarnation)).reserved = queue.request


def could_run(worker: Worker, request: Request) -> bool:
    """True if the worker, when idle, could run the request; one that is to end could not."""
    offer = worker.offer
    if worker.draining is not None:
        return False
    return offer["cpus"] >= request.cpus and all(offer.get(name, 0) >= amount for name, amount in request.other)


class Choice:
    """The workers that have room for one request, cheapest first, during one round."""

    def __init__(self, state: ServerState, request: Request) -> None:
        self._state = state
        self.request = request
        self._roomy: dict[int, Worker] = {}
        self._idle: set[int] = set()
        self._heap: list[tuple[float, int]] = []
        for worker in state.workers.values():
            if worker.free_cpus > 0 and worker.draining is None:
                self._idle.add(worker.incarnation)
            if self._has_room(worker, 0.0, REFILLED_BELOW):
                self._roomy[worker.incarnation] = worker
                self._heap.append((worker.load, worker.incarnation))
        heapq.heapify(self._heap)

    def _has_room(self, worker: Worker, expected: float, part: float = 1.0) -> bool:
        """True if a task of so many expected seconds can start now, or be sent ahead up to that part of what may be."""
        request = self.request
        if worker.draining is not None or (worker.reserved is not None and worker.reserved != request):
            return False
        if worker.fits_now(request):
            return True
        if request.other or request.cpus > worker.cpus or expected > LONGEST_PREFETCHED:
            return False
        return worker.queued < part * self._state.options.prefetch_seconds * worker.cpus

    def best(self, session: Session, task: int) -> Worker | None:
        """The worker with the earliest expected finish, None if none has room."""
        graph = session.graph
        measured = session.groups[graph.group[task]].seconds
        expected = measured if measured is not None else UNKNOWN_DURATION + LONGEST_PREFETCHED
        least = self._least_loaded(expected)
        if least is None:
            return None
        inputs = graph.distinct(task)
        if not inputs and not session.failed_on:
            return least
        sizes = graph.size
        weighed = inputs[:LOCALITY_INPUTS]
        candidates = {least.incarnation: least}
        for obj in weighed:
            for incarnation in graph.replicas_of(obj):
                worker = self._roomy.get(incarnation)
                if worker is not None and self._has_room(worker, expected):
                    candidates[incarnation] = worker
                if len(candidates) > LOCALITY_INPUTS:
                    break
        if len(candidates) == 1 and not session.failed_on:
            return least
        if session.failed_on:
            self._avoid(session, task, candidates)
        best_cost, best = float("inf"), least
        for incarnation, worker in candidates.items():
            cost = worker.load
            for obj in weighed:
                known = graph.replicas[obj]
                if known != incarnation and (known is None or isinstance(known, int) or incarnation not in known):
                    size = session.weights.get(obj, sizes[obj]) if session.weights else sizes[obj]
                    cost += TRANSFER_DELAY + size / BANDWIDTH
            if cost < best_cost:
                best_cost, best = cost, worker
        return best

    def followers(self, session: Session, task: int, worker: Worker) -> int:
        """How many tasks with the same inputs and duration may go along with this one without a new choice."""
        room = self.room(session, worker)
        return max(0, int((room - worker.queued) / session.groups[session.graph.group[task]].expected))

    def room(self, session: Session, worker: Worker) -> float:
        """Up to how many seconds of queued work alike tasks may go along without a new choice."""
        if session.failed_on or worker.fits_now(self.request):
            return 0.0
        room = self._state.options.prefetch_seconds * worker.cpus
        others = [other.load for other in self._roomy.values() if other is not worker]
        if others:
            room = min(room, max(min(others) * worker.cpus, worker.queued + UNBALANCED_SECONDS))
        return room

    def others_idle(self, worker: Worker) -> bool:
        """True if another worker had a free cpu when the round began, and got nothing since."""
        return len(self._idle) > (worker.incarnation in self._idle)

    def _avoid(self, session: Session, task: int, candidates: dict[int, Worker]) -> None:
        """A task that failed on a worker runs again elsewhere, if somewhere else is room."""
        failed_on = session.failed_on.get(task)
        if failed_on in candidates:
            others = [w for w in self._roomy.values() if w.incarnation != failed_on and self._has_room(w, 0.0)]
            if others:
                del candidates[failed_on]
                other = min(others, key=lambda w: (w.load, w.incarnation))
                candidates[other.incarnation] = other

    def _least_loaded(self, expected: float) -> Worker | None:
        """The least loaded worker with room for a task of so many expected seconds."""
        heap = self._heap
        while heap:
            worker = self._roomy.get(heap[0][1])
            if worker is None:
                heapq.heappop(heap)
            elif heap[0][0] != worker.load:
                heapq.heapreplace(heap, (worker.load, worker.incarnation))
            elif self._has_room(worker, expected):
                return worker
            else:
                return self._any_with_room(expected)
        return None

    def _any_with_room(self, expected: float) -> Worker | None:
        """The cheapest worker was full; look at all that had room when the round began."""
        able = [worker for worker in self._roomy.values() if self._has_room(worker, expected)]
        return min(able, key=lambda w: (w.load, w.incarnation)) if able else None

    def assigned(self, worker: Worker) -> None:
        """A task of this request went to the worker."""
        if worker.reserved == self.request:
            worker.reserved = None
        if not self._has_room(worker, 0.0):
            self._roomy.pop(worker.incarnation, None)
        if worker.free_cpus <= 0:
            self._idle.discard(worker.incarnation)
