"""What HyperQueue has not: values between functions, here through files; waiting that ends at once."""

from __future__ import annotations

import contextlib
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.graph import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ASK_AGAIN_SECONDS = 0.005
"""HyperQueue's own client asks only once a second whether a job has finished."""


def run_node(function: Callable[..., Any], arguments: Sequence[Any], folder: str, index: int) -> None:
    """In the task: results of other nodes come from files, its own goes into a file."""
    values = [load(folder, item.node) if isinstance(item, Result) else item for item in arguments]
    Path(folder, str(index)).write_bytes(pickle.dumps(function(*values), protocol=5))


def load(folder: str, index: int) -> Any:
    """The result of a node."""
    return pickle.loads(Path(folder, str(index)).read_bytes())


class NotYet(Exception):
    """The job is running."""


def only_completed(jobs: dict[int, dict[str, Any]]) -> None:
    """Called with what is known of the jobs each time they have been looked at."""
    if not all(job["completed"] for job in jobs.values()):
        raise NotYet


def finish(client: Any, job: Any) -> None:
    """Submit a job and wait for it."""
    submitted = client.submit(job)
    while True:
        with contextlib.suppress(NotYet):
            if client.connection.wait_for_jobs([submitted.id], only_completed):
                raise RuntimeError(f"HyperQueue: {client.get_failed_tasks(submitted)}")
            return
        time.sleep(ASK_AGAIN_SECONDS)
