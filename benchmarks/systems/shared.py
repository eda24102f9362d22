"""What several adapters need: graphs driven by the client, programs started by functions, what is left behind."""

from __future__ import annotations

import ctypes
import os
import queue
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

from benchmarks.graph import Graph, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from benchmarks.systems import System

    Get = Callable[[], Any]
    """Gives a task's result, or raises what the task raised."""
    Submit = Callable[[Callable[..., Any], list[Any], Callable[[Get], None]], None]
    """Starts a task from a function and arguments; the last is to be called with its Get when it has finished."""

PROGRAM = "/bin/true"
STALLED_SECONDS = 120.0
PR_SET_CHILD_SUBREAPER = 36


def run_program(_: int) -> int:
    """Run PROGRAM; its exit code."""
    return subprocess.call([PROGRAM], stdin=subprocess.DEVNULL)


class ByFunctions:
    """Programs for systems whose tasks are functions: each task starts one."""

    def program(self: System, count: int) -> None:
        """One function call per program."""
        if any(self.map(run_program, range(count))):
            raise RuntimeError(f"{PROGRAM} failed")


def of_future(submit: Callable[..., Future[Any]]) -> Submit:
    """A Submit for a method that returns a future."""

    def start(function: Callable[..., Any], values: list[Any], done: Callable[[Get], None]) -> None:
        submit(function, *values).add_done_callback(lambda future: done(future.result))

    return start


def private_folder(name: str) -> str:
    """A new folder; temporary files of this process and its children go there too, for systems leave some behind."""
    folder = tempfile.mkdtemp(prefix=f"{name}-")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    return folder


def adopt_orphans() -> None:
    """From now on, descendants whose parent has ended are children of this process instead of init's.

    Raises:
        OSError: the system refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def substitute(arguments: Sequence[Any], results: Any) -> list[Any]:
    """The arguments of a node with `results[index]` in place of each `Result`."""
    return [results[item.node] if isinstance(item, Result) else item for item in arguments]


def drive(graph: Graph, submit: Submit) -> list[Any]:
    """Run a graph on a system without graphs: submit what is ready whenever something has finished."""
    results: dict[int, Any] = {}
    consumers: dict[int, list[int]] = {}
    missing = [0] * len(graph.nodes)
    finished: queue.SimpleQueue[tuple[int, Get]] = queue.SimpleQueue()

    def start(index: int) -> None:
        function, arguments = graph.nodes[index]
        submit(function, substitute(arguments, results), lambda get: finished.put((index, get)))

    for index, (_, arguments) in enumerate(graph.nodes):
        inputs = {item.node for item in arguments if isinstance(item, Result)}
        missing[index] = len(inputs)
        for node in inputs:
            consumers.setdefault(node, []).append(index)
    for index, count in enumerate(missing):
        if not count:
            start(index)
    while len(results) < len(graph.nodes):
        index, get = finished.get(timeout=STALLED_SECONDS)
        results[index] = get()
        for consumer in consumers.get(index, ()):
            missing[consumer] -= 1
            if not missing[consumer]:
                start(consumer)
    return [results[index] for index in graph.wanted]
