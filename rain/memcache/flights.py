"""`get_or_set`: callers of one client who want the same key share a flight, clients share a lease."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rain.memcache.client_errors import (
    AuthenticationError,
    ClusterNoAvailableNodes,
    CommandError,
    NodeUnavailable,
)
from rain.memcache.validation import MAX_EXPTIME, MAX_LEASE, check_value

if TYPE_CHECKING:
    from rain.memcache.cluster import Cluster
    from rain.memcache.leases import Leases, TakenLease

logger = logging.getLogger(__name__)

_CACHE_FAILURES = (NodeUnavailable, TimeoutError, ClusterNoAvailableNodes, CommandError)
"""With these the caller gets what the factory makes; an `AuthenticationError` is raised all the same."""

_POLLS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.25)
"""Seconds between questions whether the value is there; the last repeats."""

_GRACE = 2
"""Seconds beyond its end for which a lease is still respected: servers count whole seconds."""

_WARN_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """The arguments of `get_or_set`, checked; the factory gives a buffer or an awaitable of one."""

    key: bytes
    factory: Callable[[], Any]
    ttl: int
    flags: int
    lease: int
    stale: int
    wait: float | None


class _Flight:
    """Those who wait for one run of `Flights._fly`."""

    __slots__ = ("callers", "task", "waiting")

    def __init__(self, task: asyncio.Task[bytes]) -> None:
        self.task = task
        self.callers: list[asyncio.Future[bytes]] = []
        self.waiting = 0


class Flights:
    """All that `get_or_set` has under way in one client.

    Args:
        cluster: the nodes.
        leases: where flights take their leases.
        random: gives numbers from 0 to 1, to spread polls.
        wall_clock: the unix time.
    """

    def __init__(
        self,
        cluster: Cluster,
        leases: Leases,
        *,
        random: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._leases = leases
        self._random = random
        self._wall_clock = wall_clock
        self._loop = asyncio.get_running_loop()
        self._flights: dict[bytes, _Flight] = {}
        self._refreshes: set[bytes] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warned: dict[object, float] = {}

    async def get_or_set(self, wish: Wish) -> bytes:
        """The value; the first caller's wish decides for all who come while it is under way."""
        flight = self._flights.get(wish.key)
        if flight is None:
            flight = _Flight(self._start(self._fly(wish)))
            self._flights[wish.key] = flight
            flight.task.add_done_callback(partial(self._landed, wish.key, flight))
        caller: asyncio.Future[bytes] = self._loop.create_future()
        flight.callers.append(caller)
        flight.waiting += 1
        try:
            return await caller
        except asyncio.CancelledError:
            flight.waiting -= 1
            if not flight.waiting:
                self._forget(wish.key, flight)
                flight.task.cancel()
            raise

    def close(self) -> set[asyncio.Task[Any]]:
        """Fail all callers and cancel what runs, except who calls this.

        Returns:
            What was cancelled.
        """
        for flight in self._flights.values():
            for caller in flight.callers:
                if not caller.done():
                    caller.set_exception(RuntimeError("client is closed"))
        self._flights.clear()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        return tasks

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, key: bytes, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _landed(self, key: bytes, flight: _Flight, task: asyncio.Task[bytes]) -> None:
        self._forget(key, flight)
        error = None if task.cancelled() else task.exception()
        for caller in flight.callers:
            if caller.done():
                continue
            if task.cancelled():
                caller.cancel()
            elif error is not None:
                caller.set_exception(error)
            else:
                caller.set_result(task.result())

    async def _fly(self, wish: Wish) -> bytes:
        try:
            lease = await self._wait_for_lease(wish)
        except AuthenticationError:
            raise
        except _CACHE_FAILURES as error:
            logger.debug("get_or_set of %r goes without the cache: %s", wish.key, error)
            lease = None
        if lease is None:
            return await _produce(wish)
        if lease.item is None:
            return await self._fulfil(wish, lease)
        if lease.won and wish.key not in self._refreshes:
            self._refreshes.add(wish.key)
            self._start(self._refresh(wish, lease))
        return lease.item.value

    async def _wait_for_lease(self, wish: Wish) -> TakenLease | None:
        """A lease that was won or has an item; None if the value shall be made without."""
        now = self._loop.time
        limit = now() + (2 * (wish.lease + _GRACE) if wish.wait is None else wish.wait)
        token, since = 0, now()
        polls = iter(_POLLS)
        pause = 0.0
        while True:
            lease = await self._leases.take(wish.key, wish.lease, wish.stale)
            if lease.item is not None or lease.won:
                return lease
            if not lease.pending or now() >= limit:
                return None
            if lease.token != token:
                token, since = lease.token, now()
            elif token and now() - since > wish.lease + _GRACE:
                # a placeholder that outlives its lease: somebody gave it a longer life by touching it
                await self._leases.remove(wish.key, token)
                continue
            pause = next(polls, pause)
            await asyncio.sleep(min(pause * (0.75 + 0.5 * self._random()), limit - now()))

    async def _fulfil(self, wish: Wish, lease: TakenLease) -> bytes:
        try:
            value = await _produce(wish)
        except BaseException:
            lease.give_up()
            raise
        try:
            await lease.fulfil(value, flags=wish.flags, exptime=self._exptime(wish, lease))
        except AuthenticationError:
            raise
        except _CACHE_FAILURES as error:
            self._warn(wish.key, "get_or_set: the value of %r could not be stored: %s", error)
        return value

    async def _refresh(self, wish: Wish, lease: TakenLease) -> None:
        try:
            await self._fulfil(wish, lease)
        except Exception as error:
            self._warn(wish.key, "get_or_set: the value of %r could not be refreshed: %r", error)
        finally:
            self._refreshes.discard(wish.key)

    def _exptime(self, wish: Wish, lease: TakenLease) -> int:
        if not wish.ttl:
            return 0
        seconds = wish.ttl + wish.stale if lease.can_refresh else wish.ttl
        return seconds if seconds <= MAX_LEASE else min(int(self._wall_clock()) + seconds, MAX_EXPTIME)

    def _warn(self, key: bytes, text: str, error: Exception) -> None:
        """Log a failure, once a minute per node."""
        try:
            where: object = self._cluster.node_for(key).address
        except ClusterNoAvailableNodes:
            where = None
        now = self._loop.time()
        if now >= self._warned.get(where, now):
            self._warned[where] = now + _WARN_EVERY
            logger.warning(text, key, error)


async def _produce(wish: Wish) -> bytes:
    made = wish.factory()
    value = await made if inspect.isawaitable(made) else made
    return bytes(check_value(value))
