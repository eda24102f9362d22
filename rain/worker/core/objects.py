"""Data objects of all sessions: what is here, what comes, what is to be deleted when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rain.worker.core.actions import StopFetch
from rain.worker.core.model import EXPECTED, FETCHING, GONE, PRESENT, DataObject

if TYPE_CHECKING:
    from rain.worker.core.events import ObjectKey
    from rain.worker.core.model import Session, Task
    from rain.worker.core.outbox import Outbox

MAX_DELETE_LIST = 100
"""Longer delete lists lose their oldest entries at once."""

_NOBODY: list[Task] = []


class ObjectTable:
    """Transitions of data objects. Objects are found in their session's `objects`; gone ones are in no table."""

    __slots__ = ("_outbox", "_timeout", "delete_list", "sessions")

    def __init__(self, sessions: dict[int, Session], outbox: Outbox, delete_timeout: float) -> None:
        """`delete_timeout`: seconds an unneeded object stays usable, 0 = none."""
        self.sessions = sessions
        self._outbox = outbox
        self._timeout = delete_timeout
        #: unneeded objects and when they fall due, oldest first
        self.delete_list: dict[DataObject, float] = {}

    def find(self, key: ObjectKey) -> DataObject | None:
        """The object with this key, if known here."""
        session = self.sessions.get(key[0])
        return session.objects.get(key[1]) if session is not None else None

    def to_present(self, obj: DataObject) -> list[Task]:
        """Its value is in the store now; returns the tasks that waited, once per occurrence."""
        obj.state = PRESENT
        if self._outbox.deleted:
            self._outbox.deleted.pop(obj.key, None)
        consumers = obj.consumers
        if consumers is None:
            return _NOBODY
        obj.consumers = None
        return consumers

    def fetching_to_expected(self, obj: DataObject) -> None:
        """The transfer failed, but a task here will produce it."""
        obj.state = EXPECTED

    def present_to_expected(self, obj: DataObject) -> None:
        """The value is lost, but a task here will produce it anew."""
        obj.state = EXPECTED
        self._outbox.delete(obj.key)
        self._uncache(obj)

    def to_gone(self, obj: DataObject) -> list[Task]:
        """Forget it, with its value or transfer; returns the tasks that waited for it."""
        state, obj.state = obj.state, GONE
        session = self.sessions.get(obj.key[0])
        if session is not None:
            session.objects.pop(obj.key[1], None)
        self.delete_list.pop(obj, None)
        if state == PRESENT:
            self._outbox.delete(obj.key)
            self._uncache(obj)
        elif state == FETCHING:
            self._outbox.act(StopFetch(obj.key))
        consumers, obj.consumers = obj.consumers, None
        return consumers or []

    def _uncache(self, obj: DataObject) -> None:
        for executor in obj.cached_by or ():
            executor.cached.discard(obj.key)
            self._outbox.drop_cached(executor.id, obj.key)
        obj.cached_by = None

    def needed(self, obj: DataObject) -> None:
        """A task names it again."""
        if obj.unneeded:
            obj.unneeded = False
            self.delete_list.pop(obj, None)

    def not_needed(self, obj: DataObject, now: float) -> None:
        """The server needs it no more."""
        obj.unneeded = True
        if obj.users == 0 and obj.state == PRESENT:
            self.to_delete_list(obj, now)

    def unused(self, obj: DataObject, now: float) -> None:
        """The last task that named it is gone."""
        if obj.state == FETCHING:
            self.to_gone(obj)
        elif obj.state == PRESENT and obj.unneeded:
            self.to_delete_list(obj, now)

    def to_delete_list(self, obj: DataObject, now: float) -> None:
        """It stays usable for the delete timeout, or till too many others came."""
        if self._timeout <= 0.0:
            self.to_gone(obj)
            return
        if obj not in self.delete_list:
            self.delete_list[obj] = now + self._timeout
        if len(self.delete_list) > MAX_DELETE_LIST:
            self.to_gone(next(iter(self.delete_list)))

    def expire(self, now: float) -> None:
        """Delete what fell due."""
        due = []
        for obj, deadline in self.delete_list.items():
            if deadline > now:
                break
            due.append(obj)
        for obj in due:
            self.to_gone(obj)
