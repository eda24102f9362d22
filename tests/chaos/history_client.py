"""A client of the test of lost and duplicated tasks: submits batches and writes down what it did and was told.

    python -m tests.chaos.history_client ADDRESS ACCESS_FILE NAME TASKS STARTS_FILE HISTORY_FILE

Each line of the history is a JSON list: `submit`, `accepted` or `finished`, then the tasks.
"""

from __future__ import annotations

import json
import random
import sys
import time

from rain.client import Client, delayed
from rain.executor.context import get_context
from rain.testing.history import note_start

BATCH = 50
LIMIT = 300.0


def append(log: str, task: str, seconds: float) -> str:
    note_start(log, task, get_context().attempt)
    time.sleep(seconds)
    return task


def main(address: str, access_file: str, name: str, count: int, starts: str, history: str) -> None:
    rng = random.Random(name)
    append_later = delayed(append)
    with open(history, "w", encoding="ascii") as file, Client(address, access_file=access_file) as client:

        def note(what: str, tasks: list[str]) -> None:
            file.write(json.dumps([what, *tasks]) + "\n")
            file.flush()

        with client.new_session(name) as session:
            for start in range(0, count, BATCH):
                names = [f"{name}-{number}" for number in range(start, min(start + BATCH, count))]
                made = [append_later(starts, task, rng.uniform(0.001, 0.03)) for task in names]
                note("submit", names)
                session.submit()
                note("accepted", names)
                for task, called in zip(made, names, strict=True):
                    if task.result(timeout=LIMIT) != called:
                        raise AssertionError(f"another result of {called}")
                note("finished", names)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6])
