"""How a worker starts its executors: the commands of their types, and where they live."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.worker.executor_process import EXECUTORS, WORK, ExecutorProcess, python_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)


class ExecutorStarts:
    """Starts executors.

    Args:
        workdir: work directories are made in `executors/work` below it.
        logdir: logs are written to `executors` below it.
        values: large results are written to directories below it; None: there are none.
        commands: command per executor type; `py` has a default.
        first: a Python executor that was started before, to be used when its number is to start.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        logdir: str | os.PathLike[str],
        values: str | None,
        commands: Mapping[str, Sequence[str]] | None,
        first: ExecutorProcess | None,
    ) -> None:
        self._work = Path(workdir).absolute() / WORK
        self._logs = Path(logdir).absolute() / EXECUTORS
        for directory in (self._work, self._logs):
            directory.mkdir(parents=True, exist_ok=True)
        self._values = values
        self._commands = {"py": python_command(), **(commands or {})}
        self.first = first

    def start(self, number: int, type: str, env: tuple[tuple[str, str | None], ...]) -> ExecutorProcess:
        """Start a process.

        Args:
            number: id of the executor.
            type: `py` or a configured one.
            env: variables to set, or with None to remove.

        Raises:
            RainException: it cannot be started.
        """
        if self.first is not None and self.first.number == number:
            first, self.first = self.first, None
            return first
        command = self._commands.get(type)
        if command is None:
            raise RainException(f"Executor '{type}' is not registered")
        try:
            return ExecutorProcess(number, command, env, work=self._work, logs=self._logs)
        except (OSError, ValueError) as error:  # ValueError: a null character in the command or the environment
            raise RainException(f"Executor '{type}' cannot be started: {error}") from error

    def make_values_directory(self, number: int) -> str | None:
        """The directory for large results of an executor, None: they go to its work directory."""
        if self._values is None:
            return None
        path = os.path.join(self._values, f"executor-{number}")
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            log.warning("Executor %d writes large results to its work directory: %s", number, error)
            return None
        return path
