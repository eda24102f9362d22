"""Workers and executors are killed and paused under load: the results are those of a fault-free run."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rain.client import LocalCluster
from rain.testing.chaos import KILL_EXECUTOR, KILL_WORKER, PAUSE_WORKER, ChaosMonkey, Harm
from rain.testing.history import judge, read_starts
from tests.chaos.loads import ArrayLoad, TreeLoad

WORKERS = 4
MAX_RATIO = 1.3
"""Starts per task."""

SLOW_MINUTES = float(os.environ.get("RAIN_CHAOS_MINUTES", "10"))

HARM = Harm(kill_worker=2.0, kill_executor=1.0, pause_worker=10.0)


def run_under_harm(load: TreeLoad | ArrayLoad, harm: Harm, seed: int, folder: Path, limit: float) -> ChaosMonkey:
    """Run the load on a new cluster that suffers; checks results, starts and their number."""
    log = folder / f"starts-{seed}"
    logs = folder / f"logs-{seed}"
    with LocalCluster(WORKERS, cpus=1, timeout=60, logdir=logs) as cluster, cluster.client() as client:
        with ChaosMonkey(cluster, harm, seed=seed) as monkey, client.new_session() as session:
            begin = time.monotonic()
            digest = load.run(session, str(log), limit)
            seconds = time.monotonic() - begin
        monkey.check_survivors()
    assert digest == load.expected()
    inputs = load.inputs()
    verdict = judge(inputs, inputs, read_starts(log), monkey.victims(), inputs)
    verdict.check()
    print(f"{load.__class__.__name__} seed {seed}: {verdict.ratio:.3f} starts per task, {seconds:.1f} s, {monkey}")
    assert verdict.ratio <= MAX_RATIO
    return monkey


def test_trees(tmp_path: Path) -> None:
    """3,000 tasks of 1-50 ms, 200 MB."""
    load = TreeLoad(trees=125, bytes=200_000_000, seconds=(0.001, 0.05), seed=1)
    monkey = run_under_harm(load, HARM, 1, tmp_path, 100)
    assert monkey.count(KILL_WORKER) >= 3
    assert monkey.count(KILL_EXECUTOR) >= 5
    assert monkey.count(PAUSE_WORKER) >= 1


def test_arrays(tmp_path: Path) -> None:
    load = ArrayLoad(members=500, size=2_000, seconds=(0.001, 0.04), seed=2)
    monkey = run_under_harm(load, Harm(kill_worker=2.0, kill_executor=1.0, pause_worker=5.0), 2, tmp_path, 100)
    assert monkey.count(KILL_WORKER) >= 1
    assert monkey.count(KILL_EXECUTOR) >= 2


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_long(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """`RAIN_CHAOS_MINUTES` (10) of both loads; workers are also paused until they count as lost, and come back."""
    loads = workers = executors = 0
    end = time.monotonic() + 60 * SLOW_MINUTES
    seed = random.SystemRandom().randrange(1 << 30)
    while time.monotonic() < end:
        seed += 1
        seconds = (1.0, 25.0) if seed % 3 == 0 else (1.0, 4.0)
        harm = Harm(kill_worker=2.0, kill_executor=1.0, pause_worker=10.0, pause_seconds=seconds)
        load: TreeLoad | ArrayLoad
        if seed % 2:
            load = TreeLoad(trees=125, bytes=200_000_000, seconds=(0.001, 0.05), seed=seed)
        else:
            load = ArrayLoad(members=1000, size=2_000, seconds=(0.001, 0.05), seed=seed)
        monkey = run_under_harm(load, harm, seed, tmp_path, 600)
        loads += 1
        workers += monkey.count(KILL_WORKER)
        executors += monkey.count(KILL_EXECUTOR)
    for name, count in (("loads", loads), ("workers killed", workers), ("executors killed", executors)):
        record_property(name, count)
