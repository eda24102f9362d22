"""Reading: the right events, in order, from any place, whoever owns the file."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.common.errors import RainException
from rain.eventlog import reader as reader_module
from rain.eventlog.criteria import Criteria, Span, parse_criteria
from rain.eventlog.reader import EventReader, LoggedEvent, StoredBatch
from rain.eventlog.records import Event, MembersFinished, Record, RunsFinished, RunsStarted, Submitted, TasksEnded
from rain.eventlog.writer import EventWriter, open_log
from rain.testing.server_builders import SubmitBuilder
from tests.eventlog.making import u32

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def write(path: Path, records: list[Record]) -> None:
    open_log(path)
    writer = EventWriter(path)
    writer.put(records, 1_700_000_000_000_000_000)
    writer.close()


def mixture() -> list[Record]:
    """Two sessions and events of none, in all forms; 500 and more events."""
    records: list[Record] = []
    for number in range(60):
        session = 1 + number % 2
        task = 10 + 10 * number
        start = array("d", [1.5, 2.5])
        runs = u32([task, task + 1]), u32([1, 1]), start, start, [], u32(), u32([task + 2, task + 3])
        records += [
            Event("Monitoring", None, {"worker": "h:1"}),
            Submitted(
                session, number, SubmitBuilder().task(task, [5], [task + 2], name=f"n{number}").messages(session)
            ),
            RunsStarted(session, "h:1", u32([task]), u32([1])),
            RunsFinished(session, "h:1", *runs, array("Q", [1, 2]), u32([0])),
            MembersFinished(session, "h:1", task, task, 1, 1.0, array("f", [1.0, 2.0]), u32([1, 2]), False),
            TasksEnded(session, "TaskAborted", u32([task + 5]), u32([2])),
            Event("TaskFinished", session, {"task": [session, task], "info": {"error": "x" if number % 3 else ""}}),
        ]
    return records


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.db"
    write(path, mixture())
    return path


@pytest.fixture(scope="module")
def everything(log: Path) -> list[LoggedEvent]:
    with closing(EventReader(log)) as reader:
        return list(reader.events(Criteria()))


@pytest.fixture
def reader(log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventReader]:
    """With so small pages that each question needs several."""
    monkeypatch.setattr(reader_module, "_PAGE", 7)
    with closing(EventReader(log)) as found:
        yield found


def session_of(event: dict[str, Any]) -> int | None:
    if "session" in event:
        found: int = event["session"]
        return found
    return next((event[key][0] for key in ("task", "dataobject") if key in event), None)


SPANS = st.tuples(st.sampled_from(["=", "<", ">", "<=", ">="]), st.integers(-3, 1000))
TYPES = [
    "Monitoring",
    "ClientSubmit",
    "TaskStarted",
    "TaskFinished",
    "TaskFailed",
    "ObjectFinished",
    "TaskAborted",
    "no",
]
OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "=": int.__eq__,
    "<": int.__lt__,
    ">": int.__gt__,
    "<=": int.__le__,
    ">=": int.__ge__,
}


@given(
    st.one_of(st.none(), SPANS),
    st.one_of(st.none(), st.tuples(st.sampled_from(sorted(OPERATORS)), st.integers(0, 3))),
    st.sets(st.sampled_from(TYPES), max_size=3),
    st.integers(0, 900),
    st.one_of(st.none(), st.integers(0, 1000)),
    st.one_of(st.none(), st.integers(0, 40)),
)
@settings(max_examples=80, deadline=None)
def test_criteria(
    log: Path,
    everything: list[LoggedEvent],
    ids: tuple[str, int] | None,
    sessions: tuple[str, int] | None,
    types: set[str],
    after: int,
    before: int | None,
    limit: int | None,
):
    """As if all events were read and then chosen."""
    asked: dict[str, Any] = {"event_types": [{"value": name, "mode": "="} for name in types]}
    if ids is not None:
        asked["id"] = {"value": ids[1], "mode": ids[0]}
    if sessions is not None:
        asked["session"] = {"value": sessions[1], "mode": sessions[0]}

    def fits(found: LoggedEvent) -> bool:
        session, name = session_of(found.event), found.event["type"]
        failed = name == "TaskFinished" and found.event["info"].get("error")
        wanted = {"DataObjectFinished" if one == "ObjectFinished" else one for one in types}
        return (
            (ids is None or OPERATORS[ids[0]](found.id, ids[1]))
            and (sessions is None or (session is not None and OPERATORS[sessions[0]](session, sessions[1])))
            and (not types or name in wanted or bool(failed and "TaskFailed" in types))
            and after < found.id
            and (before is None or found.id < before)
        )

    expected = [found for found in everything if fits(found)][:limit]
    with closing(EventReader(log)) as reader:
        criteria = parse_criteria(asked)
        assert list(reader.events(criteria, after=after, before=before, limit=limit)) == expected


def test_all_events(everything: list[LoggedEvent]):
    assert [found.id for found in everything] == list(range(1, len(everything) + 1))
    assert len(everything) == 60 * 17
    assert {found.time_text for found in everything} == {"2023-11-14 22:13:20.000000000 UTC"}


def test_any_place_is_found(reader: EventReader, everything: list[LoggedEvent]):
    """Also in the middle of a batch, and over the ends of pages."""
    for after in range(len(everything) + 1):
        found = list(reader.events(Criteria(), after=after, limit=20))
        assert found == everything[after : after + 20]
    assert list(reader.events(Criteria())) == everything
    assert reader.last_id() == len(everything)


def test_records(reader: EventReader):
    """Batches as they were put, single events between them."""
    found = list(reader.records())
    expected = mixture()
    assert len(found) == len(expected)
    next_id = 1
    for one, record in zip(found, expected, strict=True):
        if isinstance(record, Event):
            assert isinstance(one, LoggedEvent)
            assert (one.id, one.event) == (next_id, {"type": record.type, **record.fields})
            next_id += 1
            continue
        assert isinstance(one, StoredBatch)
        assert one.first == next_id
        if isinstance(record, Submitted):
            assert isinstance(one.record, Submitted)
            assert one.record.first_template == record.first_template
        else:
            assert one.record == record
        next_id += one.count


def test_records_from_a_place(reader: EventReader):
    """A batch is given while any of its events is wanted."""
    for after in range(0, 60):
        first = next(iter(reader.records(after)))
        end = first.first + first.count - 1 if isinstance(first, StoredBatch) else first.id
        begin = first.first if isinstance(first, StoredBatch) else first.id
        assert begin <= after + 1 <= end
    assert list(reader.records(reader.last_id())) == []


def test_templates(reader: EventReader):
    assert len(reader.templates(1)) == 30
    assert reader.templates(1, 58) == reader.templates(1)[-1:]
    assert reader.templates(3) == []


def test_reading_is_lazy_and_leaves_the_file_alone(log: Path):
    """A reader that stops in the middle holds nothing open that would make the writer keep old pages."""
    with closing(EventReader(log)) as reader:
        events = reader.events(Criteria())
        assert next(events).id == 1
        assert not reader._database.in_transaction
        with closing(sqlite3.connect(log, isolation_level=None)) as writer:
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        assert next(events).id == 2


def test_an_empty_log(tmp_path: Path):
    path = tmp_path / "events.db"
    open_log(path)
    with closing(EventReader(path)) as reader:
        assert list(reader.events(Criteria())) == list(reader.records()) == []
        assert reader.last_id() == 0


def test_a_log_directory(log: Path):
    with closing(EventReader(log.parent)) as reader:
        assert reader.last_id() > 0


def test_names_with_special_characters(log: Path, tmp_path: Path):
    path = tmp_path / "a b?c#d%20é.db"
    shutil.copyfile(log, path)
    with closing(EventReader(path)) as reader:
        assert reader.last_id() > 0


def test_spans_beyond_everything(reader: EventReader):
    assert list(reader.events(Criteria(ids=Span(5000, 6000)))) == []
    assert list(reader.events(Criteria(ids=Span(7, 6)))) == []


# --- what cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["events.db", "", "absent/events.db"])
def test_no_log(tmp_path: Path, name: str):
    with pytest.raises(RainException, match="there is no event log"):
        EventReader(tmp_path / name)


def test_other_files(tmp_path: Path):
    path = tmp_path / "events.db"
    path.write_bytes(b"not a database, but long enough to look at " * 100)
    with pytest.raises(RainException, match="damaged"):
        EventReader(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (x)")
        database.commit()
    with pytest.raises(RainException, match="server of Rain made"):
        EventReader(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batches SET data = x'00' WHERE first = 2",
        "UPDATE batches SET data = x'90' WHERE first = 2",
        "UPDATE batches SET kind = 'unknown' WHERE first = 2",
        "UPDATE batches SET data = zeroblob(0) WHERE first = 2",
        "UPDATE batches SET count = 7 WHERE first = 2",
        "UPDATE events SET event = 'no JSON' WHERE id = 1",
        "UPDATE events SET event = '[]' WHERE id = 1",
    ],
)
def test_damaged_rows(log: Path, tmp_path: Path, statement: str):
    path = tmp_path / "events.db"
    shutil.copyfile(log, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)
    with closing(EventReader(path)) as reader:
        with pytest.raises(RainException, match=r"cannot read the event log .*damaged"):
            list(reader.records())
        with pytest.raises(RainException, match="damaged"):
            list(reader.events(Criteria(), limit=20))


# --- read-only --------------------------------------------------------------------------------------

CHILD = """
import json, os, sys
from rain.eventlog.criteria import Criteria
from rain.eventlog.reader import EventReader
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
reader = EventReader(sys.argv[1])
found = [event.id for event in reader.events(Criteria())]
copy = reader._copy and reader._copy.name
reader.close()
print(json.dumps([found, copy, copy and os.path.exists(copy)]))
"""


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A directory that the child below may read, but not write."""
    place = Path(tempfile.mkdtemp(prefix="rain-test-", dir="/tmp"))
    yield place
    place.chmod(0o700)
    shutil.rmtree(place)


def read_in_child(place: Path) -> Any:
    """What a process that may not write there reads: ids, whether in a copy, whether that is left."""
    names = sorted(os.listdir(place))
    for path in place.iterdir():
        path.chmod(0o444)
    place.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, place / "events.db", str(NOBODY)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(place)) == names
    return json.loads(done.stdout)


def unfinished_copy(log: Path, place: Path, endings: tuple[str, ...]) -> int:
    """A log as a killed server leaves it, of which the last event is in the -wal file only; returns the last id."""
    path = log.parent / "unfinished.db"
    shutil.copyfile(log, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        text = '{"type": "WorkerNew"}'
        database.execute("INSERT INTO events VALUES (5000, 'now', 'WorkerNew', NULL, ?)", (text,))
        for ending in endings:
            shutil.copyfile(f"{path}{ending}", place / f"events.db{ending}")
    return 5000


def test_a_closed_log_that_cannot_be_written(log: Path, read_only: Path, everything: list[LoggedEvent]):
    shutil.copyfile(log, read_only / "events.db")
    assert read_in_child(read_only) == [[found.id for found in everything], None, None]


def test_the_log_of_a_killed_server_that_cannot_be_written(log: Path, read_only: Path):
    last = unfinished_copy(log, read_only, ("", "-wal", "-shm"))
    ids, _, _ = read_in_child(read_only)
    assert ids[-1] == last


def test_the_same_without_the_file_that_sqlite_needs(log: Path, read_only: Path, everything: list[LoggedEvent]):
    """A copy is read, and nothing of it is left."""
    last = unfinished_copy(log, read_only, ("", "-wal"))
    ids, copy, is_left = read_in_child(read_only)
    assert ids == [*(found.id for found in everything), last]
    assert copy is not None
    assert is_left is False


def test_a_live_log_that_cannot_be_written(read_only: Path):
    """The server goes on writing meanwhile."""
    path = read_only / "events.db"
    open_log(path)
    writer = EventWriter(path)
    writer.put([Event("WorkerNew", None, {})], 1)
    with closing(EventReader(path)) as reader:
        deadline = time.monotonic() + 30
        while not reader.last_id():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert read_in_child(read_only)[0] == [1]
        read_only.chmod(0o700)
    writer.close()
