"""What happened to tasks and workers besides the usual path, briefly: for `explain`, error texts and dumps.

The usual path (submitted, assigned, finished) is in the columns of the graph and costs nothing more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.server.core.session import Session
    from rain.server.core.state import ServerState

STORY_LENGTH = 16
"""Events remembered per task, the last ones."""

Story: TypeAlias = "deque[tuple[float, str]]"
"""(monotonic seconds, what happened), oldest first."""


def new_story() -> Story:
    """An empty one."""
    return deque(maxlen=STORY_LENGTH)


def note(state: ServerState, session: Session, task: int, text: str) -> None:
    """Remember an event of a task or block."""
    story = session.stories.get(task)
    if story is None:
        story = session.stories[task] = new_story()
    story.append((state.now, text))


def inherit(session: Session, parent: int, rows: Iterable[int]) -> None:
    """Tasks that were part of a block have its story."""
    story = session.stories.get(parent)
    if story is not None:
        for row in rows:
            if row != parent:
                session.stories[row] = story.copy()


def told(now: float, story: Story) -> list[str]:
    """Lines like `3.2 s ago: run 1 failed`."""
    return [f"{now - when:.1f} s ago: {text}" for when, text in story]
