"""Batches as bytes and back: nothing is lost, little is needed, nothing secret is kept."""

from __future__ import annotations

import dataclasses
import random
import time
from array import array

import msgpack
import pytest
from hypothesis import given

from rain.common.links import Link
from rain.eventlog.packing import Batch, count_events, pack, unpack
from rain.eventlog.records import MembersFinished, RunsFinished, Submitted, TasksEnded
from rain.protocol.messages import SubmitBlock
from rain.testing.server_builders import SubmitBuilder
from tests.eventlog.making import ANY_BATCH, config_templates, meaning, u32

LINK = Link([0, 1], b"\0\1", b"\1\2", array("H", [0, 0, 1]), 1).pack()
"""Of two members, the second of which uses the first."""


def stored_form(record: Batch) -> Batch:
    """What of a record is in the log."""
    if not isinstance(record, Submitted):
        return record
    wanted = config_templates(record)
    chunks = []
    for chunk in record.chunks:
        if isinstance(chunk, SubmitBlock):
            sizes = u32([0] * len(chunk.arg_sizes))
            chunks.append(dataclasses.replace(chunk, templates=[], args=b"", arg_sizes=sizes))
            continue
        args = chunk.args
        if args:
            pairs = zip(args, chunk.task_templates, strict=True)
            args = [arg if number in wanted else None for arg, number in pairs]
            if not wanted & set(chunk.task_templates):
                args = []
        chunks.append(dataclasses.replace(chunk, templates=[], values=[], args=args))
    return dataclasses.replace(record, chunks=chunks)


@given(ANY_BATCH)
def test_there_and_back(record: Batch):
    kind, count, data = pack(record, config_templates(record))
    assert count == count_events(record) == len(meaning(record))
    found = unpack(kind, record.session, data)
    assert found == stored_form(record)
    assert count_events(found) == count


def test_all_kinds():
    """One name for each class of records."""
    records = [
        RunsFinished(1, "w", u32(), u32(), array("d"), array("d"), [], u32(), u32(), array("Q")),
        TasksEnded(1, "TaskAborted", u32(), u32()),
    ]
    assert [pack(record)[0] for record in records] == ["finished", "ended"]
    with pytest.raises(ValueError, match="no kind of batch"):
        unpack("unknown", 1, b"\x90")


def finished(count: int) -> RunsFinished:
    source = random.Random(1)
    numbers = list(range(11, 11 + 2 * count, 2))
    source.shuffle(numbers)
    return RunsFinished(
        session=1,
        worker="127.0.0.1:40000",
        tasks=u32(numbers),
        runs=u32([1]) * count,
        starts=array("d", [source.random() for _ in range(count)]),
        durations=array("d", [source.random() for _ in range(count)]),
        infos=[],
        output_counts=u32(),
        outputs=u32([number - 1 for number in numbers]),
        sizes=array("Q", [9]) * count,
    )


def test_bytes_of_finished_runs():
    """Two ids and two times; what is the same for all costs nothing."""
    assert len(pack(finished(1000))[2]) < 1000 * (4 + 4 + 8 + 8) + 200


def test_bytes_of_finished_members():
    record = MembersFinished(1, "w:1", 5000, 1000, 1, 1.5, array("f", [0.5]) * 1000, array("I", [4]) * 1000, False)
    assert len(pack(record)[2]) < 1000 * 4 + 100


def test_packing_is_fast():
    """Tens of microseconds for 1000 runs; a thousand objects would need more than this very generous bound."""
    record = finished(1000)
    times = []
    for _ in range(50):
        start = time.thread_time()
        pack(record)
        times.append(time.thread_time() - start)
    assert min(times) < 0.0005


def test_a_large_submit_of_equal_tasks_is_small():
    builder = SubmitBuilder()
    for number in range(10, 4010, 2):
        builder.task(number + 1, [5], [number], config={})
    _, _, data = pack(Submitted(1, 0, builder.messages(1)))
    assert len(data) < 2000


def test_secrets_stay_out():
    """Values of objects, arguments of Python calls and of members of arrays are not in the log."""
    builder = SubmitBuilder().constant(10, b"SECRET-value").array(20, 3, [10], config={})
    builder.task(11, [10], [12], args=b"SECRET-argument", config={"encode": 1}, task_type="py/")
    messages = builder.messages(1)
    block = messages[1]
    assert isinstance(block, SubmitBlock)
    messages[1] = dataclasses.replace(block, args=b"SECRET", arg_sizes=u32([2, 2, 2]))
    _, _, data = pack(Submitted(1, 0, messages))
    assert b"SECRET" not in data
    shown = repr(unpack("submit", 1, data))
    assert "SECRET" not in shown


def test_bytes_of_linked_members():
    """A chain: what each uses, mostly compressed away."""
    builder = SubmitBuilder().linked(1000, [[7], *([7, 1000 + k] for k in range(1000))])
    assert len(pack(Submitted(1, 0, builder.messages(1)))[2]) < 1000 * 6


def test_blocks_of_older_logs():
    """Rows of blocks were shorter before there were linked ones, and those of others still are."""
    row = [3, 100, 5, 1, 2, array("I", [7, 9]).tobytes(), True]
    assert unpack("submit", 1, msgpack.packb([0, row])) == Submitted(
        1, 0, [SubmitBlock(1, [], 3, 100, 5, 1, u32([7, 9]), True, b"", u32([0, 0]))]
    )


@pytest.mark.parametrize(
    ("link", "keeps"),
    [(b"", b""), (b"\x90", b""), (LINK[:-1], b""), (None, b""), (LINK, None), (LINK, b"\1"), (LINK, "ab"), (LINK, 1)],
)
def test_damaged_links(link: object, keeps: object):
    row = [0, 100, 2, 0, 2, array("I", [7]).tobytes(), True]
    assert unpack("submit", 1, msgpack.packb([0, [*row, LINK, b"\0\1"]]))
    with pytest.raises(ValueError, match="damaged batch"):
        unpack("submit", 1, msgpack.packb([0, [*row, link, keeps]]))


def test_config_of_other_tasks_is_kept():
    builder = SubmitBuilder().task(11, [], [10], args=b"\xa4KEPT", task_type="x/y")
    found = unpack("submit", 1, pack(Submitted(1, 7, builder.messages(1, 7)), {7})[2])
    assert isinstance(found, Submitted)
    assert found.chunks[0].args == [b"\xa4KEPT"]


@pytest.mark.parametrize("kind", ["submit", "started", "finished", "members", "ended", "unkept"])
@pytest.mark.parametrize("data", [b"", b"\x90", b"\xc0", b"\x91\xc0", b"\x78\x01", b"\xa3abc", b"\x92\x01\x93\x01\x02"])
def test_damage_is_told(kind: str, data: bytes):
    with pytest.raises(ValueError, match="damaged batch"):
        unpack(kind, 1, data)


def test_lengths_must_agree():
    record = dataclasses.replace(finished(10), outputs=u32([1]))
    with pytest.raises(ValueError, match="do not belong together"):
        unpack("finished", 1, pack(record)[2])


@pytest.mark.parametrize(
    "column", [[0, 0, 1 << 40], [5, -1, 3], [1 << 40, 1, 3], [0, 1, -1], [1, 2], "abc", [0.5, 1, 3]]
)
def test_impossible_columns(column):
    with pytest.raises(ValueError, match="damaged batch"):
        unpack("unkept", 1, msgpack.packb([column]))
