"""Equal seeds give equal runs, in another process with another hash seed too."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from rain.testing.simcluster import run_seed

SEEDS = range(1000, 1020)

PROGRAM = """
import json, logging, sys
from rain.testing.simcluster import run_seed
logging.disable(logging.ERROR)
seeds = map(int, sys.argv[1:])
print(json.dumps({seed: run_seed(seed, full_trace=True).loop.trace_hash() for seed in seeds}))
"""


@pytest.fixture(scope="module")
def hashes() -> dict[int, str]:
    logging.disable(logging.ERROR)
    found = {seed: run_seed(seed, full_trace=True).loop.trace_hash() for seed in SEEDS}
    logging.disable(logging.NOTSET)
    return found


def test_seeds_differ(hashes: dict[int, str]) -> None:
    assert len(set(hashes.values())) == len(SEEDS)


def test_the_same_again(hashes: dict[int, str]) -> None:
    logging.disable(logging.ERROR)
    again = {seed: run_seed(seed, full_trace=True).loop.trace_hash() for seed in SEEDS}
    logging.disable(logging.NOTSET)
    assert again == hashes


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
