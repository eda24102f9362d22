"""A cluster without work costs nothing, and notices a worker that fell silent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from rain.client import LocalCluster
from rain.testing.usage import usage

WATCHED_SECONDS = 10.0
MAX_SHARE = 0.01
"""Of one cpu, per process."""

DETECTION_SECONDS = 15.0
TOLERANCE = 0.2


def square(number: int) -> int:
    return number * number


def test_idle_cluster_and_silent_worker(tmp_path: Path) -> None:
    with LocalCluster(2, cpus=1, timeout=60, logdir=tmp_path / "logs") as cluster, cluster.client() as client:
        with client.new_session() as session:
            assert session.map(square, range(50)).result(timeout=60) == [n * n for n in range(50)]
        server, idle, silent = (process.popen.pid for process in cluster._group.processes)
        time.sleep(2.0)  # executors that were started ahead are up, deleted values gone
        watched = {"server": server, "worker": idle, "client": os.getpid()}
        os.kill(silent, signal.SIGSTOP)
        stopped = time.monotonic()
        before = {name: usage(pid).cpu for name, pid in watched.items()}
        time.sleep(WATCHED_SECONDS)
        shares = {name: (usage(pid).cpu - before[name]) / WATCHED_SECONDS for name, pid in watched.items()}
        log = tmp_path / "logs" / "server.err"
        limit = DETECTION_SECONDS * (1 + TOLERANCE) + 5.0  # heartbeats come every 5 s, the last one just before
        while "no sign of life" not in log.read_text():
            assert time.monotonic() - stopped < limit, "the silent worker was not noticed"
            time.sleep(0.05)
        seconds = time.monotonic() - stopped
        assert len(client.get_server_info()["workers"]) == 1
        with client.new_session() as session:
            assert session.map(square, range(50)).result(timeout=60) == [n * n for n in range(50)]
        os.kill(silent, signal.SIGCONT)
    print(f"cpu shares {shares}, silence noticed after {seconds:.1f} s")
    assert max(shares.values()) < MAX_SHARE, shares
    assert seconds > DETECTION_SECONDS * (1 - TOLERANCE) - 5.0
