"""The end of the event log in a dump."""

from __future__ import annotations

from pathlib import Path

from rain.eventlog.records import Event, TasksEnded
from rain.eventlog.writer import EventWriter, open_log
from rain.server.last_events import LAST, last_events
from rain.testing.server_builders import u32


def test_the_last_ones_without_data(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    open_log(path)
    writer = EventWriter(path)
    info = {"error": "ValueError: boom\nvalue of the user", "debug": "secret of the user", "user": {"x": 1}}
    failed = {"task": [1, 2], "info": info}
    aborted = TasksEnded(1, "TaskAborted", u32([10]), u32([LAST - 1]))
    writer.put([aborted, Event("TaskFinished", 1, failed)], 1)
    writer.close()
    found = last_events(path)
    assert len(found) == LAST
    assert found[0] == {"id": 1, "time": found[0]["time"], "type": "TaskAborted", "task": [1, 10]}
    assert set(found[-1]) == {"id", "time", "type", "task", "error"}
    assert found[-1]["error"] == "ValueError: boom"


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    (entry,) = last_events(tmp_path / "nowhere" / "events.db")
    assert "events.db" in entry["error"]
