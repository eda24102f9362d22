"""Measures the service levels and prints them as a table: `python -m benchmarks levels`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rain.client import Client, LocalCluster, TaskException, blob, remote, tasks
from rain.testing.leaks import check, snapshot

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Level:
    """One service level. low, high: limits in seconds; measure: returns seconds."""

    what: str
    low: float
    high: float
    measure: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Reading:
    """A level and what was measured, in seconds."""

    what: str
    low: float
    high: float
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether the level was kept."""
        return self.low <= self.seconds <= self.high


@contextlib.contextmanager
def timed() -> Iterator[list[float]]:
    """Gives a list that holds the seconds the block took, after it."""
    result: list[float] = []
    begin = time.perf_counter()
    yield result
    result.append(time.perf_counter() - begin)


def until(condition: Callable[[], bool], limit: float = 20.0) -> float:
    """Seconds until the condition holds, at most `limit`."""
    begin = time.perf_counter()
    while not condition() and time.perf_counter() - begin < limit:
        time.sleep(0.005)
    return time.perf_counter() - begin


@remote()
def sleeping(ctx: Any, seconds: float) -> bytes:
    """Sleeps in the executor."""
    time.sleep(seconds)
    return b""


@remote()
def failing(ctx: Any) -> bytes:
    """Fails."""
    raise RuntimeError("as asked")


@remote()
def own_pid(ctx: Any) -> str:
    """Process id of the executor."""
    return str(os.getpid())


def four_sleeps() -> float:
    """Four tasks of 0.5 s on 2 cpus."""
    with Client() as client, client.new_session() as session:
        for _ in range(4):
            tasks.sleep(0.5, blob("x"))
        with timed() as result:
            session.submit()
            session.wait_all()
    return result[0]


def one_sleep() -> float:
    """One task of 0.3 s, submit to wait."""
    with Client() as client, client.new_session() as session:
        task = tasks.sleep(0.3, blob("x"))
        with timed() as result:
            session.submit()
            task.wait()
    return result[0]


def fetch_after_sleep() -> float:
    """Fetch of an output that is finished."""
    with Client() as client, client.new_session() as session:
        task = tasks.sleep(0.1, blob("x"))
        task.output.keep()
        session.submit()
        task.wait()
        with timed() as result:
            assert task.output.fetch().get_bytes() == b"x"
    return result[0]


def chain_of_sleeps() -> float:
    """Three tasks of 0.2 s, one after the other."""
    with Client() as client, client.new_session() as session:
        task = tasks.sleep(0.2, tasks.sleep(0.2, tasks.sleep(0.2, blob("x"))))
        with timed() as result:
            session.submit()
            task.wait()
    return result[0]


def sleep_after_concat() -> float:
    """A task of 0.5 s after a Concat."""
    with Client() as client, client.new_session() as session:
        tasks.sleep(0.5, tasks.concat([blob("a"), blob("b")]))
        with timed() as result:
            session.submit()
            session.wait_all()
    return result[0]


def first_python_task() -> float:
    """info.duration of the first Python task of a cluster, which sleeps 0.3 s."""
    with Client() as client, client.new_session() as session:
        task = sleeping(0.3)
        session.submit()
        task.wait()
        task.update()
        assert task.info is not None
        duration = task.info.duration
        assert duration is not None
        return float(duration)


def two_wide_python_tasks() -> float:
    """Two Python tasks of 0.5 s with cpus=2 on 2 cpus."""
    with LocalCluster(1, cpus=2) as cluster, cluster.client() as client, client.new_session() as session:
        for _ in range(2):
            sleeping.options(cpus=2)(0.5)
        with timed() as result:
            session.submit()
            session.wait_all()
    return result[0]


def wait_on_finished() -> float:
    """wait on a finished task, and wait_all with nothing submitted."""
    with Client() as client, client.new_session() as session:
        task = tasks.concat([blob("a")])
        session.submit()
        task.wait()
        with timed() as result:
            task.wait()
            with client.new_session() as empty:
                empty.wait_all()
    return result[0]


def new_session_after_killed_task() -> float:
    """After leaving a session over a running Python task: a Python task in a new session."""
    with LocalCluster(1, cpus=1) as cluster, cluster.client() as client:
        with client.new_session() as session:
            own_pid()
            session.submit()
            session.wait_all()
            sleeping(60.0)
            session.submit()
            time.sleep(1.0)
        with timed() as result, client.new_session() as session:
            task = own_pid()
            task.output.keep()
            session.submit()
            task.output.fetch()
    return result[0]


def _worker_is_empty(client: Client) -> bool:
    return all(
        not entry["tasks"] and set(entry["objects"]) <= set(entry["objects_to_delete"])
        for entry in client.get_server_info()["workers"]
    )


def empty_after_close() -> float:
    """After close: no task, and no object outside objects_to_delete, on any worker."""
    with Client() as client:
        with client.new_session() as session:
            for _ in range(4):
                sleeping(60.0)
            tasks.concat([blob("a")]).output.keep()
            session.submit()
            time.sleep(0.5)
        return until(lambda: _worker_is_empty(client))


def visible_after_submit() -> float:
    """A running task and its objects are in get_server_info."""
    with Client() as client, client.new_session() as session:
        data = blob("x")
        task = tasks.sleep(2.0, data)
        session.submit()

        def is_visible() -> bool:
            (entry,) = client.get_server_info()["workers"]
            return task.id in entry["tasks"] and {data.id, task.output.id} <= set(entry["objects"])

        return until(is_visible)


def _unneeded_gone(delete_timeout: str | None) -> float:
    before = os.environ.pop("RAIN_DELETE_LIST_TIMEOUT", None)
    if delete_timeout is not None:
        os.environ["RAIN_DELETE_LIST_TIMEOUT"] = delete_timeout
    try:
        with Client() as client, client.new_session() as session:
            tasks.concat([blob("a"), blob("b")])
            session.submit()
            session.wait_all()
            return until(lambda: not any(entry["objects"] for entry in client.get_server_info()["workers"]))
    finally:
        os.environ.pop("RAIN_DELETE_LIST_TIMEOUT", None)
        if before is not None:
            os.environ["RAIN_DELETE_LIST_TIMEOUT"] = before


def unneeded_gone() -> float:
    """Unneeded objects are gone, default delay."""
    return _unneeded_gone(None)


def unneeded_gone_at_once() -> float:
    """Unneeded objects are gone, no delay."""
    return _unneeded_gone("0")


@contextlib.contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A server started by hand, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="rain-levels-") as directory:
        folder = Path(directory)
        command = [sys.executable, "-m", "rain", "server", "--listen", "127.0.0.1:0", "--access-dir", directory]
        command += ["--logdir", f"{directory}/log", "--workdir", f"{directory}/work"]
        command += ["--ready-file", f"{directory}/ready"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            yield process, folder
        finally:
            process.kill()
            process.wait()


def server_ready() -> float:
    """From the start of the process to the ready file."""
    with timed() as result, server_process() as (_, folder):
        until((folder / "ready").exists)
    return result[0]


def sigterm_ends_server() -> float:
    """SIGTERM to the end of the process; its port can be bound at once."""
    with server_process() as (process, folder):
        until((folder / "ready").exists)
        (access,) = folder.glob("*.json")
        port = json.loads(access.read_text())["port"]
        with timed() as result:
            process.send_signal(signal.SIGTERM)
            process.wait()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
    return result[0]


def twenty_workers_ready() -> float:
    """20 workers started together."""
    begin = time.perf_counter()
    with LocalCluster(20, cpus=1, timeout=30.0) as cluster:
        seconds = time.perf_counter() - begin
        with cluster.client() as client:
            assert len(client.get_server_info()["workers"]) == 20
    return seconds


def client_ready() -> float:
    """Client() with its embedded cluster."""
    with timed() as result:
        client = Client()
    client.close()
    return result[0]


def children_gone() -> float:
    """Children of a worker killed by SIGKILL."""
    with Client() as client, client.new_session() as session:
        task = own_pid()
        task.output.keep()
        session.submit()
        executor = psutil.Process(int(task.output.fetch().get_str()))
        (entry,) = client.get_server_info()["workers"]
        worker = psutil.Process(entry["pid"])
        children = worker.children(recursive=True)
        assert executor in children
        worker.kill()
        return until(lambda: not any(_is_alive(child) for child in children))


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


_OWNER = """
import time
from rain.client import Client, remote
client = Client()
@remote()
def work(ctx):
    time.sleep(60)
session = client.new_session(default=True)
[work() for _ in range(4)]
session.submit()
time.sleep(1)
print("running", flush=True)
time.sleep(60)
"""


def nothing_left_after_crash() -> float:
    """Everything of Rain is gone after the owner of an embedded cluster was killed by SIGKILL."""
    before = snapshot()
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with timed() as result:
        check(before)
    return result[0]


def ten_failures() -> float:
    """Worker and executor survive ten failing tasks in a row; the value is 0 if it is the same executor."""
    pids = set()
    with LocalCluster(1, cpus=1) as cluster, cluster.client() as client:
        for _ in range(10):
            with client.new_session() as session:
                task = own_pid()
                task.output.keep()
                session.submit()
                pids.add(task.output.fetch().get_str())
                failing()
                session.submit()
                with contextlib.suppress(TaskException):
                    session.wait_all()
                    raise AssertionError("the task did not fail")
    return float(len(pids) - 1)


LEVELS = [
    Level("four sleeps of 0.5 s on 2 cpus", 0.9, 1.1, four_sleeps),
    Level("one sleep of 0.3 s, submit to wait", 0.2, 0.4, one_sleep),
    Level("fetch of its output after that", 0.0, 0.2, fetch_after_sleep),
    Level("chain of three sleeps of 0.2 s", 0.4, 0.8, chain_of_sleeps),
    Level("sleep of 0.5 s after a concat, wait_all", 0.35, 0.65, sleep_after_concat),
    Level("first Python task that sleeps 0.3 s: info.duration", 0.3, 0.6, first_python_task),
    Level("two Python tasks of 0.5 s with cpus=2 on 2 cpus", 0.9, 1.5, two_wide_python_tasks),
    Level("wait on a finished task; wait_all with nothing submitted", 0.0, 0.1, wait_on_finished),
    Level("Python task after a session over a running one was left", 0.0, 0.3, new_session_after_killed_task),
    Level("session closed: workers empty", 0.0, 0.3, empty_after_close),
    Level("running task and its objects visible", 0.0, 0.2, visible_after_submit),
    Level("unneeded objects gone, default delay", 0.0, 2.0, unneeded_gone),
    Level("unneeded objects gone, no delay", 0.0, 2.0, unneeded_gone_at_once),
    Level("server ready", 0.0, 5.0, server_ready),
    Level("20 workers started together ready", 0.0, 5.0, twenty_workers_ready),
    Level("Client() with its embedded cluster", 0.0, 2.0, client_ready),
    Level("SIGTERM to the end of the server", 0.0, 0.05, sigterm_ends_server),
    Level("children of a killed worker gone", 0.0, 1.0, children_gone),
    Level("nothing left after the owner of an embedded cluster was killed", 0.0, 10.0, nothing_left_after_crash),
    Level("other executors after ten failing tasks", 0.0, 0.0, ten_failures),
]


def measure(level: Level, attempts: int) -> Reading:
    """Measure until the level is kept, at most `attempts` times: the machine may be busy with other things."""
    for attempt in range(attempts):
        reading = Reading(level.what, level.low, level.high, level.measure())
        if reading.kept or attempt == attempts - 1:
            break
    return reading


def table(readings: list[Reading]) -> str:
    """The readings as text."""
    width = max(len(reading.what) for reading in readings)
    lines = [f"{'service level':{width}}  {'limit, s':>12}  {'measured, s':>11}"]
    for reading in readings:
        limit = f"{reading.low:g} .. {reading.high:g}"
        verdict = "" if reading.kept else "  NOT KEPT"
        lines.append(f"{reading.what:{width}}  {limit:>12}  {reading.seconds:11.3f}{verdict}")
    return "\n".join(lines)


def run(attempts: int = 3) -> bool:
    """Measure all, print the table, write it to results; True if all levels are kept."""
    readings = [measure(level, attempts) for level in LEVELS]
    print(table(readings))
    rows = [{"what": r.what, "low": r.low, "high": r.high, "seconds": round(r.seconds, 4)} for r in readings]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "levels.json").write_text(json.dumps(rows, indent=1) + "\n")
    return all(reading.kept for reading in readings)
