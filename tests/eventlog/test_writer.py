"""The writer: what was put is in the file, whatever happens to the process or the disk."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.common.errors import RainException
from rain.eventlog import writer as writer_module
from rain.eventlog.criteria import Criteria, criteria_of
from rain.eventlog.reader import EventReader
from rain.eventlog.records import Event, MembersFinished, Record, RunsFinished, RunsStarted, Submitted, TasksEnded
from rain.eventlog.writer import EventWriter, OpenedLog, event_text, open_log, weight
from rain.testing.server_builders import SubmitBuilder
from tests.eventlog.making import ANY_BATCH, by_id, meaning, single_events, u32

ROOT = Path(__file__).resolve().parents[2]
NOON = 1_700_000_000_123_456_789


@pytest.fixture(autouse=True)
def flush_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_SECONDS", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "rain.eventlog"):
        yield caplog


def event(**fields: Any) -> Event:
    return Event("WorkerNew", None, fields)


def session_new(session: int, **fields: Any) -> Event:
    return Event("SessionNew", session, {"session": session, **fields})


def session_closed(session: int) -> Event:
    return Event("SessionClosed", session, {"session": session, "reason": "ClientClose"})


def write(path: Path, *records: Record) -> None:
    """Open, write all, close."""
    writer = EventWriter(path)
    writer.put(list(records), NOON)
    writer.close()


def events(path: Path, criteria: Criteria | None = None) -> list[tuple[int, dict[str, Any]]]:
    with closing(EventReader(path)) as reader:
        return [(found.id, by_id(found.event)) for found in reader.events(criteria or Criteria())]


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what is written --------------------------------------------------------------------------------


@given(st.lists(st.lists(st.one_of(ANY_BATCH, single_events()), max_size=3), max_size=4))
@settings(max_examples=12, deadline=None)
def test_everything_is_written_in_order(tmp_path_factory: pytest.TempPathFactory, puts: list[list[Record]]):
    """Ids are contiguous, and go on where the writer before ended."""
    path = tmp_path_factory.mktemp("log") / "events.db"
    assert open_log(path) == OpenedLog(1, 0)
    expected = []
    for part in (puts[:2], puts[2:]):
        writer = EventWriter(path)
        for records in part:
            unique = [in_own_session(record) for record in records]
            writer.put(unique, NOON)
            for record in unique:
                if isinstance(record, Event):
                    expected.append({"type": record.type, **record.fields})
                else:
                    expected += [by_id(one) for one in meaning(record)]
        writer.close()
    assert events(path) == list(enumerate(expected, 1))
    with closing(EventReader(path)) as reader:
        assert reader.last_id() == len(expected)


_numbers = itertools.count(10_000)


def in_own_session(record: Record) -> Record:
    """Submits are made with equal numbers of templates, which are unique in a session."""
    return dataclasses.replace(record, session=next(_numbers)) if isinstance(record, Submitted) else record


def test_the_tables_are_as_documented(path: Path):
    """For those who read the file without Rain."""
    open_log(path)
    starts = array("d", [1.5])
    batch = RunsFinished(3, "h:1", u32([11]), u32([1]), starts, starts, [], u32(), u32([10]), array("Q", [1]))
    write(path, session_new(3), batch, event(worker="h:1"))
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT id, timestamp, event_type, session, event FROM events ORDER BY id").fetchall()
        moment = "2023-11-14 22:13:20.123456789 UTC"
        assert rows == [
            (1, moment, "SessionNew", 3, '{"type": "SessionNew", "session": 3}'),
            (5, moment, "WorkerNew", None, '{"type": "WorkerNew", "worker": "h:1"}'),
        ]
        rows = database.execute("SELECT first, count, timestamp, kind, session FROM batches").fetchall()
        assert rows == [(2, 3, moment, "finished", 3)]
        indices = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert {"events_timestamp", "events_event_type", "events_session"} <= indices
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_second_passes_at_most(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without close; the limit is that of the manual plus what a busy machine needs."""
    monkeypatch.setattr(writer_module, "FLUSH_SECONDS", 0.8)
    open_log(path)
    writer = EventWriter(path)
    writer.put([event()], NOON)
    reader = EventReader(path)
    wait_for(lambda: reader.last_id() == 1, 20)
    reader.close()
    writer.close()


def test_start_times_become_texts():
    text = event_text("TaskStarted", {"task": [1, 2], "info": {"start_time": 1.7e9}})
    assert text == '{"type": "TaskStarted", "task": [1, 2], "info": {"start_time": "2023-11-14T22:13:20.000000Z"}}'


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), "null"), (b"12", '"<2 bytes>"'), ({1, 2}, '"<set>"'), ("\ud800", '"\\ud800"')]
)
def test_what_json_cannot_hold(value: Any, text: str):
    assert event_text("X", {"a": value}) == f'{{"type": "X", "a": {text}}}'


def test_config_of_earlier_submits(path: Path):
    """A template is sent once; later submits refer to it. After the end of the session nothing of it is remembered."""
    first = SubmitBuilder().task(11, [], [10], args=b"\x01", task_type="x/y")
    later = SubmitBuilder().task(13, [], [12], args=b"\x02", task_type="x/y").messages(1)
    later[0].templates.clear()
    write(path, session_new(1), Submitted(1, 0, first.messages(1)), Submitted(1, 1, later), session_closed(1))
    found = [one["tasks"][0] for _, one in events(path, criteria_of(1, ["ClientSubmit"]))]
    assert [(task["task_type"], task["config"]) for task in found] == [("x/y", 1), ("x/y", 2)]


def test_put_costs_next_to_nothing(path: Path):
    """A very generous bound: a loop over the tasks would be above it."""
    records: list[Record] = [
        MembersFinished(1, "h:1", 9, 5, 1, 1.0, array("f", [0.1]) * 200_000, u32([1]) * 200_000, False)
    ]
    writer = EventWriter(path)
    start = time.thread_time()
    for _ in range(20):
        writer.put(records, NOON)
    assert time.thread_time() - start < 0.02
    writer.close()


def test_a_record_that_is_none(path: Path, warnings: pytest.LogCaptureFixture):
    """A defect of the server costs that record alone."""
    open_log(path)
    odd = TasksEnded(1, "TaskAborted", u32([1]), ["x"])  # type: ignore[arg-type]
    write(path, event(), odd, event())
    assert [number for number, _ in events(path)] == [1, 2]
    (error,) = warnings.records
    assert error.message == "internal error: a TasksEnded cannot be logged"


# --- memory -----------------------------------------------------------------------------------------


def test_weights_follow_sizes():
    large = SubmitBuilder().array(10, 1000, [5], config={})
    starts = array("d", [0.5]) * 1000
    runs = RunsFinished(
        1, "w", u32([1]) * 1000, u32([1]) * 1000, starts, starts, [b"x" * 99] * 1000, u32(), u32([1]) * 1000, array("Q")
    )
    linked = SubmitBuilder().linked(2000, [[7], *([7, 2000 + k] for k in range(999))])
    assert weight(Submitted(1, 0, linked.messages(1))) > weight(Submitted(1, 0, large.messages(1))) + 4000
    for record in (Submitted(1, 0, large.messages(1)), RunsStarted(1, "w", u32([1]) * 1000, u32([1]) * 1000), runs):
        assert weight(record) > 5000
    assert weight(runs) > 99_000
    assert weight(event()) < 5000
    assert weight(TasksEnded(1, "TaskAborted", u32([1]), u32([1 << 30]))) < 5000


def test_a_disk_that_does_not_keep_up(path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture):
    """Another process holds the file for a while: what waits is bounded, one warning, later all is well again."""
    open_log(path)
    monkeypatch.setattr(writer_module, "MOST_WAITING", 100 * weight(event()))
    writer = EventWriter(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(1000):
            writer.put([event(number=number)], NOON)
        assert writer._given - writer._taken <= writer_module.MOST_WAITING
        other.execute("ROLLBACK")
    wait_for(lambda: writer._given == writer._taken)
    writer.put([event(number="last")], NOON)
    writer.close()
    found = events(path)
    assert found[-1][1]["number"] == "last"
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert 100 <= len(found) <= 201
    assert [record.message for record in warnings.records] == [
        f"the event log {path} is written too slowly: events are lost until the disk catches up",
        f"the event log {path} is written in time again; {1001 - len(found)} events were lost",
    ]


# --- starting again ---------------------------------------------------------------------------------


def test_post_mortem(path: Path):
    """Sessions that were open when the server ended are closed once, and numbers go on."""
    assert open_log(path) == OpenedLog(1, 0)
    write(path, session_new(1), session_new(2), session_closed(1), session_new(7))
    assert open_log(path) == OpenedLog(8, 2)
    assert open_log(path) == OpenedLog(8, 0)
    closed = events(path, criteria_of(None, ["SessionClosed"]))
    assert [(number, one["session"], one["reason"]) for number, one in closed] == [
        (3, 1, "ClientClose"),
        (5, 2, "ServerLost"),
        (6, 7, "ServerLost"),
    ]
    write(path, session_new(8))
    assert events(path)[-1] == (7, {"type": "SessionNew", "session": 8})


def test_workers_that_ended_with_their_server(path: Path):
    open_log(path)
    gone = Event("WorkerRemoved", None, {"worker": "a:1", "error_msg": "lost"})
    write(path, event(worker="a:1"), event(worker="b:1"), gone, event(worker="a:1"), event(worker="c:1"))
    write(path, Event("WorkerRemoved", None, {"worker": "c:1", "error_msg": "stopped"}), event(worker=["odd"]))
    open_log(path)
    removed = [one for _, one in events(path, criteria_of(None, ["WorkerRemoved"]))]
    assert [one["worker"] for one in removed] == ["a:1", "c:1", "a:1", "b:1"]
    assert removed[-1] == {
        "type": "WorkerRemoved", "worker": "b:1", "governor": "b:1", "error_msg": "the server ended"
    }  # fmt: skip
    open_log(path)
    assert len(events(path, criteria_of(None, ["WorkerRemoved"]))) == 4


def test_a_session_known_by_its_tasks_only(path: Path):
    """Its SessionNew was lost on a full disk; its number is not given again."""
    open_log(path)
    write(path, TasksEnded(12, "TaskCancelled", u32([5]), u32([1])))
    assert open_log(path).next_session == 13


def test_a_log_in_use(path: Path):
    """A second server with the same directory must not close the sessions of the first."""
    open_log(path)
    writer = EventWriter(path)
    writer.put([session_new(1)], NOON)
    with pytest.raises(RainException, match=r"another server writes the event log .*--logdir"):
        open_log(path)
    writer.close()
    assert open_log(path) == OpenedLog(2, 1)


KILLED = """
import sys, time
from array import array
from rain.eventlog import writer
from rain.eventlog.records import Event, TasksEnded
writer.FLUSH_SECONDS = 0.01
path = sys.argv[1]
writer.open_log(path)
log = writer.EventWriter(path)
log.put([Event("SessionNew", 1, {"session": 1})], 1)
print("begun", flush=True)
while True:
    columns = array("I", range(50)), array("I", [1]) * 50
    log.put([Event("WorkerNew", None, {"x": "y" * 500}), TasksEnded(1, "TaskCancelled", *columns)], 1)
    time.sleep(0.0005)
"""


def test_kill_9_leaves_a_readable_log(path: Path):
    with subprocess.Popen([sys.executable, "-c", KILLED, path], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            wait_for(path.exists)
            reader = EventReader(path)
            wait_for(lambda: reader.last_id() > 5000)
            seen = reader.last_id()
        finally:
            process.kill()
        assert process.wait(30) == -signal.SIGKILL
    reader.close()
    found = events(path)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert len(found) >= seen
    assert open_log(path) == OpenedLog(2, 1)
    assert events(path)[-1][1]["reason"] == "ServerLost"


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\xff" * 8000, b"x" * 700])
def test_what_is_no_event_log_is_moved_aside(path: Path, content: bytes, warnings: pytest.LogCaptureFixture):
    path.write_bytes(content)
    path.with_name("events.db-wal").write_bytes(b"of the broken one")
    assert open_log(path) == OpenedLog(1, 0)
    aside = path.with_name("events.db.broken-1")
    assert aside.read_bytes() == content
    (warning,) = warnings.records
    assert str(aside) in warning.message
    write(path, session_new(1))
    assert len(events(path)) == 1
    path.write_bytes(content)
    open_log(path)
    assert path.with_name("events.db.broken-2").exists()


def test_a_log_with_single_events_only_is_continued(path: Path, warnings: pytest.LogCaptureFixture):
    """As the manual describes the file."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, event_type TEXT, "
            "session INTEGER NULL, event TEXT)"
        )
        text = '{"type": "SessionNew", "session": 4}'
        database.execute("INSERT INTO events VALUES (9, '2026-01-01 00:00:00.0 UTC', 'SessionNew', 4, ?)", (text,))
        database.commit()
    assert open_log(path) == OpenedLog(5, 1)
    assert [number for number, _ in events(path)] == [9, 10]
    assert not warnings.records


def test_other_databases_are_moved_aside(path: Path, warnings: pytest.LogCaptureFixture):
    """A table of the same name with other columns; a version of the future."""
    for number, statement in enumerate(["CREATE TABLE events (id)", "PRAGMA user_version = 7"], 1):
        with closing(sqlite3.connect(path)) as database:
            database.execute(statement)
        open_log(path)
        assert path.with_name(f"events.db.broken-{number}").exists()
        path.unlink()
    assert len(warnings.records) == 2


def test_damaged_pages(path: Path, warnings: pytest.LogCaptureFixture):
    """The damage is found at the start, or told by the reader; nothing hangs or lies."""
    open_log(path)
    write(path, *[session_new(k, text="x" * 300) for k in range(1, 500)])
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 100] = b"\xff" * 100
    path.write_bytes(data)
    with pytest.raises(RainException, match="damaged"):
        events(path)
    assert open_log(path) == OpenedLog(1, 0)
    assert len(warnings.records) == 1
    assert path.with_name("events.db.broken-1").exists()


def test_a_place_that_cannot_be_used(tmp_path: Path):
    """A directory where the file should be; no directory at all."""
    (tmp_path / "events.db").mkdir()
    for path in (tmp_path / "events.db", tmp_path / "absent" / "events.db"):
        with pytest.raises(RainException, match=r"cannot use the event log .*--logdir"):
            open_log(path)


# --- a full disk ------------------------------------------------------------------------------------

FULL = """
import logging, resource, sys, time
from rain.eventlog import writer
from rain.eventlog.records import Event
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
writer.FLUSH_SECONDS, writer.RETRY_SECONDS = 0.02, 0.2
path, first_limit = sys.argv[1], int(sys.argv[2])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (first_limit, hard))
print(writer.open_log(path), flush=True)
log = writer.EventWriter(path)
number = 0
def put(seconds):
    global number
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        log.put([Event("WorkerNew", None, {"number": number, "text": "x" * 4000})], 1)
        time.sleep(0.002)
put(0.7)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
put(0.6)
log.close()
print("put", number)
"""


@pytest.mark.parametrize("limit", [0, 300_000])
def test_full_disk(path: Path, limit: int):
    """No file may grow beyond the limit, which is then taken away: a warning, a gap, an info, and all goes on. No event
    is lost that is not counted."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, path, str(limit)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    if limit == 0:
        assert lines.pop(0).startswith(f"WARNING cannot make the event log {path}")
    assert lines.pop(0) == "OpenedLog(next_session=1, closed=0)"
    put = lines.pop()
    lost = 0
    for warning, info in zip(lines[::2], lines[1::2], strict=True):  # SQLite may find some space in its own files
        assert warning.startswith(f"WARNING cannot write the event log {path}")
        assert "space on the disk" in warning
        assert info.startswith(f"INFO the event log {path} is written again; ")
        lost += int(info.split()[-4])
    assert 0 < len(lines) < 12
    found = events(path)
    numbers = [one["number"] for _, one in found]
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert numbers == sorted(set(numbers))
    total = int(put.split()[1])
    assert numbers[-1] == total
    assert lost == total - len(numbers)


def test_a_file_that_breaks_meanwhile(path: Path, warnings: pytest.LogCaptureFixture):
    """The writer goes on; whoever put the records sees nothing of it."""
    open_log(path)
    writer = EventWriter(path)
    writer.put([event()], NOON)
    wait_for(lambda: len(events(path)) == 1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE batches")
        other.commit()
    for _ in range(3):
        writer.put([TasksEnded(1, "TaskCancelled", u32([5]), u32([1]))], NOON)
        time.sleep(0.05)
    writer.close()
    (warning,) = warnings.records
    assert "cannot write the event log" in warning.message


def test_two_writers(path: Path):
    """Two servers were given one directory: each event has an id of its own."""
    open_log(path)
    first, second = EventWriter(path), EventWriter(path)
    for number in range(50):
        for writer in (first, second):
            writer.put([event(), TasksEnded(1, "TaskCancelled", u32([number]), u32([3]))], NOON)
        time.sleep(0.005)
    first.close()
    second.close()
    assert [number for number, _ in events(path)] == list(range(1, 401))


def test_close_is_bounded(path: Path, warnings: pytest.LogCaptureFixture):
    """Another process holds the file."""
    open_log(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = EventWriter(path)
        writer.put([event()], NOON)
        start = time.monotonic()
        writer.close(0.2)
        assert time.monotonic() - start < 20
        other.execute("ROLLBACK")
    assert "could not be written within" in warnings.records[-1].message
    wait_for(lambda: all(thread.name != "rain-events" for thread in threading.enumerate()))


# --- reading while writing --------------------------------------------------------------------------


def test_reading_while_writing(path: Path):
    """A reader sees whole puts, in order, without gaps, and never an error."""
    open_log(path)
    writer = EventWriter(path)
    reader = EventReader(path)
    last, numbers, deadline, put = 0, [], time.monotonic() + 30, 0
    while len(numbers) < 3000:
        assert time.monotonic() < deadline
        if put < 300:
            writer.put([event(put=put), TasksEnded(1, "TaskCancelled", u32([put]), u32([9]))], NOON)
            put += 1
        for found in reader.events(Criteria(), after=last, limit=137):
            assert found.id == last + 1
            last = found.id
            numbers.append(found.id)
    writer.close()
    reader.close()
    assert numbers == list(range(1, 3001))
