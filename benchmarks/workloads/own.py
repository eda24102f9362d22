"""Workloads for Rain only: what other systems do not have, or not in a way that could be compared.

Rain is imported when they run: this module is loaded in the environments of other systems too.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.functions import ends_of, increment, make_array
from benchmarks.processes import growth, resident
from benchmarks.workloads.base import SLOTS, Metrics, expect, rate, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.systems import System
    from rain.client import Session, Task, TaskArray

ROLES = ("server", "client", "worker")
PER_SESSION = 10
TRANSFERS = 5
DELETED_SECONDS = 1.2
"""Until what is not kept any more is surely deleted, and its memory there for the next value."""
GATE_SECONDS = 3600
SAMPLE = 100


def sessions(system: System, size: int) -> Metrics:
    """`size` sessions of PER_SESSION tasks, all open at the same time."""
    from rain.client import delayed, gather

    client = client_of(system)
    call = delayed(increment)

    def whole_life() -> list[list[int]]:
        opened: list[tuple[Session, list[Task]]] = []
        for number in range(size):
            session = client.new_session(f"session {number}")
            with session.bind_only():
                opened.append((session, [call(number + place) for place in range(PER_SESSION)]))
            session.submit()
        results = [gather(tasks) for _, tasks in opened]
        for session, _ in opened:
            session.close()
        return results

    seconds, results = timed(whole_life)
    expect("results", results, [[number + place + 1 for place in range(PER_SESSION)] for number in range(size)])
    return {**rate(size * PER_SESSION, seconds), "sessions_per_second": size / seconds}


def fetch(system: System, size: int) -> Metrics:
    """Only the fetching of small results of tasks that have finished."""
    from rain.client import delayed, gather

    call = delayed(increment)
    with client_of(system).new_session("fetch") as session:
        tasks = [call(number) for number in range(size)]
        session.submit()
        session.wait_all()
        seconds, results = timed(gather, tasks)
    expect("results", results, list(range(1, size + 1)))
    return {"seconds": seconds, "results": size, "results_per_second": size / seconds}


def transfer(system: System, size: int) -> Metrics:
    """A value of `size` MiB made on one worker, used on another: over TCP on loopback, into recycled memory."""
    from rain.client import LocalCluster, delayed

    there: dict[str, Any] = {"there": 1}
    rates: list[float] = []
    with LocalCluster(1, cpus=1, resources={"here": 1}) as cluster:
        cluster._resources = there
        cluster.add_worker(1)
        make = delayed(make_array).options(resources={"here": 1})
        use = delayed(ends_of).options(resources=there)
        with cluster.client() as client, client.new_session("transfer") as session:
            for _ in range(TRANSFERS):
                made = make(size)
                session.submit()
                session.wait(made)
                seconds, result = timed(lambda value=made: use(value).result())
                expect("value", result, (size << 20, 7, 7))
                rates.append((size << 20) / 1e6 / seconds)
                made.output.unkeep()
                time.sleep(DELETED_SECONDS)
    rates.pop(0)  # the memory was new
    return {"megabytes_per_second": statistics.median(rates), "mebibytes": size}


def memory(system: System, size: int) -> Metrics:
    """Memory per task that waits: `size` tasks while another one has all cpus."""
    from rain.client import delayed

    call = delayed(increment)
    tasks: list[Task] = []

    def make(session: Session) -> None:
        tasks.extend([call(number) for number in range(size)])

    def check() -> None:
        for place in range(0, size, max(1, size // SAMPLE)):
            expect("result", tasks[place].result(), place + 1)

    return _waiting(system, size, make, check)


def array_memory(system: System, size: int) -> Metrics:
    """Memory per member of an array that waits."""
    arrays: list[TaskArray] = []

    def make(session: Session) -> None:
        arrays.append(session.map(increment, range(size)))

    def check() -> None:
        expect("results", arrays[0].result(), list(range(1, size + 1)))

    return _waiting(system, size, make, check)


def _waiting(system: System, size: int, make: Callable[[Session], None], check: Callable[[], None]) -> Metrics:
    from rain.client import blob, tasks

    with client_of(system).new_session("memory") as session:
        gate = tasks.sleep(GATE_SECONDS, blob("x"), cpus=SLOTS)
        session.submit()
        gc.collect()
        before = resident(system.role)
        make(session)
        seconds, _ = timed(session.submit)
        waiting = growth(resident(system.role), before)
        if not gate.cancel():
            expect("the task that has all cpus", "over", "running")
        session.wait_all()
        check()
    return {"submit_seconds": seconds, **{f"{role}_bytes": waiting.get(role, 0) / size for role in ROLES}}


def client_of(system: System) -> Any:
    """The client that the adapter of Rain has."""
    adapter: Any = system
    return adapter.client
