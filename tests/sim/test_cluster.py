"""Whole clusters from seeds: faults of all kinds, and everything finishes or fails as it must.

`RAIN_SIM_SEEDS=N` runs N seeds instead of 2000, in as many processes as there are cpus. Seeds that failed once stay in
seeds.txt and run first. `make soak` runs more of them with `rain.testing.simruns`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rain.testing.faults import DRAIN, FAULTS
from rain.testing.simcluster import run_seed
from rain.testing.simplan import BREAKING, KINDS
from rain.testing.simruns import Summary, processes, run_parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

SEEDS = int(os.environ.get("RAIN_SIM_SEEDS", "2000"))
CHUNK = 200
ALL_BREAKS = 2000
"""Among so many seeds each kind of break must have hit each type of message."""
UNEXPECTED = {"ListRuns", "WorkerRuns"}
"""Messages that follow when server and worker disagree about what runs where."""

KEPT = [
    (int(words[0]), words[1])
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if (words := line.split("#")[0].split())
]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """The servers' warnings of lost workers are expected, and many."""
    logger = logging.getLogger("rain")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with processes() as started:
        yield started


@pytest.fixture(scope="module")
def total() -> Summary:
    """Of all chunks that have run."""
    return Summary(0)


@pytest.mark.parametrize(("seed", "kind"), KEPT)
def test_seeds_that_failed_once(seed: int, kind: str) -> None:
    run_seed(seed, kind)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_cluster(first: int, pool: Executor, total: Summary) -> None:
    summary = run_parts(range(first, min(first + CHUNK, SEEDS)), pool)
    assert not summary.failures, "\n\n".join(summary.failures.values())
    assert not UNEXPECTED & set(summary.messages)
    total.add(summary)


def test_every_kind_of_fault_was_met(total: Summary) -> None:
    if total.seeds < CHUNK:
        pytest.skip(f"only {total.seeds} seeds ran")
    assert set(total.faults) == {*FAULTS, DRAIN}
    assert total.blocks > total.seeds / 2
    assert total.linked > total.seeds / 20
    for kind in KINDS:
        assert sum(count for end, count in total.ends.items() if end.startswith(kind)) > total.seeds / len(KINDS)


def test_connections_broke_at_every_type_of_message(total: Summary) -> None:
    if total.seeds < ALL_BREAKS:
        pytest.skip(f"only {total.seeds} seeds ran")
    missed = {f"{message} {kind}" for message, kind in BREAKING} - set(total.breaks)
    assert not missed
