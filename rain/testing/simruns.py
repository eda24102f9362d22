"""Many simulated clusters: in processes, with a summary that can be kept.

    python -m rain.testing.simruns --first 0 --seeds 100000 --results simulation.json

The seeds run in pieces; after each one a record is appended to the results: first seed, number of seeds, faults by
kind, breaks by type of message, how the clients fared, and the text of each failure.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.testing.simcluster import run_seed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

PIECE = 500
"""Seeds of one record."""


@dataclass(slots=True)
class Summary:
    """What became of some seeds.

    Attributes:
        first, seeds: which ones.
        cpu_seconds: of all.
        ends: clients, by kind of seed and how they fared.
        faults: played, by name.
        breaks: connections broken at a message, by type of the message and kind of break.
        messages: sent, by type.
        blocks: assigned; linked: of these, the linked ones.
        failures: text of the error, by seed.
    """

    first: int
    seeds: int = 0
    cpu_seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    breaks: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    linked: int = 0
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, other: Summary) -> None:
        """Take in the summary of other seeds."""
        self.first = min(self.first, other.first)
        self.seeds += other.seeds
        self.cpu_seconds += other.cpu_seconds
        self.ends += other.ends
        self.faults += other.faults
        self.breaks += other.breaks
        self.messages += other.messages
        self.blocks += other.blocks
        self.linked += other.linked
        self.failures |= other.failures

    def to_record(self) -> dict[str, Any]:
        """The same as plain data, sorted."""
        record = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: dict(sorted(one.items())) if isinstance(one, dict) else one for name, one in record.items()}


def run_seeds(seeds: range) -> Summary:
    """Run seeds one after the other, in this process."""
    logger = logging.getLogger("rain")
    level = logger.level
    logger.setLevel(logging.ERROR)  # warnings of lost workers are expected, and many
    summary = Summary(seeds.start)
    began = time.process_time()
    for seed in seeds:
        summary.seeds += 1
        try:
            cluster = run_seed(seed)
        except AssertionError as error:
            summary.failures[seed] = str(error)
            continue
        summary.ends.update(f"{cluster.plan.kind} {outcome.end}" for outcome in cluster.outcomes)
        summary.faults += cluster.faults.played
        summary.breaks += Counter({" ".join(key): count for key, count in cluster.net.sabotage.hits.items()})
        summary.messages += cluster.messages
        summary.blocks += cluster.blocks
        summary.linked += cluster.linked
    logger.setLevel(level)
    summary.cpu_seconds = round(time.process_time() - began, 2)
    return summary


def processes(count: int | None = None) -> Executor:
    """A pool of fresh processes for `run_parts`, as many as there are cpus."""
    return ProcessPoolExecutor(count or len(os.sched_getaffinity(0)), mp_context=get_context("spawn"))


def run_parts(seeds: range, pool: Executor, part: int = 25) -> Summary:
    """Run seeds in the processes of a pool."""
    parts: Iterable[range] = (seeds[start : start + part] for start in range(0, len(seeds), part))
    total = Summary(seeds.start)
    for summary in pool.map(run_seeds, parts):
        total.add(summary)
    return total


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append to a JSON file that holds a list."""
    records = json.loads(path.read_text()) if path.exists() else []
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps([*records, record], indent=1) + "\n")
    unfinished.replace(path)


def main() -> int:
    """Run what the arguments say; 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m rain.testing.simruns", description="Simulate many clusters.")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--processes", type=int, help="default: one per cpu")
    parser.add_argument("--results", type=Path, help="JSON file to which a record is appended for each 500 seeds")
    options = parser.parse_args()
    failed = 0
    seeds = range(options.first, options.first + options.seeds)
    with processes(options.processes) as pool:
        for start in range(0, len(seeds), PIECE):
            piece = seeds[start : start + PIECE]
            summary = run_parts(piece, pool)
            failed += len(summary.failures)
            if options.results is not None:
                append_record(options.results, summary.to_record())
            for text in summary.failures.values():
                print(text, flush=True)
            per_seed = summary.cpu_seconds / summary.seeds * 1000
            print(f"seeds {piece.start} to {piece.stop - 1}: {len(summary.failures)} failed, {per_seed:.0f} ms each")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
