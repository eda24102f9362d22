"""From records to events."""

from __future__ import annotations

import json
from array import array
from itertools import islice

import msgpack
import pytest
from hypothesis import given

from rain.eventlog.expanding import expand, map_of
from rain.eventlog.packing import Batch, pack, unpack
from rain.eventlog.records import MembersFinished, RunsFinished, Submitted, TasksEnded
from rain.testing.server_builders import SubmitBuilder
from tests.eventlog.making import ANY_BATCH, by_id, config_templates, meaning, templates_of, u32


@given(ANY_BATCH)
def test_what_is_stored_means_what_was_recorded(record: Batch):
    kind, _, data = pack(record, config_templates(record))
    stored, packed = unpack(kind, record.session, data), templates_of(record)
    expected = [by_id(event) for event in meaning(record)]
    found = [by_id(event) for event in expand(stored, packed.get)]
    assert found == expected
    for skip in range(len(expected) + 2):
        assert [by_id(event) for event in expand(stored, packed.get, skip)] == expected[skip:]


def test_a_finished_run():
    """Word by word, as the manual says."""
    info = msgpack.packb({"user": {"k": [1, False]}, "debug": "text"})
    columns = u32([11]), u32([2]), array("d", [1.7e9]), array("d", [0.25]), [info], u32([2]), u32([9, 10])
    record = RunsFinished(3, "h:1", *columns, array("Q", [5, 6]))
    start = "2023-11-14T22:13:20.000000Z"
    told = {"duration": 0.25, "governor": "h:1", "user": {"k": [1, False]}, "debug": "text"}
    assert list(expand(record, {}.get)) == [
        {"type": "TaskStarted", "task": [3, 11], "worker": "h:1", "governor": "h:1", "info": {"start_time": start}},
        {"type": "TaskFinished", "task": [3, 11], "info": {"start_time": start, **told}},
        {"type": "DataObjectFinished", "dataobject": [3, 9], "worker": "h:1", "governor": "h:1", "size": 5},
        {"type": "DataObjectFinished", "dataobject": [3, 10], "worker": "h:1", "governor": "h:1", "size": 6},
    ]


def test_a_submit():
    """Word by word; a task array is one entry."""
    builder = SubmitBuilder().constant(10, keep=True)
    builder.task(12, [10, 10], [11], keep=True, name="a", args=b"\x81\xa1x\x01", task_type="x/y", labels=["l", None])
    builder.array(20, 3, [11], config={"c": 1}, keep=False)
    messages = builder.messages(2)
    packed = dict(enumerate(messages[0].templates))
    (event,) = expand(Submitted(2, 0, messages), packed.get)
    fields = {"name": "a", "task_type": "x/y", "labels": ["l", None], "config": {"x": 1}}
    assert event == {
        "type": "ClientSubmit",
        "session": 2,
        "tasks": [
            {"id": [2, 12], **fields, "inputs": [[2, 10], [2, 10]], "outputs": [[2, 11]]},
            {
                "id": [2, 23],
                "count": 3,
                "task_type": "py/",
                "config": {"c": 1},
                "inputs": [[2, 11]],
                "outputs": [[2, 20]],
            },
        ],
        "dataobjs": [
            {"id": [2, 11], "keep": True},
            {"id": [2, 20], "count": 3, "keep": False},
            {"id": [2, 10], "keep": True, "constant": True},
        ],
    }


def test_a_linked_block():
    """Word by word; each member is an entry."""
    builder = SubmitBuilder().linked(20, [[7], [8, 20, 6], [7, 21, 20]], keep=[1], names=["a", "b", "a"])
    messages = builder.messages(2)
    packed = dict(enumerate(messages[0].templates))
    (event,) = expand(Submitted(2, 0, messages), packed.get)
    a, b = {"name": "a", "task_type": "py/"}, {"name": "b", "task_type": "py/"}
    assert event["tasks"] == [
        {"id": [2, 23], **a, "inputs": [[2, 7]], "outputs": [[2, 20]]},
        {"id": [2, 24], **b, "inputs": [[2, 8], [2, 20], [2, 6]], "outputs": [[2, 21]]},
        {"id": [2, 25], **a, "inputs": [[2, 7], [2, 21], [2, 20]], "outputs": [[2, 22]]},
    ]
    assert event["dataobjs"] == [
        {"id": [2, 20], "keep": False},
        {"id": [2, 21], "keep": True},
        {"id": [2, 22], "keep": False},
    ]


def test_expansion_is_lazy():
    """The first of four thousand million events is there at once; so is one in the middle."""
    record = TasksEnded(1, "TaskAborted", u32([0]), u32([(1 << 32) - 1]))
    assert [event["task"][1] for event in islice(expand(record, {}.get), 3)] == [0, 1, 2]
    assert next(expand(record, {}.get, 1 << 31))["task"][1] == 1 << 31


def test_members_begin_one_after_the_other():
    record = MembersFinished(1, "h:1", 200, 100, 1, 1.7e9, array("f", [0.5, 0.25, 1.0]), array("I", [1, 2, 3]), True)
    events = list(expand(record, {}.get))
    starts = [event["info"]["start_time"][-10:] for event in events if event["type"] == "TaskFinished"]
    assert starts == ["20.000000Z", "20.500000Z", "20.750000Z"]
    assert [event["task"][1] for event in events if event["type"] == "TaskStarted"] == [201, 202]


@pytest.mark.parametrize("start", [0.0, float("nan"), float("inf"), -1e300, 1e300])
def test_impossible_times(start: float):
    """A worker may report anything; it must not make the log unreadable."""
    columns = u32([11]), u32([1]), array("d", [start]), array("d", [start]), [], u32(), u32([10]), array("Q", [1])
    events = list(expand(RunsFinished(1, "h:1", *columns), {}.get))
    json.dumps(events, allow_nan=False)
    assert events[0]["info"]["start_time"] == ""


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x01", b"\x93\x01", msgpack.packb([1])])
def test_what_is_no_map_tells_nothing(packed: bytes):
    assert map_of(packed) == {}


def test_what_json_cannot_hold():
    odd = {"b": b"12", "f": float("nan"), "l": [b"", 1.5], 7: {"t": msgpack.Timestamp(1)}}
    found = map_of(msgpack.packb(odd))
    assert found == {"b": "<2 bytes>", "f": None, "l": ["<0 bytes>", 1.5], "7": {"t": "<Timestamp>"}}
    json.dumps(found, allow_nan=False)


def test_templates_that_are_lost():
    builder = SubmitBuilder().task(12, [], [11], name="a")
    (event,) = expand(Submitted(2, 0, builder.messages(2)), {}.get)
    assert event["tasks"] == [{"id": [2, 12], "inputs": [], "outputs": [[2, 11]]}]
