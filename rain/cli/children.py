"""Processes that `rain start` starts and, when all are ready, leaves running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.common.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

POLL_SECONDS = 0.02
TAIL_BYTES = 4096
KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Child:
    """One started process.

    Attributes:
        name: `server`, `worker-0`, ...
        ready_file: appears when it is ready.
        error_log: what it wrote to stderr.
    """

    name: str
    process: subprocess.Popen[bytes]
    ready_file: Path
    error_log: Path


def spawn(name: str, command: Sequence[str], logdir: Path) -> Child:
    """Start a program in a session of its own, its output going to `<logdir>/<name>.{out,err}`.

    Args:
        name: names its files.
        command: `--ready-file FILE` is added.
        logdir: exists.

    Raises:
        RainException: the program cannot be started.
    """
    ready_file = logdir / f"{name}.ready"
    ready_file.unlink(missing_ok=True)
    error_log = logdir / f"{name}.err"
    with (logdir / f"{name}.out").open("wb") as output, error_log.open("wb") as errors:
        try:
            process = subprocess.Popen(
                [*command, "--ready-file", str(ready_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise RainException(f"{name} cannot be started: {command[0]}: {error.strerror}") from error
    return Child(name, process, ready_file, error_log)


def wait_ready(children: Sequence[Child], waiting_for: Sequence[Child], timeout: float) -> None:
    """Wait until some children are ready and none has died.

    Args:
        children: none of these may end.
        waiting_for: those to wait for.
        timeout: seconds.

    Raises:
        RainException: one has ended, or is not ready in time; with the last lines of its log.
    """
    deadline = time.monotonic() + timeout
    while True:
        for child in children:
            code = child.process.poll()
            if code is not None:
                raise RainException(_complaint(child, f"ended with {_status(code)}"))
        late = [child for child in waiting_for if not child.ready_file.exists()]
        if not late:
            break
        if time.monotonic() > deadline:
            raise RainException(_complaint(late[0], f"was not ready within {format_duration(timeout)}"))
        time.sleep(POLL_SECONDS)
    for child in waiting_for:
        child.ready_file.unlink(missing_ok=True)


def kill_all(children: Sequence[Child]) -> None:
    """Kill the process groups of all children and wait for their ends."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.ready_file.unlink(missing_ok=True)
    for child in children:
        child.process.wait(KILL_SECONDS)


def _complaint(child: Child, what: str) -> str:
    lines = _tail(child.error_log)
    text = f"{child.name} {what}; all started processes were killed. Its log: {child.error_log}"
    return f"{text}\n{lines}" if lines else f"{text} (empty)"


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
        return log.read().decode("utf-8", "replace").strip()


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
