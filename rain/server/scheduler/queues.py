"""Ready tasks, waiting at the server: by priority, bigger requests first, deeper first, then in order of arrival.

Entries are `session << 32 | task`. An entry whose task is not ready any more is dropped when it is met.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rain.server.scheduler.resources import Request

Entry = int


def entry(session: int, task: int) -> Entry:
    """The queue entry of a task."""
    return session << 32 | task


def split(packed: Entry) -> tuple[int, int]:
    """(session, task) of an entry."""
    return packed >> 32, packed & 0xFFFFFFFF


class ClassQueue:
    """Ready tasks of one priority and one resource request: a bucket per level, deepest first."""

    def __init__(self, priority: int, request: Request) -> None:
        self.priority = priority
        self.request = request
        self.blocked_since: float | None = None
        self.infeasible_since: float | None = None
        self._buckets: dict[int, deque[Entry]] = {}
        self._levels: list[int] = []

    def push(self, level: int, packed: Entry) -> None:
        """Add a task of this depth."""
        bucket = self._buckets.get(level)
        if bucket is None:
            bucket = self._buckets[level] = deque()
            heapq.heappush(self._levels, -level)
        bucket.append(packed)

    def head(self, is_ready: Callable[[Entry], bool]) -> Entry | None:
        """The best entry that is still ready, None if there is none; drops the others on the way."""
        while self._levels:
            level = -self._levels[0]
            bucket = self._buckets[level]
            while bucket:
                if is_ready(bucket[0]):
                    return bucket[0]
                bucket.popleft()
            heapq.heappop(self._levels)
            del self._buckets[level]
        return None

    def pop(self) -> None:
        """Take away the entry that `head` returned."""
        self._buckets[-self._levels[0]].popleft()

    def entries(self) -> Iterator[Entry]:
        """All entries in no particular order, outdated ones too."""
        for bucket in self._buckets.values():
            yield from bucket

    def retain(self, keep: Callable[[Entry], bool]) -> None:
        """Drop all entries for which `keep` is false."""
        for level in list(self._buckets):
            self._buckets[level] = deque(e for e in self._buckets[level] if keep(e))

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())


class ReadyQueue:
    """All ready tasks."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, Request], ClassQueue] = {}
        self._order: list[ClassQueue] = []
        self.outdated = 0

    def push(self, priority: int, request: Request, level: int, packed: Entry) -> None:
        """Add a task."""
        key = (priority, request)
        queue = self._classes.get(key)
        if queue is None:
            queue = self._classes[key] = ClassQueue(priority, request)
            self._order.append(queue)
            self._order.sort(key=lambda q: (-q.priority, -q.request.weight))
        queue.push(level, packed)

    def classes(self) -> list[ClassQueue]:
        """The queues by class, best first."""
        return self._order

    def drop_class(self, queue: ClassQueue) -> None:
        """Forget an empty class."""
        del self._classes[(queue.priority, queue.request)]
        self._order.remove(queue)

    def compact(self, added_outdated: int, keep: Callable[[Entry], bool]) -> None:
        """Note entries that became outdated at once (a session ended); sweep when they are the majority."""
        self.outdated += added_outdated
        if self.outdated * 2 > sum(map(len, self._order)):
            for queue in self._order:
                queue.retain(keep)
            self.outdated = 0
