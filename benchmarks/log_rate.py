"""What the event log costs: rates of trivial tasks with it and without it, in turns; writes them into a file.

    python -m benchmarks.log_rate [--tasks N] [--members N] [--repeat N] [--to FILE]

The server without the log is the same program in which nothing is recorded and nothing written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.functions import increment
from benchmarks.publishing import publish
from benchmarks.runner import machine
from benchmarks.workloads import expect
from rain.client import Client, delayed

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 30.0
WITHOUT_LOG = """
from rain.server import main as server
from rain.server.core import recording

class NoLog:
    def __init__(self, path, **options): pass
    def put(self, records, time_ns): pass
    def close(self, timeout=0.0): pass

server.EventWriter = NoLog
for name in ("submitted", "runs_started", "all_runs_finished", "some_runs_finished", "members_finished",
             "run_of_member_finished", "objects_unkept", "happened", "task_ended"):
    setattr(recording, name, lambda *args, **options: None)

from rain.cli.main import main
import sys
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def cluster(directory: Path, *, log: bool) -> Iterator[tuple[Client, psutil.Process]]:
    """A server and a worker in processes of their own; gives a client and the server's process."""
    directory.mkdir()
    access, ready = directory / "access.json", directory / "ready"
    program = ["-m", "rain"] if log else ["-c", WITHOUT_LOG]
    options = ["--access-file", str(access), "--ready-file", str(ready)]
    places = ["--logdir", str(directory / "logs"), "--workdir", str(directory / "work")]
    command = [sys.executable, *program, "server", "--listen", "127.0.0.1:0", "--http-listen", "none"]
    environment = {**os.environ, "RAIN_LOG": "warn"}
    server = subprocess.Popen([*command, *options, *places], env=environment)
    worker = None
    try:
        _wait_for(ready, server)
        address = f"127.0.0.1:{json.loads(access.read_text())['port']}"
        ready = directory / "worker-ready"
        places = ["--logdir", str(directory / "worker-logs"), "--workdir", str(directory / "worker-work")]
        command = [sys.executable, "-m", "rain", "worker", address, "--cpus", "2", "--access-file", str(access)]
        worker = subprocess.Popen([*command, "--ready-file", str(ready), *places], env=environment)
        _wait_for(ready, worker)
        with Client(access_file=str(access)) as client:
            yield client, psutil.Process(server.pid)
    finally:
        for process in (worker, server):
            if process is not None:
                process.terminate()
                process.wait(10)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{path.name} of {process.args!r} does not come")
        time.sleep(0.01)


def measure(directory: Path, tasks: int, members: int, *, log: bool) -> dict[str, float]:
    """Rates per second, and cpu seconds of the server, of both kinds of tasks."""
    found: dict[str, float] = {}
    with cluster(directory, log=log) as (client, server), client.new_session() as session:
        one = delayed(increment)
        expect("warm-up", [task.result() for task in [one(n) for n in range(100)]], list(range(1, 101)))
        expect("warm-up", session.map(increment, range(1000)).result(), list(range(1, 1001)))
        for name, count in (("tasks", tasks), ("members", members)):
            before, start = server.cpu_times(), time.perf_counter()
            if name == "tasks":
                made = [one(n) for n in range(count)]
                session.submit()
                session.wait_all()
            else:
                array = session.map(increment, range(count))
                session.submit()
                array.wait()
            seconds = time.perf_counter() - start
            after = server.cpu_times()
            found[f"{name}_per_second"] = round(count / seconds)
            cpu = after.user + after.system - before.user - before.system
            found[f"server_us_per_{name[:-1]}"] = round(1e6 * cpu / count, 3)
        del made, array
    return found


def main() -> int:
    """Measure in turns, print, write a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--to", type=Path, help="the file; by default a new one in benchmarks/results")
    options = parser.parse_args()
    facts = machine()
    runs: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory(prefix="rain-log-rate-") as directory:
        for turn in range(options.repeat):
            for name in ("with", "without") if turn % 2 else ("without", "with"):
                place = Path(directory) / f"{name}-{turn}"
                runs[name].append(measure(place, options.tasks, options.members, log=name == "with"))
                print(name, runs[name][-1], file=sys.stderr)
    medians = {name: {key: statistics.median(run[key] for run in own) for key in own[0]} for name, own in runs.items()}
    rates = ("tasks_per_second", "members_per_second")
    document = {
        "tasks": options.tasks,
        "members": options.members,
        "medians": medians,
        "ratio": {key: round(medians["with"][key] / medians["without"][key], 3) for key in rates},
        "runs": runs,
    }
    publish("log-rate", facts, document, options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
