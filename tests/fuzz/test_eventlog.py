"""Fuzzers of the event log: criteria, packed batches, whole files, and the lists `rain events` reads from servers."""

from __future__ import annotations

import json
import sqlite3
from array import array
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from rain.cli.event_sources import read_list
from rain.common.errors import RainException
from rain.eventlog.criteria import LARGEST, Criteria, parse_criteria
from rain.eventlog.expanding import expand
from rain.eventlog.packing import count_events, pack, unpack
from rain.eventlog.reader import EventReader
from rain.eventlog.records import (
    Event,
    MembersFinished,
    ObjectsUnkept,
    RunsFinished,
    RunsStarted,
    Submitted,
    TasksEnded,
)
from rain.eventlog.writer import EventWriter, open_log
from rain.testing.server_builders import SubmitBuilder, u32
from tests.fuzz.fuzzing import check_text, fuzz

CRITERIA = [
    b'{"id": {"value": 7, "mode": ">"}, "session": {"value": 1, "mode": "="}}',
    b'{"event_types": [{"value": "TaskFailed", "mode": "="}, {"value": "GovernorNew", "mode": "="}]}',
    b'{"id": {"value": 9223372036854775807, "mode": "<="}}',
    b"[" * 1000,
]

SECONDS = array("d", [1.5, 2.5, 3.5])
INFOS = [None, b"\x81\xa5debug\xa1x", None]
BUILDER = SubmitBuilder().constant(5).task(11, [5], [10], keep=True, name="a", args=b"\x81\xa1x\x01", task_type="x/y")
BATCHES = [
    RunsStarted(1, "h:1", u32([11, 13, 15]), u32([1, 1, 1])),
    RunsFinished(
        1,
        "h:1",
        u32([11, 13, 15]),
        u32([1, 2, 1]),
        SECONDS,
        SECONDS,
        INFOS,
        u32([1, 0, 2]),
        u32([10, 12, 14]),
        array("Q", [1, 1 << 40, 3]),
        u32([1]),
    ),
    MembersFinished(1, "h:1", 300, 200, 1, 1.5, array("f", [0.5, 1.5]), u32([4, 5]), True),
    TasksEnded(1, "TaskCancelled", u32([11, 20]), u32([1, 7])),
    ObjectsUnkept(1, u32([10, 12, 14])),
    Submitted(1, 0, BUILDER.array(100, 7, [10], config={}).messages(1)),
    Submitted(1, 0, SubmitBuilder().task(12, [], [10], args=b"\xd9\xff" + b"x" * 255, task_type="t").messages(1) * 4),
]
PACKED = [pack(batch, {0, 1}) for batch in BATCHES]
TEMPLATES = [b"\x81\xa9task_type\xa3x/y", b"\x82\xa9task_type\xa3py/\xa7outputs\x91\x80"]
LARGE_COLUMN = (1 << 30, 200)
"""Evenly rising columns of 2**24 elements are a few bytes in the file."""


def test_criteria(inputs: int) -> None:
    def parse(data: bytes) -> None:
        try:
            criteria = parse_criteria(json.loads(data))
        except (ValueError, RecursionError) as error:
            check_text(error)
        else:
            assert -LARGEST <= criteria.ids.low <= LARGEST
            assert -LARGEST <= criteria.ids.high <= LARGEST
            assert criteria.has_type({"type": "TaskFinished", "info": {}}) in (True, False)
            criteria.kinds()

    fuzz("event-criteria", parse, CRITERIA, inputs // 2)


@pytest.mark.parametrize("position", range(len(PACKED)), ids=[f"{kind}-{k}" for k, (kind, _, _) in enumerate(PACKED)])
def test_batches(inputs: int, position: int) -> None:
    """What can be unpacked can be told."""
    kind = PACKED[position][0]

    def read(data: bytes) -> None:
        try:
            batch = unpack(kind, 1, data)
        except ValueError as error:
            check_text(error, kind)
            return
        events = list(islice(expand(batch, dict(enumerate(TEMPLATES)).get), 20))
        json.dumps(events, allow_nan=False)
        assert len(events) == min(count_events(batch), 20)

    fuzz("event-batches", read, [PACKED[position][2]], inputs // 8, growth=LARGE_COLUMN)


def test_lists_of_events(inputs: int) -> None:
    good = json.dumps([{"id": k, "time": "t", "event": {"type": "x", "text": "\u20ac"}} for k in range(3)]).encode()

    def read(data: bytes) -> None:
        middle = len(data) // 2
        try:
            for entry in read_list([data[:middle], data[middle:]]):
                assert {"id", "time", "event"} <= set(entry)
        except (ValueError, RecursionError) as error:
            check_text(error)

    fuzz("event-lists", read, [good, b"[]", b"[{" + b'"a":[' * 500], inputs // 2)


def log_file(path: Path) -> bytes:
    """A log with all kinds of records."""
    open_log(path)
    writer = EventWriter(path)
    writer.put([Event("SessionNew", 1, {"session": 1}), *BATCHES], 1)
    writer.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


def test_files(inputs: int, room: Path) -> None:
    """Whatever is in the file: events, or an error that names it."""
    path = room / "events.db"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            with closing(EventReader(path)) as reader:
                for found in reader.events(Criteria(), limit=50):
                    assert found.id > 0
                list(islice(reader.records(), 50))
                reader.last_id()
        except RainException as error:
            check_text(error, str(path))

    fuzz("event-files", read, [log_file(path)], inputs // 20, growth=LARGE_COLUMN)


def test_starting_with_files(inputs: int, room: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a server finds: it goes on with it, or with a new file."""
    path = room / "events.db"

    def start(data: bytes) -> None:
        caplog.clear()
        for old in room.iterdir():
            old.unlink()
        path.write_bytes(data)
        opened = open_log(path)
        assert opened.next_session > 0
        assert path.read_bytes().startswith(b"SQLite format 3")
        for record in caplog.records:
            check_text(Exception(record.getMessage()), str(path))

    fuzz("event-starts", start, [log_file(path)], inputs // 100, growth=LARGE_COLUMN)
