"""Tasks that write down when and where they run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rain.client import remote

HOST_VARIABLE = "RAIN_NET_TEST_HOST"
"""In the environment of workers; tells tasks where they run."""
MOMENT = 0.3


def mark(path: str, what: str, task: str) -> None:
    line = f"{what} {task} {os.environ[HOST_VARIABLE]} {os.getpid()} {time.monotonic():.3f}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@remote()
def work(ctx: Any, history: str, task: str, seconds: float, *inputs: Any) -> str:
    """Takes `seconds`, but the second time no longer than a moment; the result says which run it is of."""
    again = f"start {task} " in Path(history).read_text() if os.path.exists(history) else False
    mark(history, "start", task)
    time.sleep(min(seconds, MOMENT) if again else seconds)
    mark(history, "end", task)
    return f"{os.environ[HOST_VARIABLE]} {os.getpid()} {task}"


@remote()
def linger(ctx: Any, history: str, task: str, host: str) -> str:
    """Takes very long on one host, the first time."""
    again = f"start {task} " in Path(history).read_text()
    mark(history, "start", task)
    time.sleep(MOMENT if again or os.environ[HOST_VARIABLE] != host else 1000)
    mark(history, "end", task)
    return "done"


@remote()
def make(ctx: Any, history: str, task: str, size: int) -> bytes:
    """A value of `size` bytes."""
    mark(history, "start", task)
    return bytes(value % 251 for value in range(1000)) * (size // 1000)


@remote()
def measure(ctx: Any, history: str, task: str, *values: Any) -> str:
    """The sizes of values and sums of some of their bytes."""
    mark(history, "start", task)
    found = [value.get_bytes() for value in values]
    return " ".join(f"{len(data)}:{sum(data[:: max(1, len(data) // 1000)])}" for data in found)
