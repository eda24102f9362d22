"""What the worker core costs per trivial task: assigned, sent to an executor, ended.

    python -m benchmarks.worker_core [--tasks 100000] [--repeat 5]

A fake executor answers each batch at once; only the time inside `handle` counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import deque

from rain.protocol.messages import AssignTasks, TasksDone
from rain.testing.worker_builders import InputOf, TaskOf, assign_tasks, packed_template
from rain.worker.core.actions import CallExecutor, StartExecutor, TellServer, WorkerAction
from rain.worker.core.core import WorkerCore
from rain.worker.core.events import ExecutorReady, RunResult, RunsEnded, ServerSaid, WorkerEvent

FUNCTION = 10


def assignments(tasks: int, chunk: int, *, chain: bool) -> list[AssignTasks]:
    """Messages that assign the tasks; in a chain each needs the one before, in blocks of `chunk`."""
    messages = []
    for start in range(0, tasks, chunk):
        column = []
        for number in range(start, min(start + chunk, tasks)):
            inputs = (FUNCTION, 19 + number) if chain and number > start else (FUNCTION,)
            column.append(TaskOf(1_000_000 + number, inputs, (20 + number,)))
        first = start == 0
        messages.append(
            assign_tasks(
                column,
                templates={0: packed_template("py/f", outputs=[{}])} if first else None,
                objects=[InputOf(FUNCTION, b"function")] if first else (),
            )
        )
    return messages


def measure(tasks: int, chunk: int, cpus: int, *, chain: bool) -> float:
    """Seconds inside `handle`, per task."""
    core = WorkerCore(resources={"cpus": cpus}, spare_executors=0)
    spent, now, done = 0.0, 0.0, 0
    pending: list[list[WorkerEvent]] = [[ServerSaid(message)] for message in assignments(tasks, chunk, chain=chain)]
    pending.reverse()
    answers: deque[list[WorkerEvent]] = deque()
    while pending or answers:
        events = answers.popleft() if answers else pending.pop()
        started = time.perf_counter()
        actions = core.handle(events, now)
        spent += time.perf_counter() - started
        now += 1e-4
        done += sum(len(message.tasks) for message in _done(actions))
        answers.extend(_answers(actions))
    if done != tasks:
        raise RuntimeError(f"{done} of {tasks} tasks are done")
    return spent / tasks


def _done(actions: list[WorkerAction]) -> list[TasksDone]:
    return [a.message for a in actions if isinstance(a, TellServer) and isinstance(a.message, TasksDone)]


def _answers(actions: list[WorkerAction]) -> list[list[WorkerEvent]]:
    answers: list[list[WorkerEvent]] = []
    for action in actions:
        if isinstance(action, StartExecutor):
            answers.append([ExecutorReady(action.executor)])
        elif isinstance(action, CallExecutor):
            results = [RunResult(run.key, 1.0, 2e-6, None, [(5, None, b"value")]) for run in action.runs]
            answers.append([RunsEnded(action.executor, list(results), [(1, FUNCTION)])])
    return answers


def main() -> None:
    """Print one JSON line per workload, microseconds per task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=2048, help="tasks per assignment")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    for name, chain in (("independent", False), ("chains", True)):
        times = [measure(options.tasks, options.chunk, options.cpus, chain=chain) for _ in range(options.repeat)]
        print(json.dumps({"workload": name, "us_per_task": round(min(times) * 1e6, 3), "repeat": options.repeat}))


if __name__ == "__main__":
    main()
