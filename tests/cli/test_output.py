"""The output layer, and what `rain status` feeds into it."""

import io
import json

import pytest

from rain.cli.output import Report, Table, format_seconds, format_short, plain, show
from rain.cli.status import format_shares, line_of, report_of

INFO = {
    "server": {
        "version": "0.5.0",
        "address": "127.0.0.1:7210",
        "http_url": None,
        "uptime": 3725.4,
        "sessions": 2,
        "tasks": {"finished": 3, "running": 1},
    },
    "workers": [
        {
            "worker_id": "127.0.0.1:40002",
            "tasks": [[1, 12]],
            "objects": [[1, 10], [1, 11]],
            "objects_to_delete": [],
            "resources": {"cpus": 2, "gpus": [], "memory": 8 << 30},
            "free": {"cpus": 1, "memory": 2 << 30},
            "store": {"memory": 1000, "disk": 24},
            "state": "draining",
            "hostname": "node",
            "pid": 22,
        },
        {
            "worker_id": "127.0.0.1:40001",
            "tasks": [],
            "objects": [],
            "objects_to_delete": [],
            "resources": {"cpus": 4, "gpus": [0, 1], "memory": 1 << 30, "licences": 1.5},
            "free": {"cpus": 4, "gpus": 1, "memory": 1 << 30, "licences": 0.5},
            "store": {},
            "state": "connected",
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
        "address     127.0.0.1:7210",
        "version     0.5.0",
        "uptime      1 h 2 min",
        "sessions    2",
        "tasks       1 running, 3 finished",
        "workers     2",
        "free/total  cpus=5/6 gpus=1/2 memory=3.0 GiB/9.0 GiB licences=0.5/1.5",
        "",
        "WORKER           HOST  PID  STATE      FREE/TOTAL                                             "
        "    TASKS  OBJECTS  BYTES",
        "127.0.0.1:40001  node  21   connected  cpus=4/4 gpus=1/2 memory=1.0 GiB/1.0 GiB licences=0.5/1.5  0      0"
        "        -",
        "127.0.0.1:40002  node  22   draining   cpus=1/2 memory=2.0 GiB/8.0 GiB                            1      2"
        "        1.0 KiB",
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
        "state": "draining",
        "resources": {"cpus": 2, "gpus": [], "memory": 8 << 30},
        "free": {"cpus": 1, "memory": 2 << 30},
        "tasks": 1,
        "objects": 2,
        "bytes": 1024,
    }
    assert document["workers"][0]["bytes"] is None
    assert document["tasks"]["finished"] == 3
    assert document["tasks"]["failed"] == 0
    assert document["resources"]["free"] == {"cpus": 5, "gpus": 1, "memory": 3 << 30, "licences": 0.5}
    assert document["resources"]["total"] == {"cpus": 6, "gpus": 2, "memory": 9 << 30, "licences": 1.5}


def test_status_as_a_line():
    """For `--watch` into a file."""
    text = line_of(report_of(INFO).document, 0.0)
    assert text.endswith(
        "  2 sessions; tasks: 1 running, 3 finished; 2 workers; "
        "free: cpus=5/6 gpus=1/2 memory=3.0 GiB/9.0 GiB licences=0.5/1.5"
    )


def test_a_server_without_workers():
    report = report_of(INFO | {"workers": []})
    assert report.text("quiet") == ""
    assert report.text("table").endswith("free/total  -")
    assert report.document["resources"] == {"free": {}, "total": {}}


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
    """Zero gpus are no news; what is not said to be free is not."""
    offered = {"cpus": 1, "gpus": [], "memory": 1024, "licences": 0, "disks": 2}
    free = {"cpus": 0, "memory": 512, "disks": 0.5}
    assert format_shares(free, offered) == "cpus=0/1 memory=512 B/1.0 KiB disks=0.5/2"
    assert format_shares({}, {"cpus": 4}) == "cpus=0/4"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0123456, "12.3 ms"),
        (0.9999, "1 s"),
        (1.2345, "1.23 s"),
        (59.99, "60 s"),
        (60, "1 min"),
        (4000, "1 h 6 min"),
    ],
)
def test_short_durations(seconds, text):
    """Three digits."""
    assert format_short(seconds) == text


def test_plain_data_for_json():
    """What msgpack can hold and JSON cannot."""
    given = {1: [b"text", b"\xff"], b"key": float("nan"), "list": (1, 2.5, None, True), "other": {3, 4} - {4}}
    expected = {"1": ["text", "\\xff"], "key": "nan", "list": [1, 2.5, None, True], "other": "{3}"}
    assert plain(given) == expected
    assert json.loads(json.dumps(plain(given))) == expected
