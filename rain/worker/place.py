"""What a worker makes before most of it is imported: directories, a guard, an executor, which starts meanwhile."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain.common.structs import dataclass
from rain.net.address import Address
from rain.process.guard import Guard
from rain.process.limits import raise_descriptor_limit
from rain.process.workdir import SetupError, WorkDirectory, claim_workdir, make_log_directory
from rain.worker.detect import offered_resources
from rain.worker.executor_process import EXECUTORS, FIRST, WORK, ExecutorProcess, python_command

if TYPE_CHECKING:
    from rain.worker.options import WorkerOptions

log = logging.getLogger("rain.worker")

DATA, SANDBOXES = "data", "tmp"
SUBDIRECTORIES = (DATA, SANDBOXES, WORK)
"""Folders of the work directory."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is there.

    Attributes:
        listen: the data port, None: where the connection to the server comes from.
        resources: as announced.
        commands: of configured executor types.
        logdir, workdir: its directories.
        guard: is told of all executors.
        first: the executor with the number FIRST, None if it was not started.
    """

    listen: Address | None
    resources: dict[str, Any]
    commands: dict[str, list[str]]
    logdir: Path
    workdir: WorkDirectory
    guard: Guard
    first: ExecutorProcess | None

    def leave(self, clean: bool) -> None:
        """Remove the work directory.

        Args:
            clean: everything was stopped; if not, the guard does it when this process is gone.
        """
        if clean:
            self.workdir.remove()
            self.guard.close()
        else:
            self.guard.add_path(self.workdir.path)


def take_place(options: WorkerOptions) -> Place | None:
    """Make what a worker with these options needs; None if it cannot start, which is logged."""
    raise_descriptor_limit()
    try:
        listen = None if options.listen is None else Address.parse(options.listen, default_port=0)
        resources = offered_resources(options)
        commands = {} if options.config is None else _configured(options.config)
        name = f"worker-{os.uname().nodename}-{os.getpid()}"
        logdir = make_log_directory(options.logdir or f"/tmp/rain-logs/{name}", (EXECUTORS,))
        workdir = claim_workdir(options.workdir or f"/tmp/rain-work/{name}", SUBDIRECTORIES)
    except (SetupError, ValueError) as error:
        log.error("The worker cannot start: %s", error)
        return None
    guard = Guard()
    if options.workdir is None or options.owner_fd is not None:
        guard.add_path(workdir.path)
    first = None
    if options.spare_executors and "py" not in commands:
        first = _first_executor(workdir.path / WORK, logdir / EXECUTORS, guard)
    return Place(listen, resources, commands, logdir, workdir, guard, first)


def _configured(config: str) -> dict[str, list[str]]:
    from rain.worker.config import read_executor_commands

    return read_executor_commands(config)


def _first_executor(work: Path, logs: Path, guard: Guard) -> ExecutorProcess | None:
    try:
        process = ExecutorProcess(FIRST, python_command(), (), work=work, logs=logs)
    except OSError as error:
        log.warning("No executor is started ahead: %s", error)
        return None
    guard.add_group(process.pid)
    return process
