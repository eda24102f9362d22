"""Collects what one `handle` call returns: actions in order, then one message of each sort per session."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.protocol.messages import (
    ObjectsMissing,
    ObjectsStored,
    TaskFailed,
    TasksDone,
    TasksReturned,
    TasksStarted,
    TasksStopped,
)
from rain.worker.core.actions import DeleteValues, DropCached, FetchObject, StoreValue, TellServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rain.protocol.fields import Blobs
    from rain.protocol.messages import WorkerDigest, WorkerInfo, WorkerMessage, WorkerRuns
    from rain.worker.core.actions import WorkerAction
    from rain.worker.core.events import ObjectKey, RunResult, TaskKey


MESSAGE_BUDGET = 8 << 20
"""Bytes of values in one message; far below what a channel takes."""


class Outbox:
    """The answer to a batch of events, in the making."""

    __slots__ = ("_actions", "_done", "_dropped", "_failed", "_infos", "_inline_limit", "_missing",
                 "_returned", "_started", "_stopped", "_stored", "deleted")  # fmt: skip

    def __init__(self, inline_limit: int) -> None:
        """`inline_limit`: values of this many bytes and more never ride in messages."""
        self._inline_limit = inline_limit
        self._reset()

    def _reset(self) -> None:
        self._actions: list[WorkerAction] = []
        #: values to be removed, unless the store gets a new one under the same key before that is said
        self.deleted: dict[ObjectKey, None] = {}
        self._dropped: dict[int, list[ObjectKey]] = {}
        self._done: dict[int, list[RunResult]] = {}
        self._failed: list[TaskFailed] = []
        self._missing: list[ObjectsMissing] = []
        self._stored: dict[int, list[int]] = {}
        self._returned: dict[int, list[TaskKey]] = {}
        self._started: dict[int, list[TaskKey]] = {}
        self._stopped: dict[int, list[TaskKey]] = {}
        self._infos: list[WorkerInfo | WorkerDigest | WorkerRuns] = []

    def act(self, action: WorkerAction) -> None:
        """Add an action."""
        self._actions.append(action)

    def delete(self, key: ObjectKey) -> None:
        """Remove a value from the store."""
        self.deleted[key] = None

    def drop_cached(self, executor: int, key: ObjectKey) -> None:
        """An executor shall forget a decoded object."""
        self._dropped.setdefault(executor, []).append(key)

    def forget_executor(self, executor: int) -> None:
        """An executor is gone; nothing is to be said to it."""
        self._dropped.pop(executor, None)

    def store(self, key: ObjectKey, value: bytes) -> None:
        """Put a value into the store."""
        self.flush_deletes()
        self._actions.append(StoreValue(key, value))

    def fetch(self, action: FetchObject) -> None:
        """Start a transfer into the store."""
        self.flush_deletes()
        self._actions.append(action)

    def flush_deletes(self) -> None:
        """Turn what is to be deleted and forgotten into actions."""
        for executor, keys in self._dropped.items():
            self._actions.append(DropCached(executor, keys))
        if self.deleted:
            self._actions.append(DeleteValues(list(self.deleted)))
        self._dropped, self.deleted = {}, {}

    def done_list(self, session: int) -> list[RunResult]:
        """Where the successful runs of a session are to be appended."""
        return self._done.setdefault(session, [])

    def failed(self, message: TaskFailed) -> None:
        """A run failed."""
        self._failed.append(message)

    def missing(self, key: ObjectKey, holders: list[str], *, refused: bool = False) -> None:
        """An object cannot be had from these holders. refused: the store here did not take it."""
        self._missing.append(ObjectsMissing(key[0], key[1], holders, refused))

    def stored(self, key: ObjectKey) -> None:
        """A copy is here."""
        self._stored.setdefault(key[0], []).append(key[1])

    def returned(self, key: TaskKey) -> None:
        """A run goes back to the server."""
        self._returned.setdefault(key[0], []).append(key)

    def started(self, key: TaskKey) -> None:
        """A run started and is not finished."""
        self._started.setdefault(key[0], []).append(key)

    def stopped(self, key: TaskKey) -> None:
        """Nothing is left of a cancelled run."""
        self._stopped.setdefault(key[0], []).append(key)

    def info(self, message: WorkerInfo | WorkerDigest | WorkerRuns) -> None:
        """What the worker tells of itself; it leaves after all reports."""
        self._infos.append(message)

    def forget_session(self, session: int) -> None:
        """Say nothing about a session that ended."""
        for columns in (self._done, self._stored, self._returned, self._started, self._stopped):
            columns.pop(session, None)
        self._failed = [message for message in self._failed if message.session != session]
        self._missing = [message for message in self._missing if message.session != session]

    def forget_answers(self) -> None:
        """Say nothing to the server, which is gone."""
        self._done, self._stored, self._returned, self._started = {}, {}, {}, {}
        self._stopped = {}
        self._failed, self._missing, self._infos = [], [], []

    def has_only_ends(self) -> bool:
        """Whether nothing is to be told but runs that succeeded."""
        others = self._stored, self._returned, self._started, self._stopped, self._failed, self._missing, self._infos
        return bool(self._done) and not any(others)

    def take_actions(self) -> list[WorkerAction]:
        """What is to be done; what is to be told stays."""
        self.flush_deletes()
        actions, self._actions = self._actions, []
        return actions

    def take(self) -> list[WorkerAction]:
        """Everything collected; the outbox is empty afterwards."""
        self.flush_deletes()
        actions = self._actions
        messages: list[WorkerMessage] = [
            ObjectsStored(session, array("I", objects)) for session, objects in self._stored.items()
        ]
        messages += self._missing
        for session, results in self._done.items():
            messages += [self._tasks_done(session, portion) for portion in self._portions(results)]
        messages += self._failed
        messages += [TasksReturned(session, _tasks(keys), _runs(keys)) for session, keys in self._returned.items()]
        messages += [TasksStopped(session, _tasks(keys), _runs(keys)) for session, keys in self._stopped.items()]
        messages += [TasksStarted(session, _tasks(keys), _runs(keys)) for session, keys in self._started.items()]
        messages += self._infos
        actions += map(TellServer, messages)
        self._reset()
        return actions

    def _portions(self, results: list[RunResult]) -> Iterator[list[RunResult]]:
        """Cut results into portions whose values fit into one message."""
        begin = size = 0
        limit = self._inline_limit
        for position, result in enumerate(results):
            more = 0
            for told, about, value in result.outputs:
                if told < limit:  # the tar of a directory is longer than its size says
                    more += told if value is None or told > len(value) else len(value)
                if about is not None:
                    more += len(about)
            if result.info is not None:
                more += len(result.info)
            if result.block is not None:
                more += len(result.block.packed)
            size += more
            if size > MESSAGE_BUDGET and position > begin:
                yield results[begin:position]
                begin, size = position, more
        if results:
            yield results[begin:]

    def _tasks_done(self, session: int, results: list[RunResult]) -> TasksDone:
        outputs = [output for result in results for output in result.outputs]
        limit = self._inline_limit
        values = [value if size < limit else None for size, _, value in outputs]
        return TasksDone(
            session,
            array("I", [result.key[1] for result in results]),
            array("I", [result.key[2] for result in results]),
            array("d", [result.start for result in results]),
            array("d", [result.duration for result in results]),
            _blobs([result.info for result in results]),
            array("Q", [size for size, _, _ in outputs]),
            _blobs([info for _, info, _ in outputs]),
            _blobs(values),
            _blobs([None if result.block is None else result.block.packed for result in results]),
        )


def _tasks(keys: list[TaskKey]) -> array[int]:
    return array("I", [key[1] for key in keys])


def _runs(keys: list[TaskKey]) -> array[int]:
    return array("I", [key[2] for key in keys])


def _blobs(column: Blobs) -> Blobs:
    return column if column.count(None) != len(column) else []
