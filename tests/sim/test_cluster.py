"""Whole clusters from seeds: faults of all kinds, and everything finishes or fails as it must.

`RAIN_SIM_SEEDS=N` runs N seeds instead of 500; with `-m slow` (in `make soak`) `RAIN_SIM_SLOW_SEEDS=N` further ones.
Seeds that failed once stay in seeds.txt and run first.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rain.testing.simcluster import run_seed

SEEDS = int(os.environ.get("RAIN_SIM_SEEDS", "500"))
SLOW_SEEDS = int(os.environ.get("RAIN_SIM_SLOW_SEEDS", "2000"))
CHUNK = 50

KEPT = [
    int(line.split("#")[0])
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if line.split("#")[0].strip()
]


@pytest.fixture(autouse=True)
def quiet() -> object:
    """The servers' warnings of lost workers are expected, and many."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", KEPT)
def test_seeds_that_failed_once(seed: int) -> None:
    run_seed(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_cluster(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        run_seed(seed)


@pytest.mark.parametrize("first", range(0, SEEDS // 2, CHUNK))
def test_sessions_that_go_on_and_cancelling(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS // 2)):
        run_seed(seed, tolerant=True)


@pytest.mark.parametrize("first", range(0, SEEDS // 2, CHUNK))
def test_task_arrays(first: int) -> None:
    blocks = 0
    for seed in range(first, min(first + CHUNK, SEEDS // 2)):
        blocks += run_seed(seed, tolerant=seed % 3 == 0, arrays=True).blocks
    assert blocks > CHUNK


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_clusters() -> None:
    for seed in range(SEEDS, SEEDS + SLOW_SEEDS):
        run_seed(seed, arrays=seed % 2 > 0)
