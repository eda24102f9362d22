"""Asking in portions, with a server that answers what was prepared."""

from __future__ import annotations

from array import array

import msgpack
import pytest

from rain.cli import rows, task_verbs, values
from rain.cli.connection import KnownServer
from rain.common.errors import InvalidRequestError
from rain.common.states import TaskState
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import GetInfos, GetSpecs, Infos, ListTasks, Specs, TaskList


class Talk:
    """Stands for a connection; keeps the questions."""

    server = KnownServer(Address("127.0.0.1", 7210), Secret("secret", "test"))
    timeout = 10.0

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def ask(self, make, answer, _complaint=""):
        self.asked.append(make(5))
        found = self.answers.pop(0)
        assert isinstance(found, answer)
        return found


def listed(following, *ids):
    """An answer with these tasks."""
    count = len(ids)
    columns = [[""] * count, ["py/"] * count, ["w"] * count, array("d", [0.0] * count), array("d", [0.5] * count)]
    return TaskList(5, array("I", ids), bytes([TaskState.running] * count), *columns, following)


def test_tasks_in_portions():
    talk = Talk(listed(20, 12, 14), listed(70), listed(0, 71))
    found = list(rows.tasks_between(talk, 3, 10, 99, [TaskState.running, TaskState.ready]))
    assert [row.id for row in found] == ["3/12", "3/14", "3/71"]
    assert talk.asked == [ListTasks(5, 3, first, 99, b"\3\1", "") for first in (10, 20, 70)]
    assert found[0].document() == {
        "task": "3/12",
        "session": 3,
        "id": 12,
        "name": None,
        "type": "py/",
        "state": "running",
        "worker": "w",
        "start": None,
        "duration": 0.5,
    }


def test_a_server_that_does_not_get_on():
    """It would be asked the same for ever."""
    talk = Talk(listed(11, 10), listed(11, 11))
    assert [row.number for row in rows.tasks_between(talk, 3, 10)] == [10, 11]


def test_specs_in_portions():
    """The server tells as many as it likes."""
    packed = [msgpack.packb({"id": number}) for number in range(3)]
    talk = Talk(Specs(5, packed[:2]), Specs(5, packed[2:]))
    assert [spec["id"] for spec in task_verbs._specs(talk, 1, [7, 8, 9])] == [0, 1, 2]
    assert talk.asked == [GetSpecs(5, 1, array("I", [7, 8, 9])), GetSpecs(5, 1, array("I", [9]))]


def test_a_server_that_tells_no_spec():
    with pytest.raises(InvalidRequestError, match="no spec of task 1/8"):
        list(task_verbs._specs(Talk(Specs(5, [msgpack.packb({})]), Specs(5, [])), 1, [7, 8]))


def test_infos_in_portions(monkeypatch):
    monkeypatch.setattr(task_verbs, "INFOS", 2)
    talk = Talk(Infos(5, b"\3\4", [None, msgpack.packb({"duration": 2.0})]), Infos(5, b"\0", [None]))
    assert list(task_verbs._infos(talk, 1, [7, 8, 9])) == [
        {"state": "running"},
        {"state": "finished", "duration": 2.0},
        {"state": "notAssigned"},
    ]
    assert talk.asked == [GetInfos(5, 1, array("I", [7, 8])), GetInfos(5, 1, array("I", [9]))]


ROW = rows.TaskRow(1, 12, TaskState.failed, "name", "a/b", "10.0.0.1:7000", 1.5, 0.25)


def test_all_that_is_known_of_a_task():
    spec = {
        "id": 12,
        "task_type": "a/b",
        "resources": {"cpus": 1},
        "inputs": [10, 11],
        "outputs": [13],
        "input_labels": [None, "x"],
        "config": {"k": [1]},
        "retries": 0,
    }
    info = {
        "state": "failed",
        "governor": "10.0.0.1:7000",
        "attempts": 2,
        "start_time": 1.5,
        "duration": 0.25,
        "error": "boom\nmore",
        "user": {"told": 1},
        "exception": "pickle",
    }
    report = task_verbs.info_report([ROW], [spec], [info])
    (document,) = report.document["tasks"]
    assert document["spec"]["inputs"] == ["1/10", "1/11"]
    assert document["info"] == {
        "worker": "10.0.0.1:7000",
        "attempts": 2,
        "start": "1970-01-01T00:00:01.500Z",
        "duration": 0.25,
        "error": "boom\nmore",
        "debug": "",
        "user": {"told": 1},
    }
    assert report.text("table").splitlines() == [
        "task              1/12",
        "state             failed",
        "type              a/b",
        'resources         {"cpus": 1}',
        "retries           0",
        'config            {"k": [1]}',
        "inputs            1/10 x=1/11",
        "outputs           1/13",
        "worker            10.0.0.1:7000",
        "attempts          2",
        "start             1970-01-01T00:00:01.500Z",
        "duration          250 ms",
        'told by the task  {"told": 1}',
        "error             boom",
        "                  more",
    ]


def test_what_the_server_dropped():
    spec = {"id": 12, "task_type": "a/b", "inputs": [], "outputs": [], "input_labels": ["x"], "released": True}
    report = task_verbs.info_report([ROW], [spec], [{"state": "finished"}])
    assert "inputs   (dropped: the task cannot run again)" in report.text("table")
    assert report.document["tasks"][0]["released"] is True


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "cancelled  nothing: no task of 1/3-9 was unfinished"),
        (["1/3"], "cancelled  1/3"),
        (["1/3", "1/4"], "cancelled  2 tasks"),
    ],
)
def test_cancelled(ids, text):
    report = task_verbs.cancel_report(values.selector("1/3-9"), ids)
    assert report.text("table") == text
    assert report.document == {"cancelled": ids, "count": len(ids)}
