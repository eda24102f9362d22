"""Event logs made by hand."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from rain.dashboard.overview import Overview
from rain.eventlog.reader import EventReader
from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    Record,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)
from rain.eventlog.writer import EventWriter, open_log
from rain.testing.server_builders import SubmitBuilder, u32

BEGIN = 1_800_000_000.0
W1, W2 = "10.0.0.1:9000", "10.0.0.2:9000"


class Story:
    """Records of a log, one after the other; time passes only by `wait`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.db"
        self.now = BEGIN
        self.records: list[tuple[float, Record]] = []
        self.templates: dict[int, int] = {}
        self._written = 0
        open_log(self.path)

    # --- what happens ---

    def wait(self, seconds: float) -> Story:
        self.now += seconds
        return self

    def put(self, record: Record) -> Story:
        self.records.append((self.now, record))
        return self

    def event(self, type: str, belongs_to: int | None = None, /, **fields: Any) -> Story:
        return self.put(Event(type, belongs_to, fields))

    def session(self, number: int = 1, name: str = "work", on_failure: str = "fail") -> Story:
        spec = {"name": name, "on_failure": on_failure, "persistent": False}
        return self.event("SessionNew", number, session=number, client="10.0.0.9:5", spec=spec)

    def closed(self, number: int = 1, reason: str = "ClientClose", message: str = "") -> Story:
        return self.event("SessionClosed", number, session=number, reason=reason, message=message)

    def submit(self, builder: SubmitBuilder, session: int = 1) -> Story:
        first = self.templates.get(session, 0)
        self.templates[session] = first + len(builder.templates)
        return self.put(Submitted(session, first, builder.messages(session, first)))

    def worker(self, name: str = W1, cpus: int = 4) -> Story:
        about = {"hostname": "host", "pid": 7, "resources": {"cpus": cpus}}
        return self.event("WorkerNew", worker=name, governor=name, **about)

    def started(self, *tasks: int, worker: str = W1, session: int = 1) -> Story:
        return self.put(RunsStarted(session, worker, u32(tasks), u32([1] * len(tasks))))

    def finished(
        self,
        *tasks: int,
        start: float | None = None,
        seconds: float = 1.0,
        worker: str = W1,
        session: int = 1,
        announced: Iterable[int] = (),
        outputs: Sequence[int] | None = None,
        size: int = 10,
        infos: Sequence[dict[str, Any] | None] = (),
    ) -> Story:
        """One after the other, the last one ended just now; the output of task N is N + 1."""
        first = self.now - seconds * len(tasks) if start is None else start
        outputs = [task + 1 for task in tasks] if outputs is None else outputs
        return self.put(
            RunsFinished(
                session=session,
                worker=worker,
                tasks=u32(tasks),
                runs=u32([1] * len(tasks)),
                starts=array("d", [first + seconds * place for place in range(len(tasks))]),
                durations=array("d", [seconds] * len(tasks)),
                infos=[None if info is None else msgpack.packb(info) for info in infos],
                output_counts=u32([len(outputs)] if len(tasks) == 1 else ()),
                outputs=u32(outputs),
                sizes=array("Q", [size] * len(outputs)),
                announced=u32(announced),
            )
        )

    def members(
        self,
        task: int,
        output: int,
        seconds: Sequence[float],
        start: float | None = None,
        worker: str = W1,
        **more: Any,
    ) -> Story:
        begin = self.now - sum(seconds) if start is None else start
        columns = array("f", seconds), array("I", [5] * len(seconds))
        return self.put(MembersFinished(1, worker, task, output, 1, begin, *columns, more.get("is_announced", False)))

    def failed(self, task: int, error: str = "boom", session: int = 1, worker: str = W1, **info: Any) -> Story:
        about = {"error": error, "governor": worker, "attempts": 1, **info}
        return self.event("TaskFinished", session, task=[session, task], info=about)

    def began(self, task: int, start: float, session: int = 1, worker: str = W1) -> Story:
        """The single event before the end of a run that failed."""
        info = {"start_time": start}
        return self.event("TaskStarted", session, task=[session, task], worker=worker, governor=worker, info=info)

    def retried(self, task: int, reason: str = "W was lost", session: int = 1) -> Story:
        return self.event("TaskRetried", session, task=[session, task], run=2, reason=reason)

    def ended(self, type: str, *stretches: tuple[int, int], session: int = 1) -> Story:
        firsts, counts = u32(first for first, _ in stretches), u32(count for _, count in stretches)
        return self.put(TasksEnded(session, type, firsts, counts))

    def unkept(self, *objects: int, session: int = 1) -> Story:
        return self.put(ObjectsUnkept(session, u32(objects)))

    # --- what is seen ---

    def write(self) -> None:
        """Into the file, what is not there yet."""
        writer = EventWriter(self.path)
        for now, record in self.records[self._written :]:
            writer.put([record], round(now * 1e9))
        self._written = len(self.records)
        writer.close()

    def overview(self) -> Overview:
        """Of all that happened so far."""
        self.write()
        overview = Overview(EventReader(self.path))
        catch_up(overview)
        return overview


def catch_up(overview: Overview, seconds: float = 10.0) -> None:
    """Take in all of the log."""
    overview.catch_up(seconds)
    while overview.is_behind:
        overview.catch_up(seconds)


def chain(*names: str) -> SubmitBuilder:
    """Tasks 12, 14, ... with these names; each uses the output (13, 15, ...) of the one before, the first the constant
    10."""
    builder = SubmitBuilder().constant(10, b"value")
    before = 10
    for place, name in enumerate(names):
        task = 12 + 2 * place
        builder.task(task, [before], [task + 1], task_type="py/", name=name)
        before = task + 1
    return builder
