"""The sessions of a log, and how much is kept of old ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rain.dashboard.session_view import SessionView
from rain.dashboard.states import STATES, UnknownError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SHOWN = 1000
MOST_WHOLE = 1000
"""Ended sessions of which more than a summary is kept."""
MOST_SUMMARIES = 10_000
MOST_BYTES = 200_000_000
MOST_TASKS = 5_000_000


class Sessions:
    """Sessions by number. Of the oldest that ended only a summary is kept, and in the end only how many they were."""

    def __init__(self) -> None:
        self._all: dict[int, SessionView] = {}
        self._whole: dict[int, SessionView] = {}
        self._forgotten = 0
        """The largest number of a forgotten session."""
        self._forgotten_statuses: Counter[str] = Counter()
        self._forgotten_tasks = [0] * len(STATES)

    def get_or_add(self, number: int, time: float) -> SessionView | None:
        """A session; one that was not heard of begins now. None if it is forgotten."""
        session = self._all.get(number)
        if session is None and number > self._forgotten:
            session = self._all[number] = self._whole[number] = SessionView(number, time)
        return session

    def known(self, number: int) -> SessionView:
        """A session.

        Raises:
            UnknownError: there is none with this number.
        """
        session = self._all.get(number)
        if session is None:
            raise UnknownError(f"the event log has no session {number}, or it is too old to be shown")
        return session

    def whole(self, number: int) -> SessionView:
        """A session with its tasks.

        Raises:
            UnknownError: there is none with this number, or only its summary is left.
        """
        session = self.known(number)
        if session.is_reduced:
            raise UnknownError(
                f"session {number} is too old for its tasks to be shown; `rain events --session {number}` tells them"
            )
        return session

    def all_whole(self) -> list[SessionView]:
        """Sessions with their tasks."""
        return list(self._whole.values())

    def newest(self) -> Iterator[SessionView]:
        """Sessions to show in a list, newest first."""
        for number in sorted(self._all, reverse=True)[:MOST_SHOWN]:
            yield self._all[number]

    def statuses(self) -> dict[str, int]:
        """How many have which status."""
        return dict(self._forgotten_statuses + Counter(session.status for session in self._all.values()))

    def task_counts(self) -> list[int]:
        """Tasks of all sessions by state."""
        counts = self._forgotten_tasks
        for session in self._all.values():
            counts = [count + more for count, more in zip(counts, session.task_counts(), strict=True)]
        return counts

    def tidy(self) -> None:
        """Reduce the oldest sessions that ended if there are too many, or too much is kept."""
        ended = sorted(session.number for session in self._whole.values() if session.ended is not None)
        size = sum(session.bytes for session in self._whole.values())
        tasks = sum(session.total for session in self._whole.values())
        left = len(ended)
        for number in ended:
            if left <= MOST_WHOLE and size <= MOST_BYTES and tasks <= MOST_TASKS:
                break
            session = self._whole.pop(number)
            size -= session.bytes
            tasks -= session.total
            left -= 1
            session.reduce()
        too_many = len(self._all) - len(self._whole) - MOST_SUMMARIES
        if too_many > 0:
            for number in sorted(self._all.keys() - self._whole.keys())[:too_many]:
                self._forget(number)

    def _forget(self, number: int) -> None:
        session = self._all.pop(number)
        self._forgotten = max(self._forgotten, number)
        self._forgotten_statuses[session.status] += 1
        self._forgotten_tasks = [
            count + more for count, more in zip(self._forgotten_tasks, session.task_counts(), strict=True)
        ]
