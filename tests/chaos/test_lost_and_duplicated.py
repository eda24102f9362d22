"""Clients note what they submit and are told, tasks note their starts, workers are killed: the notes must agree."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from rain.client import LocalCluster
from rain.testing.chaos import KILL_WORKER, ChaosMonkey, Harm
from rain.testing.history import judge, read_starts

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 5
PROGRAM = "tests.chaos.history_client"


def read_history(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text("ascii").splitlines():
        what, *tasks = json.loads(line)
        found[what] += tasks
    return found


def run_clients(tasks: int, folder: Path, limit: float) -> None:
    starts = folder / "starts"
    histories = [folder / f"history-{number}" for number in range(CLIENTS)]
    with LocalCluster(4, cpus=1, timeout=60, logdir=folder / "logs") as cluster:
        begin = time.monotonic()
        with ChaosMonkey(cluster, Harm(kill_worker=1.0), seed=tasks) as monkey:
            commands = [
                [cluster.address, cluster.access_file, f"client{number}", str(tasks // CLIENTS), str(starts), str(path)]
                for number, path in enumerate(histories)
            ]
            clients = [
                subprocess.Popen([sys.executable, "-m", PROGRAM, *arguments], cwd=ROOT) for arguments in commands
            ]
            try:
                codes = [client.wait(max(begin + limit - time.monotonic(), 0.0)) for client in clients]
            finally:
                for client in clients:
                    client.kill()
                    client.wait()
            seconds = time.monotonic() - begin
        monkey.check_survivors()
    assert codes == [0] * CLIENTS
    seen = [read_history(path) for path in histories]
    submitted, accepted, finished = (
        [task for one in seen for task in one[what]] for what in ("submit", "accepted", "finished")
    )
    assert len(set(submitted)) == tasks
    assert submitted == accepted == finished
    verdict = judge(submitted, finished, read_starts(starts), monkey.victims())
    print(f"{tasks} tasks of {CLIENTS} clients: {verdict.starts} starts, {seconds:.1f} s, {monkey}")
    verdict.check()
    assert monkey.count(KILL_WORKER) >= 3


def test_two_thousand(tmp_path: Path) -> None:
    run_clients(2000, tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_fifty_thousand(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    record_property("ids", 50_000)
    run_clients(50_000, tmp_path, 3600)
