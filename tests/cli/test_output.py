"""The output layer, and what `rain status` feeds into it."""

import io
import json

import pytest

from rain.cli.output import Report, Table, format_seconds, show
from rain.cli.status import format_resources, report_of

INFO = {
    "server": {"version": "0.5.0", "address": "127.0.0.1:7210", "http_url": None, "uptime": 3725.4, "sessions": 2},
    "workers": [
        {
            "worker_id": "127.0.0.1:40002",
            "tasks": [[1, 12]],
            "objects": [[1, 10], [1, 11]],
            "objects_to_delete": [],
            "resources": {"cpus": 2, "gpus": [], "memory": 8 << 30},
            "hostname": "node",
            "pid": 22,
        },
        {
            "worker_id": "127.0.0.1:40001",
            "tasks": [],
            "objects": [],
            "objects_to_delete": [],
            "resources": {"cpus": 4, "gpus": [0, 1], "memory": 1 << 30, "licences": 1.5},
            "hostname": "node",
            "pid": 21,
        },
    ],
}


def printed(form: str) -> str:
    """The status in one form."""
    stream = io.StringIO()
    show(report_of(INFO), form, stream)
    return stream.getvalue()


def test_table():
    """Columns line up, workers are sorted, lines have no blanks at their ends."""
    assert printed("table").splitlines() == [
        "address   127.0.0.1:7210",
        "version   0.5.0",
        "uptime    1 h 2 min",
        "sessions  2",
        "workers   2",
        "",
        "WORKER           HOST  PID  RESOURCES                                    TASKS  OBJECTS",
        "127.0.0.1:40001  node  21   cpus=4 gpus=0,1 memory=1.0 GiB licences=1.5  0      0",
        "127.0.0.1:40002  node  22   cpus=2 memory=8.0 GiB                        1      2",
    ]


def test_json_has_stable_keys():
    """One document; counts instead of lists."""
    document = json.loads(printed("json"))
    assert document["server"]["address"] == "127.0.0.1:7210"
    assert [worker["worker_id"] for worker in document["workers"]] == ["127.0.0.1:40001", "127.0.0.1:40002"]
    assert document["workers"][1] == {
        "worker_id": "127.0.0.1:40002",
        "hostname": "node",
        "pid": 22,
        "resources": {"cpus": 2, "gpus": [], "memory": 8 << 30},
        "tasks": 1,
        "objects": 2,
    }


def test_quiet_prints_ids_only():
    """One per line."""
    assert printed("quiet") == "127.0.0.1:40001\n127.0.0.1:40002\n"


def test_nothing_to_say():
    """Empty results print nothing, not an empty line."""
    stream = io.StringIO()
    show(Report({}, [Table(("id",), [])]), "table", stream)
    show(Report({}), "quiet", stream)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (90061, "1 d 1 h")],
)
def test_seconds(seconds, text):
    """The two largest units are enough."""
    assert format_seconds(seconds) == text


def test_resources_of_which_there_are_none_are_left_out():
    """Zero gpus are no news."""
    assert format_resources({"cpus": 1, "gpus": [], "memory": 1024, "licences": 0}) == "cpus=1 memory=1.0 KiB"
