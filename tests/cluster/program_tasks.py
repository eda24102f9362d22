"""Tasks that run programs, as the wire has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rain.client import Output, OutputDir, Task


def program(
    args: list[str] | str,
    *,
    inputs: dict[str, Any] | None = None,
    write: tuple[str, ...] = (),
    outputs: dict[str, str] | None = None,
    **options: Any,
) -> Task:
    """A program; a str is a shell command. inputs: path -> object; outputs: path -> "blob" or "dir"."""
    inputs, outputs = inputs or {}, outputs or {}
    config = {
        "args": args,
        "in_paths": [{"path": path, "write": path in write} for path in inputs],
        "out_paths": list(outputs),
        "shell": isinstance(args, str),
    }
    declared = [(OutputDir if kind == "dir" else Output)(path) for path, kind in outputs.items()]
    return Task("buildin/run", config, list(inputs.values()), declared, **options)


def directory_from(path: Any, **options: Any) -> Task:
    """A directory of the worker's machine."""
    return Task("buildin/open_dir", {"path": str(path)}, (), [OutputDir("d")], **options)


def until(condition: Callable[[], Any], timeout: float = 30.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
