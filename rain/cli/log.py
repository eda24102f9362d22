"""Logging of the long-lived processes: to stderr, through a thread, so that a stuck terminal stops nobody."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import re
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
QUEUED_LINES = 10_000
FLUSH_SECONDS = 1.0


class _QueueingHandler(logging.Handler):
    """Hands finished lines to a thread that writes them to a file descriptor.

    Lines are dropped while the queue is full: better a gap in the log than a server that waits for it. The thread
    holds no lock while it writes, so a write that never returns does not keep the process from ending either.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUED_LINES)
        self._thread = threading.Thread(target=self._write_lines, name="rain-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except (TypeError, ValueError):  # arguments that do not fit the message: tell where, as logging does
            self.handleError(record)
            return
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line.encode("utf-8", "replace") + b"\n")

    def finish(self) -> None:
        """Write what is queued, for at most FLUSH_SECONDS."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(FLUSH_SECONDS)

    def _write_lines(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):  # nobody reads it any more
                while line:
                    line = line[os.write(self._descriptor, line) :]


def level_from(environment: Mapping[str, str]) -> tuple[int, str]:
    """The log level of `RAIN_LOG`, else `RUST_LOG`.

    Of a filter like `info,rain=debug` the first plain word counts.

    Returns:
        The level, and a complaint for the log if the variable could not be understood (else `""`).
    """
    for name in ("RAIN_LOG", "RUST_LOG"):
        text = environment.get(name, "").strip()
        if not text:
            continue
        for word in re.split(r"[,\s]+", text.lower()):
            level = LEVELS.get(word.rpartition("=")[2])
            if level is not None:
                return level, ""
        return logging.INFO, f"{name}={text!r} names no log level; use one of {', '.join(LEVELS)}"
    return logging.INFO, ""


def set_up_logging(environment: Mapping[str, str]) -> None:
    """Send all log records of this process to stderr without ever blocking the caller."""
    level, complaint = level_from(environment)
    handler = _QueueingHandler(sys.stderr.fileno())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    atexit.register(handler.finish)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    if complaint:
        logging.getLogger("rain").warning(complaint)
