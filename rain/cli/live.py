"""A screen of text that is drawn again in place."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

_CLEAR, _HOME, _END_OF_LINE, _BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Screen:
    """Draws on a terminal; does nothing to what is none. What was drawn last stays at the end.

    Args:
        stream: where to.

    Attributes:
        is_terminal: whether `draw` makes sense.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()

    def __enter__(self) -> Self:
        self._write(_CLEAR + _HIDE_CURSOR)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(_SHOW_CURSOR + "\n")

    def draw(self, lines: Sequence[str]) -> None:
        """Replace what is there by these lines; what does not fit is cut, and the last line says so."""
        width, height = shutil.get_terminal_size()
        shown = list(lines[:height])
        if len(lines) > height:
            shown[-1] = f"... and {len(lines) - height + 1} more lines"
        text = f"{_END_OF_LINE}\n".join(line[:width] for line in shown)
        self._write(_HOME + text + _END_OF_LINE + _BELOW)

    def _write(self, text: str) -> None:
        if self.is_terminal:
            self._stream.write(text)
            self._stream.flush()
