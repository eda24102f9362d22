"""What is told about an exception of user code."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import rain
from rain.common.failure import MAX_EXCEPTION, MAX_TEXT, Failure
from rain.common.packing import dump_value

if TYPE_CHECKING:
    import traceback
    from types import TracebackType

_RAIN = os.path.dirname(os.path.abspath(rain.__file__)) + os.sep
_CUT = "... (cut)\n"


def describe(error: BaseException, *, session: int, task: int, run: int, debug: str) -> Failure:
    """Make the failure of a task from the exception it raised."""
    return Failure(
        kind="task",
        message=format_traceback(error),
        session=session,
        task=task,
        debug=debug,
        attempts=run,
        exception=_pickled(error),
    )


def format_traceback(error: BaseException) -> str:
    """The whole traceback, causes included, without frames of Rain; its end if it is very long."""
    import traceback

    story = traceback.TracebackException(type(error), error, _user_part(error.__traceback__), compact=True)
    _drop_rain_frames(story, set())
    text = "".join(story.format()).rstrip("\n")
    return text if len(text) <= MAX_TEXT else _CUT + text[-MAX_TEXT:]


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of Rain at the top, so that their lines are not even read."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_RAIN):
        trace = trace.tb_next
    return trace


def _drop_rain_frames(story: traceback.TracebackException, seen: set[int]) -> None:
    if id(story) in seen:
        return
    seen.add(id(story))
    import traceback

    kept = [frame for frame in story.stack if not frame.filename.startswith(_RAIN)]
    story.stack = traceback.StackSummary.from_list(kept)
    for other in (story.__cause__, story.__context__, *(story.exceptions or ())):
        if other is not None:
            _drop_rain_frames(other, seen)


def _pickled(error: BaseException) -> bytes | None:
    try:
        blob = dump_value(error)
    except Exception:  # a class of the user's may raise anything here; the text tells all that is needed
        return None
    return blob if len(blob) <= MAX_EXCEPTION else None
