"""The binary protocol: exact packets, replies cut anywhere, quiet requests, violations."""

from __future__ import annotations

import asyncio
import random
import struct
import time

import pytest
from hypothesis import given, settings, strategies as st

from rain.memcache import requests
from rain.memcache.base import Item
from rain.memcache.binary import LARGE_VALUE, BinaryDialect
from rain.memcache.replies import MISS, ErrorLine, Items, MetaItem, Reply, Violation
from rain.memcache.requests import Request
from rain.memcache.testing import success
from rain.memcache.testing.framing import HEADER, REQUEST, next_request, packet

U32, U64 = struct.Struct("!I"), struct.Struct("!Q")
FLAGS = U32.pack(5)


def plain(reply: Reply | None) -> object:
    """A reply as something that can be compared."""
    if isinstance(reply, Items):
        return list(reply)
    if isinstance(reply, MetaItem):
        return ("meta", reply.code)
    if isinstance(reply, Violation):
        return ("violation", reply.reason)
    if isinstance(reply, ErrorLine):
        return ("error", reply.line)
    return reply


def sent(*wanted: Request) -> bytes:
    """What a fresh dialect sends for some requests."""
    buffers, unsupported = BinaryDialect().encode(wanted)
    assert not unsupported
    return b"".join(buffers)


def asked(opcode: int, number: int = 0, **parts: bytes | int) -> bytes:
    return packet(opcode, magic=REQUEST, opaque=number, **parts)


SENT = [
    (requests.fetch("get", b"foo"), asked(0x00, key=b"foo")),
    (requests.fetch("gets", b"foo", True), asked(0x00, key=b"foo")),
    (requests.fetch("gat", b"foo", exptime=9), asked(0x1D, key=b"foo", extras=U32.pack(9))),
    (requests.fetch("gats", b"foo", exptime=-1), asked(0x1D, key=b"foo", extras=U32.pack(2_592_001))),
    (requests.fetch_many("get_many", (b"a", b"b")), asked(0x0D, key=b"a") + asked(0x0D, key=b"b") + asked(0x0A)),
    (requests.fetch_many("gets_many", (b"a",)), asked(0x0D, key=b"a") + asked(0x0A)),
    (
        requests.fetch_many("gat_many", (b"a",), exptime=3),
        asked(0x24, key=b"a", extras=U32.pack(3)) + asked(0x0A),
    ),
    (requests.fetch_many("gats_many", (b"a",)), asked(0x24, key=b"a", extras=bytes(4)) + asked(0x0A)),
    (
        requests.store("set", b"foo", b"value", 5, 9),
        asked(0x01, key=b"foo", value=b"value", extras=FLAGS + U32.pack(9)),
    ),
    (
        requests.store("set", b"foo", b"value", 5, -1, noreply=True),
        asked(0x11, key=b"foo", value=b"value", extras=FLAGS + U32.pack(2_592_001)),
    ),
    (requests.store("add", b"foo", b""), asked(0x02, key=b"foo", extras=bytes(8))),
    (requests.store("add", b"foo", b"", noreply=True), asked(0x12, key=b"foo", extras=bytes(8))),
    (requests.store("replace", b"foo", b"v"), asked(0x03, key=b"foo", value=b"v", extras=bytes(8))),
    (requests.store("replace", b"foo", b"v", noreply=True), asked(0x13, key=b"foo", value=b"v", extras=bytes(8))),
    (requests.store("cas", b"foo", b"v", token=7), asked(0x01, key=b"foo", value=b"v", extras=bytes(8), cas=7)),
    (
        requests.store("cas", b"foo", b"v", token=2**64 - 1, noreply=True),
        asked(0x11, key=b"foo", value=b"v", extras=bytes(8), cas=2**64 - 1),
    ),
    (requests.store("append", b"foo", memoryview(b"v")), asked(0x0E, key=b"foo", value=b"v")),
    (requests.store("append", b"foo", b"v", noreply=True), asked(0x19, key=b"foo", value=b"v")),
    (requests.store("prepend", b"foo", b"v"), asked(0x0F, key=b"foo", value=b"v")),
    (requests.store("prepend", b"foo", b"v", noreply=True), asked(0x1A, key=b"foo", value=b"v")),
    (
        requests.arithmetic("increment", b"foo", 2**64 - 1),
        asked(0x05, key=b"foo", extras=U64.pack(2**64 - 1) + bytes(8) + b"\xff" * 4),
    ),
    (
        requests.arithmetic("increment", b"foo", 1, noreply=True),
        asked(0x15, key=b"foo", extras=U64.pack(1) + bytes(8) + b"\xff" * 4),
    ),
    (
        requests.arithmetic("decrement", b"foo", 1),
        asked(0x06, key=b"foo", extras=U64.pack(1) + bytes(8) + b"\xff" * 4),
    ),
    (
        requests.arithmetic("decrement", b"foo", 1, noreply=True),
        asked(0x16, key=b"foo", extras=U64.pack(1) + bytes(8) + b"\xff" * 4),
    ),
    (requests.delete(b"foo"), asked(0x04, key=b"foo")),
    (requests.delete(b"foo", noreply=True), asked(0x14, key=b"foo")),
    (requests.touch(b"foo", 4), asked(0x1C, key=b"foo", extras=U32.pack(4))),
    (requests.touch(b"foo", -4, noreply=True), asked(0x1C, key=b"foo", extras=U32.pack(2_592_001))),
    (requests.flush_all(2), asked(0x08, extras=U32.pack(2))),
    (requests.flush_all(noreply=True), asked(0x18, extras=bytes(4))),
    (requests.version(), asked(0x0B)),
    (requests.stats(), asked(0x10)),
    (requests.stats(("items", "x")), asked(0x10, key=b"items x")),
    (requests.quit_(), asked(0x07)),
    (requests.barrier(), asked(0x0A)),
    (requests.authenticate("us er", "pä"), asked(0x21, key=b"PLAIN", value="\0us er\0pä".encode())),
]


@pytest.mark.parametrize(("request_", "data"), SENT)
def test_packets_sent(request_: Request, data: bytes):
    assert sent(request_) == data
    expected = 0 if request_.noreply else 1
    dialect = BinaryDialect()
    dialect.encode([request_])
    assert dialect.unanswered == expected == len(dialect.take_unanswered())


@pytest.mark.parametrize(
    "request_",
    [
        requests.store("cas", b"foo", b"v", token=0),
        requests.cache_memlimit(64),
        requests.verbosity(1),
        requests.lease(b"foo", 30),
        requests.meta_delete(b"foo", 1),
        requests.meta_delete_invalid(b"foo"),
        requests.touch_fetch(b"foo", 1),
        requests.placeholder(b"foo"),
        requests.config(),
        requests.get_config(),
        requests.probe(),
    ],
)
def test_what_does_not_exist_is_not_sent(request_: Request):
    dialect = BinaryDialect()
    other = requests.fetch("get", b"a")
    assert dialect.encode([request_, other]) == ([asked(0x00, key=b"a")], [request_])
    assert dialect.encode([request_]) == ([], [request_])
    assert dialect.oldest() is other


def test_one_buffer_per_turn_but_large_values_stay_apart():
    large = memoryview(bytes(LARGE_VALUE))
    turn = [
        requests.store("set", b"a", b"x"),
        requests.store("set", b"b", large),
        requests.store("set", b"c", large[1:]),
        requests.fetch("get", b"d"),
    ]
    buffers, _ = BinaryDialect().encode(turn)
    assert [len(buffer) for buffer in buffers] == [34 + 33, LARGE_VALUE, 33 + LARGE_VALUE - 1 + 25]
    assert buffers[1] is large


# (request, packets without their number, reply)
ANSWERED: list[tuple[Request, list[dict[str, object]], object]] = [
    (requests.fetch("get", b"k"), [{"opcode": 0, "extras": FLAGS, "value": b"END\r\n"}], Item(b"END\r\n", None, None)),
    (requests.fetch("get", b"k", True), [{"opcode": 0, "extras": FLAGS, "value": b""}], Item(b"", 5, None)),
    (
        requests.fetch("gets", b"k", True),
        [{"opcode": 0, "extras": b"\xff" * 4, "value": b"v", "cas": 2**64 - 1}],
        Item(b"v", 2**32 - 1, 2**64 - 1),
    ),
    (requests.fetch("gat", b"k"), [{"opcode": 0x1D, "extras": FLAGS, "value": b"v", "cas": 3}], Item(b"v", None, None)),
    (requests.fetch("gats", b"k"), [{"opcode": 0x1D, "extras": FLAGS, "value": b"v", "cas": 3}], Item(b"v", None, 3)),
    (requests.fetch("gat", b"k"), [{"opcode": 0x1D, "status": 1, "value": b"Not found"}], MISS),
    (requests.fetch_many("get_many", (b"a", b"b")), [{"opcode": 0x0A}], []),
    (
        requests.fetch_many("get_many", (b"a", b"b", b"c")),
        [
            {"opcode": 0x0D, "extras": FLAGS, "key": b"c", "value": b"C", "cas": 1},
            {"opcode": 0x0D, "status": 1, "value": b"a proxy may tell it"},
            {"opcode": 0x0D, "extras": FLAGS, "key": b"a", "value": b"", "cas": 2},
            {"opcode": 0x0A},
        ],
        [(b"c", b"C", 5, None), (b"a", b"", 5, None)],
    ),
    (
        requests.fetch_many("gats_many", (b"a",)),
        [{"opcode": 0x24, "extras": FLAGS, "key": b"a", "value": b"A", "cas": 2}, {"opcode": 0x0A}],
        [(b"a", b"A", 5, 2)],
    ),
    (
        requests.fetch_many("get_many", (b"a", b"b")),
        [
            {"opcode": 0x0D, "extras": FLAGS, "key": b"a", "value": b"A"},
            {"opcode": 0x0D, "status": 0x82},
            {"opcode": 0x0D, "status": 0x81},
            {"opcode": 0x0A},
        ],
        ("error", b"SERVER_ERROR out of memory"),
    ),
    (requests.fetch_many("get_many", (b"a",)), [{"opcode": 0x0A, "status": 0x81}], ("error", b"ERROR")),
    (
        requests.fetch_many("get_many", (b"a",)),
        [{"opcode": 0x0D, "status": 0x20, "value": b"Auth failure."}],
        ("error", b"CLIENT_ERROR unauthenticated"),
    ),
    *(
        (requests.store(name, b"k", b"v"), [{"opcode": code, "cas": 9}], b"STORED")
        for name, code in (("set", 0x01), ("add", 0x02), ("replace", 0x03), ("append", 0x0E), ("prepend", 0x0F))
    ),
    (requests.store("cas", b"k", b"v", token=1), [{"opcode": 0x01, "cas": 9}], b"STORED"),
    (requests.store("cas", b"k", b"v", token=1), [{"opcode": 0x01, "status": 2}], b"EXISTS"),
    (requests.store("cas", b"k", b"v", token=1), [{"opcode": 0x01, "status": 1}], b"NOT_FOUND"),
    (requests.store("add", b"k", b"v"), [{"opcode": 0x02, "status": 2}], b"NOT_STORED"),
    (requests.store("replace", b"k", b"v"), [{"opcode": 0x03, "status": 1}], b"NOT_STORED"),
    (requests.store("append", b"k", b"v"), [{"opcode": 0x0E, "status": 5}], b"NOT_STORED"),
    (requests.store("append", b"k", b"v"), [{"opcode": 0x0E, "status": 1}], b"NOT_STORED"),
    (requests.store("prepend", b"k", b"v"), [{"opcode": 0x0F, "status": 1}], b"NOT_STORED"),
    (
        requests.store("set", b"k", b"v"),
        [{"opcode": 0x01, "status": 3}],
        ("error", b"SERVER_ERROR object too large for cache"),
    ),
    (requests.store("set", b"k", b"v"), [{"opcode": 0x01, "status": 4}], ("error", b"CLIENT_ERROR invalid arguments")),
    (requests.store("set", b"k", b"v"), [{"opcode": 0x01, "status": 0x82}], ("error", b"SERVER_ERROR out of memory")),
    (
        requests.store("set", b"k", b"v"),
        [{"opcode": 0x01, "status": 0x86, "value": b"Temporary failure"}],
        ("error", b"SERVER_ERROR Temporary failure"),
    ),
    (requests.arithmetic("increment", b"k", 1), [{"opcode": 0x05, "value": b"\xff" * 8}], b"18446744073709551615"),
    (requests.arithmetic("decrement", b"k", 1), [{"opcode": 0x06, "value": bytes(8)}], b"0"),
    (requests.arithmetic("decrement", b"k", 1), [{"opcode": 0x06, "status": 1}], b"NOT_FOUND"),
    (
        requests.arithmetic("increment", b"k", 1),
        [{"opcode": 0x05, "status": 6}],
        ("error", b"CLIENT_ERROR cannot increment or decrement non-numeric value"),
    ),
    (requests.delete(b"k"), [{"opcode": 0x04}], b"DELETED"),
    (requests.delete(b"k"), [{"opcode": 0x04, "status": 1, "value": b"Not found"}], b"NOT_FOUND"),
    (requests.touch(b"k", 1), [{"opcode": 0x1C, "extras": FLAGS}], b"TOUCHED"),
    (requests.touch(b"k", 1), [{"opcode": 0x1C, "status": 1}], b"NOT_FOUND"),
    (requests.flush_all(), [{"opcode": 0x08}], b"OK"),
    (requests.version(), [{"opcode": 0x0B, "value": b"1.6.18"}], b"VERSION 1.6.18"),
    (requests.version(), [{"opcode": 0x0B, "status": 0x81}], ("error", b"ERROR")),
    (requests.version(), [{"opcode": 0x0B, "status": 0x20}], ("error", b"CLIENT_ERROR unauthenticated")),
    (
        requests.stats(),
        [
            {"opcode": 0x10, "key": b"pid", "value": b"12"},
            {"opcode": 0x10, "key": b"a b", "value": b"x \xff"},
            {"opcode": 0x10},
        ],
        {"pid": "12", "a b": "x \N{REPLACEMENT CHARACTER}"},
    ),
    (requests.stats(("reset",)), [{"opcode": 0x10}], {}),
    (requests.stats(("nonsense",)), [{"opcode": 0x10, "status": 1}], b"NOT_FOUND"),
    (requests.barrier(), [{"opcode": 0x0A}], ("meta", "MN")),
    (requests.authenticate("a", "b"), [{"opcode": 0x21, "value": b"Authenticated"}], b"STORED"),
    (
        requests.authenticate("a", "b"),
        [{"opcode": 0x21, "status": 0x20, "value": b"Auth failure."}],
        ("error", b"CLIENT_ERROR authentication failure"),
    ),
    (requests.authenticate("a", "b"), [{"opcode": 0x21, "status": 0x81}], ("error", b"ERROR")),
]


def answer(packets: list[dict[str, object]], number: int) -> bytes:
    return b"".join(packet(**parts, opaque=number) for parts in packets)


@pytest.mark.parametrize(("request_", "packets", "reply"), ANSWERED)
def test_replies_cut_anywhere(request_: Request, packets: list[dict[str, object]], reply: object):
    data = answer(packets, 0)
    for cut in range(len(data) + 1):
        dialect = BinaryDialect()
        dialect.encode([request_])
        got = dialect.feed(memoryview(data)[:cut]) + dialect.feed(data[cut:])
        assert [(request, plain(given)) for request, given in got] == [(request_, reply)]
        assert (dialect.unanswered, dialect.oldest(), dialect.missing()) == (0, None, 0)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_all_replies_in_a_run(step: int):
    dialect = BinaryDialect()
    wanted = [request for request, _, _ in ANSWERED]
    dialect.encode(wanted)
    data = b"".join(answer(packets, number) for number, (_, packets, _) in enumerate(ANSWERED))
    got = []
    for start in range(0, len(data), step):
        assert dialect.unanswered == len(wanted) - len(got)
        assert dialect.oldest() is wanted[len(got)]
        got += dialect.feed(bytearray(data[start : start + step]))
    assert [(request, plain(reply)) for request, reply in got] == [(request, reply) for request, _, reply in ANSWERED]


def test_errors_of_quiet_requests_are_dropped():
    dialect = BinaryDialect()
    quiet = [requests.store("set", b"k", b"v", noreply=True), requests.touch(b"k", 1, noreply=True)]
    first, second = requests.fetch("get", b"k"), requests.delete(b"k")
    dialect.encode([*quiet, first, *quiet, second, *quiet])
    failed = packet(0x11, status=3, opaque=0) + packet(0x1C, status=1, opaque=1)
    assert dialect.feed(failed + packet(0x00, status=1, opaque=2)) == [(first, MISS)]
    assert dialect.feed(packet(0x1C, extras=FLAGS, opaque=4) + packet(0x04, opaque=5)) == [(second, b"DELETED")]
    assert dialect.feed(packet(0x11, status=0x82, opaque=6)) == []
    assert dialect.oldest() is None
    third = requests.barrier()
    dialect.encode([third])
    assert [request for request, _ in dialect.feed(packet(0x0A, opaque=8))] == [third]


def test_quiet_requests_cost_no_memory():
    dialect = BinaryDialect()
    quiet = requests.store("set", b"k", b"v", noreply=True)
    for _ in range(100):
        dialect.encode([quiet] * 100)
    assert len(dialect._expected) == 1


def test_numbers_begin_anew():
    dialect = BinaryDialect()
    dialect._number = 2**32 - 2
    quiet = requests.delete(b"k", noreply=True)
    fetch = requests.fetch("get", b"k")
    buffers, _ = dialect.encode([quiet, quiet, quiet, quiet, fetch])
    data = b"".join(buffers)
    assert [HEADER.unpack_from(data, 25 * place)[7] for place in range(5)] == [2**32 - 2, 2**32 - 1, 0, 1, 2]
    failed = b"".join(packet(0x14, status=1, opaque=number) for number in (2**32 - 1, 1))
    assert dialect.feed(failed + packet(0x00, status=1, opaque=2)) == [(fetch, MISS)]


def test_values_of_abandoned_fetches_are_not_kept():
    loop = asyncio.new_event_loop()
    request = requests.fetch_many("get_many", (b"a",))
    request.waiter = loop.create_future()
    request.waiter.cancel()
    loop.close()
    dialect = BinaryDialect()
    dialect.encode([request])
    found = packet(0x0D, extras=FLAGS, key=b"a", value=b"A")
    assert [plain(reply) for _, reply in dialect.feed(found + packet(0x0A))] == [[]]


def test_missing_bytes_are_told():
    dialect = BinaryDialect()
    dialect.encode([requests.fetch("get", b"k")])
    data = packet(0x00, extras=FLAGS, value=bytes(100_000))
    dialect.feed(data[:10])
    assert dialect.missing() == 0
    dialect.feed(data[10:50])
    assert dialect.missing() == len(data) - 50
    dialect.feed(data[50:])
    assert dialect.missing() == 0


def test_what_is_lost_is_told_in_order():
    dialect = BinaryDialect()
    wanted = [requests.fetch("get", b"a"), requests.delete(b"k", noreply=True), requests.delete(b"b")]
    dialect.encode(wanted)
    assert [*dialect.pending()] == [wanted[0], wanted[2]]
    assert dialect.take_unanswered() == [wanted[0], wanted[2]]
    assert (dialect.unanswered, dialect.take_unanswered()) == (0, [])
    assert dialect.feed(packet(0x00)) == []


VIOLATIONS = [
    (b"ERROR\r\n", "no packet"),
    (b"\x80", "no packet"),
    (packet(0x00, opaque=1), "out of turn"),
    (packet(0x01), "another command"),
    (packet(0x0A), "another command"),
    (HEADER.pack(0x81, 0, 0, 4, 0, 0, 2**30 + 1, 0, 0), "lengths"),
    (HEADER.pack(0x81, 0, 3, 4, 0, 0, 6, 0, 0), "lengths"),
    (packet(0x00, extras=b"abc", value=b"x"), "without flags"),
]


@pytest.mark.parametrize(("data", "reason"), VIOLATIONS)
def test_violations(data: bytes, reason: str):
    dialect = BinaryDialect()
    request, behind = requests.fetch("get", b"k"), requests.fetch("get", b"k")
    dialect.encode([request])
    dialect.encode([behind])
    [(blamed, reply)] = dialect.feed(data + b"x" * 300)
    assert blamed is request
    assert isinstance(reply, Violation)
    assert reply.line == (data + b"x" * 300)[:200]
    assert reason in reply.reason
    assert dialect.feed(packet(0x00, opaque=0)) == []
    assert dialect.missing() == 0
    assert dialect.take_unanswered() == [request, behind]


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        (requests.arithmetic("increment", b"k", 1), packet(0x05, value=b"1234567")),
        (requests.fetch_many("get_many", (b"a",)), packet(0x0D, extras=FLAGS, key=b"b")),
        (requests.fetch_many("get_many", (b"a",)), packet(0x0D, extras=FLAGS, key=b"a") * 2),
    ],
)
def test_violations_of_some_commands(request_: Request, data: bytes):
    dialect = BinaryDialect()
    dialect.encode([request_])
    assert [(request, type(reply)) for request, reply in dialect.feed(data)] == [(request_, Violation)]


@pytest.mark.parametrize("quiet", [False, True])
def test_what_nobody_asked_for(quiet: bool):
    dialect = BinaryDialect()
    if quiet:
        dialect.encode([requests.delete(b"k", noreply=True)])
    whole = packet(0x00, opaque=9, value=b"x" * 100)
    # Told by the head alone: what nobody asked for is not waited for.
    [(request, reply)] = dialect.feed(whole[:30])
    assert request is None
    assert isinstance(reply, Violation)


@given(st.binary(max_size=200), st.integers(1, 50), st.booleans())
@settings(max_examples=1000, deadline=None)
def test_any_bytes_end_well(data: bytes, step: int, with_magic: bool):
    dialect = BinaryDialect()
    wanted = [requests.fetch("get", b"k"), requests.fetch_many("get_many", (b"a",)), requests.stats()]
    dialect.encode(wanted)
    if with_magic:
        data = b"\x81" + data
    got = [reply for start in range(0, len(data), step) for reply in dialect.feed(data[start : start + step])]
    assert len(got) + len(dialect.take_unanswered()) >= len(wanted)


def test_spoilt_replies_end_well():
    """Good replies in which some bytes are changed, cut at random: no exception, and no more kept than came."""
    dice = random.Random(1)
    wanted = [request for request, _, _ in ANSWERED]
    good = b"".join(answer(packets, number) for number, (_, packets, _) in enumerate(ANSWERED))
    for _ in range(20_000):
        dialect = BinaryDialect()
        dialect.encode(wanted[:10])
        data = bytearray(good[: dice.randrange(len(good))])
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        cut = dice.randrange(len(data) + 1)
        got = dialect.feed(data[:cut]) + dialect.feed(data[cut:])
        broken = sum(isinstance(reply, Violation) for _, reply in got)
        assert broken in (0, 1)
        assert len(dialect._rest) <= len(data)
        assert len(got) - broken + len(dialect.take_unanswered()) == 10


@given(
    st.dictionaries(st.binary(min_size=1, max_size=250), st.tuples(st.binary(max_size=100), st.integers(0, 2**32 - 1))),
    st.integers(1, 100),
)
@settings(max_examples=300, deadline=None)
def test_any_items_come_back(items: dict[bytes, tuple[bytes, int]], step: int):
    dialect = BinaryDialect()
    dialect.encode([requests.fetch_many("gets_many", tuple(items))])
    rows = [(key, value, flags, place) for place, (key, (value, flags)) in enumerate(items.items())]
    found = [packet(0x0D, extras=U32.pack(flags), key=key, value=value, cas=cas) for key, value, flags, cas in rows]
    data = b"".join(found) + packet(0x0A)
    got = [reply for start in range(0, len(data), step) for _, reply in dialect.feed(data[start : start + step])]
    assert [plain(reply) for reply in got] == [rows]


@given(st.lists(st.sampled_from(range(len(SENT))), max_size=30), st.integers(1, 400))
@settings(max_examples=300, deadline=None)
def test_the_fake_server_answers_what_is_sent(places: list[int], step: int):
    wanted = [SENT[place][0] for place in places]
    dialect = BinaryDialect()
    buffers, _ = dialect.encode(wanted)
    data, answers = b"".join(buffers), b""
    while size := next_request(data):
        answers += success(data[:size])
        data = data[size:]
    got = [
        request for start in range(0, len(answers), step) for request, _ in dialect.feed(answers[start : start + step])
    ]
    assert got == [request for request in wanted if not request.noreply]


def test_time_grows_with_the_size_only():
    def seconds(size: int) -> float:
        dialect = BinaryDialect()
        dialect.encode([requests.fetch("get", b"k")])
        data = memoryview(packet(0x00, extras=FLAGS, value=bytes(size)))
        start = time.process_time()
        for at in range(0, len(data), 4096):
            dialect.feed(data[at : at + 4096])
        assert dialect.unanswered == 0
        return time.process_time() - start

    assert seconds(32 << 20) < 40 * max(seconds(4 << 20), 0.01)
