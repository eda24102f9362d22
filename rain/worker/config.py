"""The configuration file of a worker: commands of executor types."""

from __future__ import annotations

import os
import shlex
import tomllib
from typing import TYPE_CHECKING

from rain.process.workdir import SetupError
from rain.worker.core.templates import BUILTIN_PREFIXES, executor_type_of

if TYPE_CHECKING:
    from pathlib import Path


def read_executor_commands(path: str | Path) -> dict[str, list[str]]:
    """Read the sections `[executors.NAME]` with their `command`, a string or a list of strings.

    A relative path of a program, with a slash, counts from the cwd of this process.

    Raises:
        SetupError: the file cannot be read, or has anything else.
    """
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(f"cannot read the worker configuration {path}: {error}") from error
    executors = data.pop("executors", {})
    if data or not isinstance(executors, dict):
        unknown = ", ".join(data) or "executors"
        raise SetupError(f"the worker configuration {path} may only have sections [executors.NAME], not {unknown}")
    return {name: _command(path, name, section) for name, section in executors.items()}


def _command(path: str | Path, name: str, section: object) -> list[str]:
    if not name or executor_type_of(f"{name}/") != name:
        raise SetupError(
            f"[executors.{name}] in the worker configuration {path}: no task can have this type; "
            f"a name has no slash, and does not begin with {' '.join(BUILTIN_PREFIXES)}"
        )
    if not isinstance(section, dict) or set(section) != {"command"}:
        raise SetupError(f"[executors.{name}] in the worker configuration {path} must have `command` and nothing else")
    command = section["command"]
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError as error:
            raise SetupError(f"the command of [executors.{name}] in {path} cannot be split: {error}") from error
    sound = isinstance(command, list) and all(isinstance(part, str) and "\0" not in part for part in command)
    if not sound or not command:
        raise SetupError(f"the command of [executors.{name}] in {path} must be a string or a list of strings")
    program, *arguments = command
    return [os.path.abspath(program) if os.sep in program else program, *arguments]
