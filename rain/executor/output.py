"""What tasks write to stdout and stderr: which parts of the executor's logs are whose.

Nothing is done for a quick task that writes nothing. The streams note that somebody wrote; the files are looked at
after a task that did, or that took long enough for writing past the streams.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from typing import TextIO

LONG = 2.5e-4
"""Seconds; what writes past Python's streams in a shorter task counts for the next task that is looked at."""

Written = tuple[int, int, int, int, int, int]
"""Task, run, from where to where it wrote to stdout, the same for stderr; bytes in the logs."""


class Output:
    """Attributes what the logs grew by to tasks.

    Args:
        written: gets what tasks wrote.

    Attributes:
        wrote: something was written to the streams since the last look at the files.
    """

    __slots__ = ("_ends", "_files", "_written", "wrote")

    def __init__(self, written: list[Written]) -> None:
        self.wrote = False
        self._written = written
        # Descriptors of our own: tasks may put other files in the places of 1 and 2.
        self._files = os.dup(1), os.dup(2)
        self._ends = self._sizes()

    def begin(self) -> None:
        """What was written before belongs to no task."""
        self.wrote = False
        self._ends = self._sizes()

    def streams(self) -> tuple[TextIO, TextIO]:
        """New sys.stdout and sys.stderr."""
        return _open_unbuffered(1, self), _open_unbuffered(2, self)

    def attribute(self, task: int, run: int) -> None:
        """What the logs grew by was written by this run, which has just ended."""
        self.wrote = False
        before, after = self._ends, self._sizes()
        if after != before:
            self._ends = after
            # A file may have become shorter: a task can truncate its log.
            starts = min(before[0], after[0]), min(before[1], after[1])
            if starts != after:
                self._written.append((task, run, starts[0], after[0], starts[1], after[1]))

    def _sizes(self) -> tuple[int, int]:
        out, err = self._files
        return os.fstat(out).st_size, os.fstat(err).st_size


class _NotedFile(io.FileIO):
    """A descriptor; notes that it is written to."""

    def __init__(self, descriptor: int, output: Output) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._output = output

    def write(self, data: Any, /) -> int:
        self._output.wrote = True
        return super().write(data)


def _open_unbuffered(descriptor: int, output: Output) -> io.TextIOWrapper:
    """Text goes to the log at once: a crash must not lose what was printed before."""
    raw = cast("Any", _NotedFile(descriptor, output))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
