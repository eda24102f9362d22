"""Codec: schema and dataclasses agree, everything survives the trip, nothing malformed gets through or crashes."""

import dataclasses
import random
import struct
from array import array
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings, strategies as st

from rain.protocol import messages as m
from rain.protocol.codec import MESSAGE_CLASSES, decode, encode
from rain.protocol.framing import FrameReader, segment_table
from rain.protocol.limits import MAX_FRAME, ProtocolError
from rain.protocol.stock import schema
from tests.protocol.strategies import any_message, camel_case, messages, normal

SCALARS = {"int": "uint", "str": "text", "bool": "bool", "float": "float64"}
SCHEMA = schema()


def u32(*values: int) -> array:
    return array("I", values)


def raw_frame(member: str, **fields: Any) -> bytes:
    """A frame with any content, valid or not."""
    builder = SCHEMA.Message.new_message()
    body = builder.init(member)
    for name, field in fields.items():
        setattr(body, name, field)
    return builder.to_bytes()


def test_every_dataclass_of_messages_is_a_message():
    classes = {cls for cls in vars(m).values() if dataclasses.is_dataclass(cls)}
    assert set(MESSAGE_CLASSES) == classes


def test_union_has_every_class():
    assert set(SCHEMA.Message.schema.fields) == {camel_case(cls.__name__) for cls in MESSAGE_CLASSES}


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
def test_struct_has_the_fields_of_the_dataclass(cls: type[Any]):
    struct = getattr(SCHEMA, cls.__name__).schema
    fields = dataclasses.fields(cls)
    assert list(struct.fields) == [camel_case(field.name) for field in fields]
    for field in fields:
        kind = struct.fields[camel_case(field.name)].proto.slot.type.which()
        assert str(kind).startswith(SCALARS.get(field.type, "data")), field.name


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
def test_round_trip(cls: type[Any]):
    @settings(max_examples=25, deadline=None, database=None)
    @given(messages(cls))
    def check(message: Any) -> None:
        assert decode(encode([message])) == normal(message)

    check()


@settings(max_examples=50, deadline=None)
@given(st.lists(any_message, max_size=8))
def test_many_messages_make_a_stream(sent: list[Any]):
    received = [decode(frame) for frame in FrameReader().feed(encode(sent))]
    assert received == [normal(message) for message in sent]


def test_stock_readers_read_the_stream():
    data = encode([m.Accepted(7), m.Heartbeat()])
    read = list(SCHEMA.Message.read_multiple_bytes(data))
    assert [str(message.which()) for message in read] == ["accepted", "heartbeat"]
    assert read[0].accepted.seq == 7


def test_frames_in_several_segments_are_read():
    builder = SCHEMA.Message.new_message(num_first_segment_words=2)
    body = builder.init("sessionWarning")
    body.text = "x" * 100_000
    data = builder.to_bytes()
    assert data[:4] != bytes(4)
    (frame,) = FrameReader().feed(data)
    assert decode(frame) == m.SessionWarning(0, "x" * 100_000)


def test_missing_fields_read_as_empty():
    assert decode(raw_frame("tasksStarted")) == m.TasksStarted(0, u32(), u32())


@pytest.mark.parametrize(
    ("member", "fields"),
    [
        ("wait", {"ids": b"123"}),
        ("objectsFetched", {"sizes": bytes(12)}),
        ("infos", {"infos": b"\xc1"}),
        ("infos", {"states": b"1", "infos": msgpack.packb([b"1"]) + b"\x00"}),
        ("infos", {"states": b"1", "infos": msgpack.packb(["text"])}),
        ("infos", {"states": b"1", "infos": msgpack.packb({"a": 1})}),
        ("infos", {"states": b"1", "infos": msgpack.packb([b"x"])[:-1]}),
        ("infos", {"states": b"1", "infos": b"\xdd\xff\xff\xff\xff"}),
        ("infos", {"states": b"1", "infos": b"\x91" * 2000}),
        ("serverInfo", {"info": msgpack.packb([1])}),
        ("serverInfo", {"info": msgpack.packb({b"k": 1})}),
        ("serverInfo", {}),
        ("objectsMissing", {"holders": msgpack.packb([b"bytes"])}),
        ("objectsFetched", {"sizes": bytes(8), "holders": msgpack.packb(["x"])}),
        ("objectsFetched", {"sizes": bytes(8), "holders": msgpack.packb([[1]])}),
        ("submitChunk", {"templates": msgpack.packb([None])}),
    ],
)
def test_malformed_fields_are_refused(member: str, fields: dict[str, bytes]):
    with pytest.raises(ProtocolError):
        decode(raw_frame(member, **fields))


def test_text_that_is_not_utf8_is_refused():
    frame = encode([m.SessionWarning(1, "aaaaaaaaaa")]).replace(b"aaaaaaaaaa", b"\xff" * 10)
    with pytest.raises(ProtocolError, match="malformed"):
        decode(frame)


def test_unknown_union_member_is_refused():
    frame = bytearray(encode([m.Heartbeat()]))
    frame[16] = 200
    with pytest.raises(ProtocolError):
        decode(bytes(frame))


EMPTY = u32()
SUBMIT = m.SubmitChunk(
    1, [], u32(1), u32(0), [None], u32(1), u32(9), u32(2), u32(1, 2), b"\0\0", u32(9), b"\2", [None], [b"v"]
)
ASSIGN = m.AssignTasks(
    1, EMPTY, [], u32(1), u32(1), u32(0), [b""], u32(1), u32(9), u32(1), u32(1), EMPTY, u32(9), array("Q", [1]),
    [None], [None], [b"v"], [[]],
)  # fmt: skip
DONE = m.TasksDone(
    1, u32(1), u32(1), array("d", [1]), array("d", [1]), [b"i"], array("Q", [1]), [b"i"], [b"v"]
)  # fmt: skip
VALUES = m.ValuesFetched(1, u32(1, 0, 2), b"abc", [b"i", None], b"\0\1\0", "")
BLOCK = m.SubmitBlock(1, [b"t"], 0, 100, 5, 3, u32(9), True, b"abc", u32(1, 2))


@pytest.mark.parametrize(
    "message",
    [
        dataclasses.replace(SUBMIT, task_templates=u32()),
        dataclasses.replace(SUBMIT, args=[b"a", b"b"]),
        dataclasses.replace(SUBMIT, inputs=u32()),
        dataclasses.replace(SUBMIT, outputs=u32(1)),
        dataclasses.replace(SUBMIT, output_flags=b""),
        dataclasses.replace(SUBMIT, object_flags=b""),
        dataclasses.replace(SUBMIT, object_specs=[b"", b""]),
        dataclasses.replace(SUBMIT, values=[]),
        dataclasses.replace(ASSIGN, runs=u32()),
        dataclasses.replace(ASSIGN, inputs=u32()),
        dataclasses.replace(ASSIGN, output_counts=u32(0)),
        dataclasses.replace(ASSIGN, templates=[b""]),
        dataclasses.replace(ASSIGN, sizes=array("Q")),
        dataclasses.replace(ASSIGN, holders=[[], []]),
        dataclasses.replace(ASSIGN, members=u32(1, 2)),
        dataclasses.replace(ASSIGN, output_specs=[b"", b""]),
        dataclasses.replace(ASSIGN, links=[b"", None]),
        dataclasses.replace(BLOCK, args=b"ab"),
        dataclasses.replace(BLOCK, args=b"abcd"),
        dataclasses.replace(BLOCK, arg_sizes=u32()),
        dataclasses.replace(BLOCK, arg_sizes=u32(1, 1, 1)),
        dataclasses.replace(BLOCK, column="q", args=bytes(16), arg_sizes=u32(8)),
        dataclasses.replace(BLOCK, column="q", args=bytes(16), arg_sizes=u32(8, 7)),
        dataclasses.replace(BLOCK, column="q", args=bytes(15), arg_sizes=u32(8)),
        dataclasses.replace(BLOCK, column="x", args=bytes(16), arg_sizes=u32(8, 8)),
        dataclasses.replace(BLOCK, keeps=b"\0"),
        dataclasses.replace(BLOCK, keeps=b"\0\1\0"),
        dataclasses.replace(BLOCK, members=4),
        dataclasses.replace(BLOCK, start=2**32 - 1),
        dataclasses.replace(DONE, blocks=[b"", b""]),
        dataclasses.replace(DONE, starts=array("d")),
        dataclasses.replace(DONE, values=[b"", b""]),
        m.ObjectsFetched(1, array("Q"), [], [], [b"v"], []),
        dataclasses.replace(VALUES, values=b"abcd"),
        dataclasses.replace(VALUES, kinds=b"\0\0"),
        dataclasses.replace(VALUES, infos=[b"i"]),
        dataclasses.replace(VALUES, column="q", values=bytes(24)),
        dataclasses.replace(VALUES, column="q", values=bytes(23), sizes=u32()),
        dataclasses.replace(VALUES, column="x", values=bytes(24), sizes=u32()),
        dataclasses.replace(VALUES, column="d", values=bytes(16), sizes=u32()),
        m.Infos(1, b"", [b"i"]),
        m.CancelTasks(1, u32(1), u32(), 0.0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_columns_of_different_lengths_are_refused(message: Any):
    frame = encode([message])
    with pytest.raises(ProtocolError, match=type(message).__name__):
        decode(frame)


def test_stretches_of_ids():
    last = 2**32
    for ids in (range(5, 9), range(last - 3, last), range(0), range(7, 7)):
        message = m.FetchObjects(1, 1, ids, [])
        assert decode(encode([message])) == message
    frame = encode([m.FetchObjects(1, 1, range(last - 3, last), [])])
    longer = frame.replace(struct.pack("<II", last - 3, 3), struct.pack("<II", last - 3, 4))
    with pytest.raises(ProtocolError, match="a stretch of ids ends behind the largest one"):
        decode(longer)


def test_the_messages_before_their_damage_are_valid():
    with_blocks = dataclasses.replace(ASSIGN, members=u32(3), output_specs=[b"spec"])
    linked = dataclasses.replace(BLOCK, link=b"link", keeps=b"\0\1")
    assigned = dataclasses.replace(with_blocks, links=[b"link"])
    ended = dataclasses.replace(DONE, blocks=[b"result"], sizes=array("Q"), output_infos=[], values=[])
    for message in (SUBMIT, ASSIGN, DONE, BLOCK, VALUES, with_blocks, linked, assigned, ended):
        assert decode(encode([message])) == normal(message)


@pytest.mark.parametrize(
    "message",
    [
        m.Accepted(-1),
        m.CloseSession(1, 2**40),
        m.FetchObjects(1, 1, range(0, 4, 2), []),
        m.FetchObjects(1, 1, range(-1, 4), []),
        m.FetchObjects(1, 1, range(2**32), []),
        m.Wait(1, 1, 0, array("Q", [1])),
        m.NewSession(1, "\ud800", "fail", False),
        m.NewSession(1, 5, "fail", False),  # type: ignore[arg-type]
        m.ServerInfo(1, {"big": 2**80}),
        m.ServerInfo(1, {"odd": object()}),
        m.Wait(1, 1, 0, [1, 2]),  # type: ignore[arg-type]
        "no message",
    ],
    ids=repr,
)
def test_what_does_not_fit_is_an_error_of_the_sender(message: Any):
    with pytest.raises(ProtocolError, match="cannot encode"):
        encode([message])


def test_a_message_beyond_the_limit_is_an_error_of_the_sender():
    with pytest.raises(ProtocolError, match="ConstantPiece message of"):
        encode([m.ConstantPiece(1, 2, 0, MAX_FRAME, bytes(MAX_FRAME))])


def _samples() -> list[bytes]:
    refused = m.Refused(5, {"kind": "task", "message": "text"})
    return [encode([message]) for message in (SUBMIT, BLOCK, ASSIGN, DONE, refused, m.NewSession(1, "n", "fail", True))]


def _decodes_or_refuses(frame: bytes) -> None:
    try:
        message = decode(frame)
    except ProtocolError:
        return
    assert type(message) in MESSAGE_CLASSES


def test_fuzz_random_bytes():
    source = random.Random(1)
    for _ in range(5_000):
        words = source.randrange(12)
        _decodes_or_refuses(segment_table([8 * words]) + source.randbytes(8 * words))
        _decodes_or_refuses(source.randbytes(8 * source.randrange(1, 12)))


def test_fuzz_flipped_bits_and_cut_frames():
    source = random.Random(2)
    samples = _samples()
    for _ in range(8_000):
        frame = bytearray(source.choice(samples))
        for _ in range(source.randrange(1, 5)):
            frame[source.randrange(len(frame))] ^= 1 << source.randrange(8)
        _decodes_or_refuses(bytes(frame))
    for _ in range(2_000):
        frame = source.choice(samples)
        _decodes_or_refuses(frame[: 8 * source.randrange(1, len(frame) // 8)])
