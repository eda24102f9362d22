"""Processes that `rain start` starts and, when all are ready, leaves running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.launch.processes import LocalProcess, child_environment, wait_ready

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KILL_SECONDS = 5.0


class Children:
    """Started processes. They belong to nobody; but an exception in a `with` block of this kills all of them.

    Args:
        logdir: exists; gets `<name>.out` and `<name>.err` of each.
    """

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        self._processes: list[LocalProcess] = []
        # what starts a cluster is meant for its processes, unlike what points an embedded one elsewhere
        own = {name: value for name, value in os.environ.items() if name.startswith("RAIN_")}
        self._environment = {**child_environment(os.environ), **own}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for process in self._processes:
            process.ready_file.unlink(missing_ok=True)
        if error is not None:
            self.kill()

    def start(self, name: str, command: Sequence[str]) -> LocalProcess:
        """Start a program in a session of its own.

        Args:
            name: names its files.
            command: `--ready-file FILE` is added.

        Raises:
            RainException: the program cannot be started.
        """
        ready_file = self._logdir / f"{name}.ready"
        ready_file.unlink(missing_ok=True)
        log = self._logdir / f"{name}.err"
        with (self._logdir / f"{name}.out").open("wb") as output, log.open("wb") as errors:
            try:
                popen = subprocess.Popen(
                    [*command, "--ready-file", str(ready_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise RainException(f"The {name} cannot be started: {command[0]}: {error.strerror}") from error
        self._processes.append(LocalProcess(name, popen, ready_file, log))
        return self._processes[-1]

    def wait_ready(self, waiting_for: Sequence[LocalProcess], timeout: float) -> None:
        """Wait until some are ready and none has ended.

        Args:
            waiting_for: these.
            timeout: seconds.

        Raises:
            RainException: one has ended, or is not ready in time; with the last lines of its log.
        """
        try:
            wait_ready(waiting_for, self._processes, time.monotonic() + timeout)
        except RainException as error:
            raise RainException(f"{error}\nAll started processes were killed. Logs: {self._logdir}") from error

    def kill(self) -> None:
        """Kill the process groups of all and wait for their ends."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
        for process in self._processes:
            process.popen.wait(KILL_SECONDS)
