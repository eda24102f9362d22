"""What building and packing tasks costs the client, in microseconds of cpu per task; no server is involved.

    python -m benchmarks.client_build [--tasks N] [--repeat N] [--submit N]

`--submit N` starts a cluster and tells how long it takes until the server has accepted N tasks of one `session.map`.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from typing import TYPE_CHECKING, Any

from rain.client import LocalCluster, delayed, remote, tasks
from rain.client.data import blob
from rain.client.session import Session
from rain.client.submit import SubmitPacker

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET_US = 8.0
"""Building one trivial remote task may cost so much."""


@remote
def increment(ctx: Any, value: int, by: int = 1) -> Any:
    """A trivial function."""
    return value + by


@delayed
def double(value: Any) -> Any:
    """A trivial plain function."""
    return value


def calls() -> dict[str, Callable[[int], object]]:
    """What is built, by name; each takes the position."""
    first = increment(0)
    source = blob(b"x")
    plain = double(0)
    return {
        "remote, an int": increment,
        "remote, a keyword": lambda position: increment(position, by=2),
        "remote, a str": lambda position: increment("text"),
        "remote, a list": lambda position: increment([position]),
        "remote, a task": lambda position: increment(first),
        "delayed, an int": double,
        "delayed, a list": lambda position: double([position]),
        "delayed, a task": lambda position: double(plain),
        "concat of one": lambda position: tasks.concat((source,)),
        "sleep": lambda position: tasks.sleep(0, source),
    }


def measure(count: int) -> dict[str, tuple[float, float]]:
    """Microseconds per task for building and for packing, by name."""
    found: dict[str, tuple[float, float]] = {}
    with Session(None, 1).bind_only():
        names = list(calls())
    for name in names:
        session = Session(None, 1)
        with session.bind_only():
            build = calls()[name]
            gc.collect()
            start = time.process_time()
            for position in range(count):
                build(position)
            built = time.process_time()
            for _ in SubmitPacker(session, {}).messages(session._registry.take()[0]):
                pass
            packed = time.process_time()
        found[name] = ((built - start) / count * 1e6, (packed - built) / count * 1e6)
        session.close()
    return found | {f"map, {name}": measure_map(column) for name, column in columns(count).items()}


def columns(count: int) -> dict[str, list[Any]]:
    """What is mapped over, by name."""
    numbers = list(range(count))
    return {"ints": numbers, "str": [f"text {n}" for n in numbers], "lists": [[n] for n in numbers]}


def measure_map(column: list[Any]) -> tuple[float, float]:
    """Microseconds per member for building and for packing."""
    session = Session(None, 1)
    gc.collect()
    start = time.process_time()
    made = session.map(double, column)
    built = time.process_time()
    for _ in SubmitPacker(session, {}).messages(session._registry.take()[0]):
        pass
    packed = time.process_time()
    return (built - start) / len(made) * 1e6, (packed - built) / len(made) * 1e6


def measure_submit(count: int) -> tuple[float, float]:
    """Seconds until `count` members are built, and until the server has accepted them."""
    with LocalCluster(1) as cluster, cluster.client() as client, client.new_session() as session:
        start = time.perf_counter()
        session.map(double, range(count))
        built = time.perf_counter()
        session.submit()
        return built - start, time.perf_counter() - built


def main() -> int:
    """Print a table; exit code 1 if the trivial task is above its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--submit", type=int, default=0, metavar="N")
    options = parser.parse_args()
    if options.submit:
        build, submit = measure_submit(options.submit)
        print(f"{options.submit} members: map() {build:.2f} s, submit() {submit:.2f} s")
        return 0
    rounds = [measure(options.tasks) for _ in range(options.repeat)]
    best = {name: tuple(min(one[name][k] for one in rounds) for k in (0, 1)) for name in rounds[0]}
    print(f"{'us per task':<20} {'build':>7} {'pack':>7}")
    for name, (build, pack) in best.items():
        print(f"{name:<20} {build:7.2f} {pack:7.2f}")
    return 1 if best["remote, an int"][0] > TARGET_US else 0


if __name__ == "__main__":
    sys.exit(main())
