"""A progress bar of tqdm, in a terminal and in a notebook."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainException
from rain.common.states import DataObjectState, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

_LONGEST_LINE = 300
_WORDS = {
    "finished": (TaskState.finished,),
    "running": (TaskState.running,),
    "failed": (TaskState.failed,),
    "cancelled": (TaskState.cancelled,),
    "aborted": (TaskState.aborted,),
}
"""States that are shown by name; the others wait."""
_ENDED = ("finished", "failed", "cancelled", "aborted")
_OBJECT_WORDS = {
    "finished": (DataObjectState.finished, DataObjectState.removed),
    "aborted": (DataObjectState.aborted,),
}


class Bar:
    """Shows numbers of tasks and objects, and the first failure. Nothing is written where nobody would see it: to a
    stream that is no terminal, unless it is that of a notebook.

    Args:
        title: what is waited for.

    Raises:
        RainException: tqdm is not installed.
    """

    def __init__(self, title: str) -> None:
        self._make = _tqdm()
        self._title = printable(title)
        self._stream = _stream()
        self._counts: dict[str, int] = {}
        self._failure = ""
        self._total: int | None = None
        self._bar: Any = None

    def show(self, tasks: Sequence[int], objects: Sequence[int]) -> None:
        """Numbers by TaskState and by DataObjectState."""
        counts = {word: sum(tasks[state] for state in states) for word, states in _WORDS.items()}
        for word, states in _OBJECT_WORDS.items():
            counts[word] += sum(objects[state] for state in states)
        self._counts = counts
        self._total = sum(tasks) + sum(objects)
        self._write(self._draw)

    def fail(self, failure: str) -> None:
        """Tell of a failure, once; of several only the first."""
        if self._failure or not failure:
            return
        self._failure = failure
        self._counts["failed"] = max(1, self._counts.get("failed", 0))
        self._write(lambda: self._make.write(printable(failure), file=self._stream))
        self._write(self._draw)

    def close(self) -> None:
        """Leave it as it is; what is written next begins on a new line."""
        if self._bar is not None:
            self._write(self._bar.close)

    def _write(self, write: Callable[[], None]) -> None:
        """Nothing is written any more once it fails: waiting matters more than showing."""
        if self._stream is None:
            return
        try:
            write()
        except (OSError, ValueError):  # the terminal is gone, or somebody closed the stream
            self._stream = None

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = self._make(
                desc=self._title, total=self._total, file=self._stream, unit=" tasks", dynamic_ncols=True
            )
        bar = self._bar
        if bar.total != self._total:
            begun = bar.start_t
            bar.reset(self._total)
            bar.start_t = begun
        bar.n = sum(self._counts.get(word, 0) for word in _ENDED)
        shown = [f"{word} {number}" for word, number in self._counts.items() if number]
        bar.set_postfix_str(", ".join(shown), refresh=False)
        bar.refresh()


def printable(text: str) -> str:
    """One line without control characters, cut."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 3] + "..."


@cache
def _tqdm() -> Any:
    """The class of bars that fits a terminal or notebook, without tqdm's thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook without ipywidgets it says so; bars are plain text then
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise RainException(
                f"A progress bar needs tqdm, which cannot be imported ({error}); install it by "
                "`pip install 'rain[progress]'`, or leave out progress=True"
            ) from error
    return type("tqdm", (tqdm,), {"monitor_interval": 0})


def _stream() -> TextIO | None:
    """Where a bar is seen; None if nowhere."""
    if _in_notebook():
        return sys.stdout  # a notebook shows the other one as if it were an error
    stream: TextIO | None = sys.stderr
    if stream is None or getattr(stream, "closed", False) or not stream.isatty():
        return None
    return stream


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
