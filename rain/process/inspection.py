"""What a server or worker tells of its process in a dump: facts, and the last lines of its log."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import rain

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

LOG_LINES = 200
"""Lines of the log that are remembered."""
LONGEST_LINE = 500
"""Characters of a line that are remembered."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class LogTail(logging.Handler):
    """Remembers the last lines of the log of this process while it is entered.

    Args:
        count: how many.
    """

    def __init__(self, count: int = LOG_LINES) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=count)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record in; of one with many lines the last ones."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):  # arguments that do not fit the message
            self.handleError(record)
            return
        # what a path or an error text smuggled in must not keep the lines from being sent
        text = text.encode("utf-8", "replace").decode("utf-8")
        self._lines.extend(line[:LONGEST_LINE] for line in text.splitlines())

    def lines(self, secret: str | None) -> list[str]:
        """The remembered lines, oldest first.

        Args:
            secret: is blotted out, should anything have logged it; None: there is none.
        """
        with self.lock:  # type: ignore[union-attr] # every handler has one
            lines = list(self._lines)
        return [line.replace(secret, "(secret)") for line in lines] if secret else lines


def process_facts() -> dict[str, Any]:
    """Versions, and what the process uses."""
    return {
        "pid": os.getpid(),
        "rain": rain.__version__,
        "python": sys.version.split()[0],
        "system": " ".join((os.uname().sysname, os.uname().release, os.uname().machine)),
        "threads": threading.active_count(),
        **_usage(),
    }


def _usage() -> dict[str, Any]:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * _PAGE
        return {"resident_bytes": resident, "open_files": len(os.listdir("/proc/self/fd"))}
    except OSError as error:  # too many open files: just what somebody may be looking for
        return {"usage_error": str(error)}
