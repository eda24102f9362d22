"""What the dashboard's overview of an event log costs: seconds of reading it and of each answer, memory; writes a file.

    python -m benchmarks.overview [--tasks N] [--members N] [--to FILE]

Two logs are made: a session of single tasks, which ran in small batches on eight executors, and a session with one
task array. Each is read in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import psutil

from benchmarks.publishing import publish
from benchmarks.runner import machine
from rain.dashboard.overview import Overview
from rain.eventlog.database import FILE_NAME
from rain.eventlog.reader import EventReader
from rain.eventlog.records import Event, MembersFinished, RunsFinished, Submitted
from rain.eventlog.writer import EventWriter, open_log
from rain.protocol.messages import SubmitBlock, SubmitChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rain.eventlog.records import Record

MEBIBYTE = 1 << 20
SESSION = 1
WORKERS = ("10.0.0.1:9000", "10.0.0.2:9000")
EXECUTORS = 4
"""Of each worker."""
PER_BATCH = 20
PER_CHUNK = 5000
PER_BLOCK = 500
NAMES = [f"{stage}/{part}" for stage in ("load", "train", "score") for part in ("a", "b", "c", "d")]
BEGIN = 1_800_000_000.0
SECONDS = 0.01
"""Of a task."""
WRITING_SECONDS = 120.0


def task_records(tasks: int) -> Iterator[tuple[float, Record]]:
    """Each task has one output, which the next but eleven uses."""
    yield BEGIN, Event("SessionNew", SESSION, {"session": SESSION, "client": "10.0.0.9:5", "spec": {"name": "tasks"}})
    templates = [msgpack.packb({"task_type": "py/", "name": name, "config": None, "outputs": [{}]}) for name in NAMES]
    for first in range(0, tasks, PER_CHUNK):
        numbers = range(first, min(first + PER_CHUNK, tasks))
        chunk = SubmitChunk(
            session=SESSION,
            templates=[] if first else templates,
            tasks=array("I", [10 + 2 * number for number in numbers]),
            task_templates=array("I", [number % len(NAMES) for number in numbers]),
            args=[],
            input_counts=array("I", [min(number // len(NAMES), 1) for number in numbers]),
            inputs=array("I", [11 + 2 * (number - 11) for number in numbers if number >= len(NAMES)]),
            output_counts=array("I", [1]) * len(numbers),
            outputs=array("I", [11 + 2 * number for number in numbers]),
            output_flags=bytes(len(numbers)),
            objects=array("I"),
            object_flags=b"",
            object_specs=[],
            values=[],
        )
        yield BEGIN, Submitted(SESSION, len(templates) if first else 0, [chunk])
    busy = [[BEGIN] * EXECUTORS for _ in WORKERS]
    for turn, first in enumerate(range(0, tasks, PER_BATCH)):
        worker, executor = turn % len(WORKERS), turn // len(WORKERS) % EXECUTORS
        numbers = range(first, min(first + PER_BATCH, tasks))
        start = busy[worker][executor]
        busy[worker][executor] = start + SECONDS * len(numbers)
        yield (
            busy[worker][executor],
            RunsFinished(
                session=SESSION,
                worker=WORKERS[worker],
                tasks=array("I", [10 + 2 * number for number in numbers]),
                runs=array("I", [1]) * len(numbers),
                starts=array("d", [start + SECONDS * place for place in range(len(numbers))]),
                durations=array("d", [SECONDS]) * len(numbers),
                infos=[],
                output_counts=array("I"),
                outputs=array("I", [11 + 2 * number for number in numbers]),
                sizes=array("Q", [100]) * len(numbers),
            ),
        )


def member_records(members: int) -> Iterator[tuple[float, Record]]:
    """One task array."""
    yield BEGIN, Event("SessionNew", SESSION, {"session": SESSION, "client": "10.0.0.9:5", "spec": {"name": "array"}})
    template = msgpack.packb({"task_type": "py/", "name": "increment", "config": None, "outputs": [{}]})
    sizes = array("I", [3]) * members
    block = SubmitBlock(SESSION, [template], 0, 10, members, 0, array("I"), True, b"", sizes)
    yield BEGIN, Submitted(SESSION, 0, [block])
    for turn, first in enumerate(range(0, members, PER_BLOCK)):
        count = min(PER_BLOCK, members - first)
        start = BEGIN + turn // len(WORKERS) * count * 1e-4
        columns = array("f", [1e-4]) * count, array("I", [5]) * count
        worker = WORKERS[turn % len(WORKERS)]
        place = 10 + members + first, 10 + first, 1, start
        yield start + count * 1e-4, MembersFinished(SESSION, worker, *place, *columns, False)


RECORDS = {"tasks": task_records, "array": member_records}


def write_log(path: Path, kind: str, size: int) -> None:
    """Make the log."""
    open_log(path)
    writer = EventWriter(path)
    for moment, record in RECORDS[kind](size):
        writer.put([record], round(moment * 1e9))
    writer.close(WRITING_SECONDS)


def read_log(path: Path, size: int) -> dict[str, Any]:
    """Figures of an overview of the log.

    Raises:
        AssertionError: an answer is wrong.
    """
    process = psutil.Process()
    before = process.memory_info().rss
    overview = Overview(EventReader(path))
    start = time.perf_counter()
    longest = 0.0
    while overview.is_behind:
        turn = time.perf_counter()
        overview.catch_up()
        longest = max(longest, time.perf_counter() - turn)
    seconds: dict[str, float] = {"catch_up": time.perf_counter() - start, "longest_turn": longest}
    memory = process.memory_info().rss - before
    middle = overview.tasks(SESSION, after=size // 2, limit=1)["tasks"][0]["id"]
    answers: dict[str, Callable[[], Any]] = {
        "status": overview.status,
        "sessions": overview.sessions,
        "session": lambda: overview.session(SESSION),
        "groups": lambda: overview.groups(SESSION),
        "tasks": lambda: overview.tasks(SESSION),
        "tasks_of_a_group": lambda: overview.tasks(SESSION, group=overview.task(SESSION, middle)["name"], after=size),
        "failed_tasks": lambda: overview.tasks(SESSION, state="failed"),
        "task": lambda: overview.task(SESSION, middle),
        "graph": lambda: overview.graph(SESSION),
        "stream": lambda: overview.stream(SESSION),
        "stream_of_a_tenth": lambda: overview.stream(SESSION, BEGIN, BEGIN + size * SECONDS / 80),
        "stream_of_all": overview.stream,
        "workers": overview.workers,
        "events": overview.events,
        "failed_events": lambda: overview.events(type="TaskFailed"),
    }
    sizes = {}
    for name, answer in answers.items():
        start = time.perf_counter()
        given = answer()
        seconds[name] = time.perf_counter() - start
        sizes[name] = len(json.dumps(given))
    finished = overview.session(SESSION)["tasks"]["finished"]
    assert finished == size, f"{finished} of {size} tasks are finished"
    assert overview.stream(SESSION)["total"] == size
    return {
        "size": size,
        "log_mebibytes": round(path.stat().st_size / MEBIBYTE, 1),
        "resident_mebibytes": round(memory / MEBIBYTE, 1),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "json_bytes": sizes,
    }


def measure(kind: str, size: int) -> dict[str, Any]:
    """Figures of one log, from a process that does nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        write_log(path, kind, size)
        command = [sys.executable, "-m", "benchmarks.overview", "--read", str(path), "--tasks", str(size)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        figures: dict[str, Any] = json.loads(found.stdout)
        return figures


def main() -> int:
    """Measure, print, write a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--to", type=Path, help="the file; by default a new one in benchmarks/results")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        print(json.dumps(read_log(options.read, options.tasks)))
        return 0
    facts = machine()
    document = {
        "tasks": measure("tasks", options.tasks),
        "array": measure("array", options.members),
    }
    publish("overview", facts, document, options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
