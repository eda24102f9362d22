"""Where in the user's code something was made: cheap to note, formatted only when an error needs it."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, TypeAlias

from rain.common.errors import RainWarning

if TYPE_CHECKING:
    from types import CodeType, FrameType

Site: TypeAlias = "tuple[CodeType | int, ...]"
"""Code object, instruction offset, code object, ... innermost first."""

MAX_FRAMES = 5
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_getframe = sys._getframe


_last: tuple[tuple[tuple[CodeType, int], ...], Site] = (), ()
"""What was noted last: code objects and offsets in pairs, and the site."""


def here() -> Site:
    """Note the stack of the caller: up to 5 frames, beginning with the first that is not Rain's.

    In a loop it is the same tuple again: the garbage collector has less to look at.
    """
    global _last
    known, site = _last
    caller = _getframe(2)
    inner: FrameType | None = caller
    if not known or caller.f_code is not known[0][0]:
        while inner is not None and inner.f_code.co_filename.startswith(_PACKAGE):
            inner = inner.f_back
    frame = inner
    for code, offset in known:
        if frame is None or frame.f_lasti != offset or frame.f_code is not code:
            break
        frame = frame.f_back
    else:
        if frame is None or len(known) == MAX_FRAMES:
            return site
    pairs: list[tuple[CodeType, int]] = []
    frame = inner
    while frame is not None and len(pairs) < MAX_FRAMES:
        pairs.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    made: Site = tuple(part for pair in pairs for part in pair)
    _last = tuple(pairs), made
    return made


def warn_user(text: str) -> None:
    """Issue a RainWarning at the first caller that is not Rain's."""
    level = 1
    frame: FrameType | None = _getframe(0)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(RainWarning(text), stacklevel=level)


def format_site(site: Site) -> str:
    """The frames as in a traceback, outermost first, without those of Rain; `""` if there are none."""
    summary = traceback.StackSummary()
    for code, offset in zip(site[::2], site[1::2], strict=True):
        assert not isinstance(code, int)
        assert isinstance(offset, int)
        if not code.co_filename.startswith(_PACKAGE):
            summary.append(traceback.FrameSummary(code.co_filename, _line(code, offset), code.co_name))
    summary.reverse()
    return "".join(summary.format()).rstrip("\n")


def _line(code: CodeType, offset: int) -> int:
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno
