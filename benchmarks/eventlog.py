"""The event log: processor time and bytes per task; writes them into a file.

    python -m benchmarks.eventlog [--tasks N] [--members N] [--to FILE]

`caller` is the thread that puts records, which in a server is the one that does everything; `packing` is part of
`writer`, the thread that packs and inserts. The records are what a server makes of tasks with one small output, made
before the clock runs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.publishing import publish
from benchmarks.runner import machine
from rain.eventlog.packing import pack
from rain.eventlog.reader import EventReader
from rain.eventlog.records import MembersFinished, RunsFinished
from rain.eventlog.writer import EventWriter, open_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.eventlog.packing import Batch

PER_BATCH = 1000
PER_BLOCK = 20_000
EVENTS_PER_TASK = 3
WORKER = "127.0.0.1:40000"
MICRO = 1e6


def runs(tasks: int) -> Iterable[RunsFinished]:
    """Single tasks, as two workers' executors finish them: ids in stretches of executors' batches."""
    source = random.Random(1)
    batches = [list(range(first, first + 128)) for first in range(0, tasks + PER_BATCH, 128)]
    order: list[int] = []
    while len(order) < tasks:
        order += batches.pop(source.randrange(min(2, len(batches))))
    for first in range(0, tasks, PER_BATCH):
        some = order[first : first + min(PER_BATCH, tasks - first)]
        count = len(some)
        yield RunsFinished(
            1,
            WORKER,
            array("I", [11 + 2 * number for number in some]),
            array("I", [1]) * count,
            array("d", [1.7e9 + source.random() for _ in some]),
            array("d", [source.random() * 1e-3 for _ in some]),
            [],
            array("I"),
            array("I", [10 + 2 * number for number in some]),
            array("Q", [9]) * count,
        )


def members(count: int) -> Iterable[MembersFinished]:
    """Blocks of a task array."""
    source = random.Random(1)
    for first in range(0, count, PER_BLOCK):
        size = min(PER_BLOCK, count - first)
        durations = array("f", [source.random() * 1e-5 for _ in range(size)])
        sizes = array("I", [source.choice((1, 3, 5)) for _ in range(size)])
        yield MembersFinished(1, WORKER, count + first, first, 1, 1.7e9, durations, sizes, False)


def measure(records: list[Batch], tasks: int, folder: Path) -> dict[str, Any]:
    """Put, write, close; figures per task.

    Raises:
        RuntimeError: not everything is in the file.
    """
    path = folder / "events.db"
    open_log(path)
    start = time.thread_time()
    for record in records:
        pack(record)
    packing = time.thread_time() - start
    whole = time.process_time()
    start = time.thread_time()
    writer = EventWriter(path)
    for record in records:
        writer.put([record], time.time_ns())
    caller = time.thread_time() - start
    writer.close(60)
    together = time.process_time() - whole
    size = path.stat().st_size
    if EventReader(path).last_id() != EVENTS_PER_TASK * tasks:
        raise RuntimeError("events are missing in the log")
    return {
        "tasks": tasks,
        "records": len(records),
        "caller_us_per_task": round(caller / tasks * MICRO, 4),
        "packing_us_per_task": round(packing / tasks * MICRO, 4),
        "packing_us_per_record": round(packing / len(records) * MICRO, 1),
        "writer_us_per_task": round((together - caller) / tasks * MICRO, 4),
        "bytes_per_task": round(size / tasks, 1),
    }


def main() -> int:
    """Measure, print, write a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--to", type=Path, help="the file; by default a new one in benchmarks/results")
    options = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as single, tempfile.TemporaryDirectory() as many:
        document = {
            "single_tasks": measure(list(runs(options.tasks)), options.tasks, Path(single)),
            "task_array": measure(list(members(options.members)), options.members, Path(many)),
        }
    publish("eventlog", facts, document, options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
