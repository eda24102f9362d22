"""The monkey does what it says, and notices harm which is not its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rain.client import LocalCluster
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.chaos import KILL_EXECUTOR, KILL_WORKER, PAUSE_WORKER, ChaosMonkey, Harm, errors_in_logs
from rain.testing.leaks import no_leaks

pytestmark = pytest.mark.cluster

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open


def until(condition: Callable[[], object], limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def status(pid: int) -> str | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).status())
    return None


def test_it_kills_and_pauses(tmp_path: Path) -> None:
    harm = Harm(kill_worker=0.5, kill_executor=0.3, pause_worker=0.4, pause_seconds=(0.1, 0.2))
    with no_leaks(), LocalCluster(2, cpus=1, timeout=60, logdir=tmp_path) as cluster:
        with ChaosMonkey(cluster, harm, seed=1) as monkey:
            until(lambda: min(monkey.count(what) for what in (KILL_WORKER, KILL_EXECUTOR, PAUSE_WORKER)) >= 2)
        for deed in monkey.deeds:
            if deed.what != PAUSE_WORKER:
                until(lambda pid=deed.pid: status(pid) in (None, psutil.STATUS_ZOMBIE))
            else:
                assert status(deed.pid) != psutil.STATUS_STOPPED
        assert {deed.pid for deed in monkey.deeds} == monkey.victims()
        with cluster.client() as client:
            until(lambda: len(client.get_server_info()["workers"]) == 2)
        monkey.check_survivors()


def test_a_worker_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    with no_leaks(), LocalCluster(2, cpus=1, timeout=60, logdir=tmp_path) as cluster:
        with ChaosMonkey(cluster, Harm(), seed=1) as monkey:
            process = cluster._group.processes[1]
            process.popen.kill()
            process.popen.wait(10)
        with pytest.raises(AssertionError, match="worker-0 ended by itself with -9"):
            monkey.check_survivors()


def test_an_error_of_the_monkey_is_raised(tmp_path: Path) -> None:
    with no_leaks(), LocalCluster(2, cpus=1, timeout=60, logdir=tmp_path) as cluster:
        harm = Harm(kill_worker=0.01)
        with pytest.raises(ValueError, match="cpu"), ChaosMonkey(cluster, harm, seed=1, cpus=0) as monkey:
            until(lambda: not monkey._thread.is_alive())


def test_errors_in_logs(tmp_path: Path) -> None:
    (tmp_path / "server.err").write_text("12:00 INFO rain.server: fine\n12:01 ERROR rain.server: not fine\n")
    (tmp_path / "worker-0.err").write_text("12:00 WARNING rain.worker: lost the server\n")
    assert errors_in_logs(tmp_path) == ["server.err: 12:01 ERROR rain.server: not fine"]
