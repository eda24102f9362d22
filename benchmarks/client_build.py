"""What building and packing tasks costs the client, in microseconds of cpu per task; no server is involved.

    python -m benchmarks.client_build [--tasks N] [--repeat N]
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from typing import TYPE_CHECKING, Any

from rain.client import remote, tasks
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


def calls() -> dict[str, Callable[[int], object]]:
    """What is built, by name; each takes the position."""
    first = increment(0)
    source = blob(b"x")
    return {
        "remote, an int": increment,
        "remote, a keyword": lambda position: increment(position, by=2),
        "remote, a str": lambda position: increment("text"),
        "remote, a list": lambda position: increment([position]),
        "remote, a task": lambda position: increment(first),
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
            for _ in SubmitPacker(session, {}).messages(session._things):
                pass
            packed = time.process_time()
        found[name] = ((built - start) / count * 1e6, (packed - built) / count * 1e6)
        session.close()
    return found


def main() -> int:
    """Print a table; exit code 1 if the trivial task is above its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    rounds = [measure(options.tasks) for _ in range(options.repeat)]
    best = {name: tuple(min(one[name][k] for one in rounds) for k in (0, 1)) for name in rounds[0]}
    print(f"{'us per task':<20} {'build':>7} {'pack':>7}")
    for name, (build, pack) in best.items():
        print(f"{name:<20} {build:7.2f} {pack:7.2f}")
    return 1 if best["remote, an int"][0] > TARGET_US else 0


if __name__ == "__main__":
    sys.exit(main())
