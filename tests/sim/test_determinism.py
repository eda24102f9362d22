"""Equal seeds give equal runs, in another process with another hash seed too."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rain.testing.simcluster import run_seed
from rain.testing.simplan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = range(1000, 1050)

PROGRAM = """
import json, logging, sys
from rain.testing.simcluster import run_seed
logging.getLogger("rain").setLevel(logging.ERROR)
seeds = map(int, sys.argv[1:])
print(json.dumps({seed: run_seed(seed, full_trace=True).loop.trace_hash() for seed in seeds}))
"""


def hashes_here() -> dict[int, str]:
    return {seed: run_seed(seed, full_trace=True).loop.trace_hash() for seed in SEEDS}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("rain")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def hashes() -> dict[int, str]:
    return hashes_here()


def test_seeds_differ(hashes: dict[int, str]) -> None:
    assert len(set(hashes.values())) == len(SEEDS)


def test_the_same_again(hashes: dict[int, str]) -> None:
    assert hashes_here() == hashes


def test_the_same_in_another_process(hashes: dict[int, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, SEEDS)],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert {int(seed): text for seed, text in json.loads(done.stdout).items()} == hashes


def test_the_clock_on_the_wall_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types and times of all messages are the same whether it jumps by an hour or stays."""
    jumping = [seed for seed in SEEDS if any(name == "clock_jump" for _, name in Plan.of_seed(seed).faults)]
    assert len(jumping) > 3
    hashes = [run_seed(seed).loop.trace_hash() for seed in jumping]
    monkeypatch.setattr("rain.testing.faults.HOUR", 0.0)
    assert [run_seed(seed).loop.trace_hash() for seed in jumping] == hashes
