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


class Bucket:
    """Ready tasks of one level: first those that were given to a worker before, then the new ones.

    Work on what was lost must not wait behind all of its level: what was made for its dependents would wait in memory,
    to be lost as well.
    """

    __slots__ = ("again", "new")

    def __init__(self) -> None:
        self.again: deque[Entry] = deque()
        self.new: deque[Entry] = deque()

    def first(self) -> Entry | None:
        """The best entry, None if there is none."""
        queue = self.again or self.new
        return queue[0] if queue else None

    def pop(self) -> None:
        """Take away the best entry."""
        (self.again or self.new).popleft()


class ClassQueue:
    """Ready tasks of one priority and one resource request: a bucket per level, deepest first."""

    def __init__(self, priority: int, request: Request) -> None:
        self.priority = priority
        self.request = request
        self.blocked_since: float | None = None
        self.infeasible_since: float | None = None
        self._buckets: dict[int, Bucket] = {}
        self._levels: list[int] = []

    def push(self, level: int, packed: Entry, *, again: bool) -> None:
        """Add a task of this depth; one that becomes ready again goes before the others."""
        bucket = self._buckets.get(level)
        if bucket is None:
            bucket = self._buckets[level] = Bucket()
            heapq.heappush(self._levels, -level)
        if again:
            bucket.again.append(packed)
        else:
            bucket.new.append(packed)

    def head(self, is_ready: Callable[[Entry], bool]) -> Entry | None:
        """The best entry that is still ready, None if there is none; drops the others on the way."""
        while self._levels:
            level = -self._levels[0]
            bucket = self._buckets[level]
            while (packed := bucket.first()) is not None:
                if is_ready(packed):
                    return packed
                bucket.pop()
            heapq.heappop(self._levels)
            del self._buckets[level]
        return None

    def pop(self) -> None:
        """Take away the entry that `head` returned."""
        self._buckets[-self._levels[0]].pop()

    def entries(self) -> Iterator[Entry]:
        """All entries in no particular order, outdated ones too."""
        for bucket in self._buckets.values():
            yield from bucket.again
            yield from bucket.new

    def retain(self, keep: Callable[[Entry], bool]) -> None:
        """Drop all entries for which `keep` is false."""
        for bucket in self._buckets.values():
            bucket.new = deque(filter(keep, bucket.new))
            bucket.again = deque(filter(keep, bucket.again))

    def __len__(self) -> int:
        return sum(len(bucket.new) + len(bucket.again) for bucket in self._buckets.values())


class ReadyQueue:
    """All ready tasks."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, Request], ClassQueue] = {}
        self._order: list[ClassQueue] = []
        self.outdated = 0

    def push(self, priority: int, request: Request, level: int, packed: Entry, *, again: bool = False) -> None:
        """Add a task.

        Args:
            priority, request: its class.
            level: its depth in the graph.
            packed: the entry.
            again: it was given to a worker before.
        """
        key = (priority, request)
        queue = self._classes.get(key)
        if queue is None:
            queue = self._classes[key] = ClassQueue(priority, request)
            self._order.append(queue)
            self._order.sort(key=lambda q: (-q.priority, -q.request.weight))
        queue.push(level, packed, again=again)

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
