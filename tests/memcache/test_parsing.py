"""Parser, driven through the dialects: any cutting of a stream gives the same replies, and no input does harm."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rain.memcache import requests
from rain.memcache.dialects import ClassicDialect, MetaDialect
from rain.memcache.parsing import MAX_LINE
from rain.memcache.replies import MISS
from rain.memcache.requests import Request
from tests.memcache.wire import (
    NASTY,
    Case,
    answers,
    classic_cases,
    cut,
    expecting,
    fed,
    meta,
    meta_cases,
    plain,
)

IN_CI = bool(os.environ.get("CI"))
ABC = (b"a", b"b", b"c")
FIVE = (b"k1", b"k2", b"k3", b"k4", b"k5")
GET = requests.fetch("get", b"k")
Dialect = ClassicDialect | MetaDialect

NO_META = "a line that is no answer to a meta command"
NO_NUMBER = "a number that is none, or out of range"
NO_VALUES = "a line that is no part of the answer to a fetch"
NO_KEY = "a key that was not asked for, or came before"
NO_CONFIG = "a line that is no part of a configuration"
TOO_LONG = "a line longer than 8192 bytes"
NO_END = "a data block of %d bytes without its end of line"


def item(value: bytes, flags: int | None = None, cas: int | None = None) -> Any:
    return "item", value, flags, cas


def rows(*found: tuple[bytes, bytes, int, int | None]) -> Any:
    return "items", list(found)


def value_lines(*found: tuple[bytes, bytes, int, int | None]) -> bytes:
    parts = []
    for key, value, flags, cas in found:
        token = b"" if cas is None else b" %d" % cas
        parts.append(b"VALUE %b %d %d%b\r\n%b\r\n" % (key, flags, len(value), token, value))
    return b"".join(parts)


def many(keys: tuple[bytes, ...], *found: tuple[bytes, bytes, int, int | None]) -> Case:
    command = "gets_many" if found and found[0][3] is not None else "get_many"
    return Case(requests.fetch_many(command, keys), value_lines(*found) + b"END\r\n", rows(*found))


def error(request: Request, wire: bytes) -> Case:
    return Case(request, wire, ("ErrorLine", wire[:-2].rpartition(b"\r\n")[2]))


CLASSIC = [
    Case(requests.fetch("get", b"a"), b"END\r\n", MISS),
    Case(requests.fetch("get", b"a"), b"VALUE a 7 5\r\nhello\r\nEND\r\n", item(b"hello")),
    Case(requests.fetch("get", b"a", True), b"VALUE a 7 5\r\nhello\r\nEND\r\n", item(b"hello", 7)),
    Case(requests.fetch("gets", b"a"), b"VALUE a 0 0 9\r\n\r\nEND\r\n", item(b"", None, 9)),
    Case(requests.fetch("gat", b"a", True, 5), b"VALUE a 4294967295 1\r\nx\r\nEND\r\n", item(b"x", 4294967295)),
    Case(
        requests.fetch("gats", b"a"), b"VALUE a 0 1 18446744073709551615\r\nx\r\nEND\r\n", item(b"x", None, 2**64 - 1)
    ),
    error(requests.fetch("get", b"a"), b"ERROR\r\n"),
    error(requests.fetch("get", b"a"), b"VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n"),
    Case(requests.barrier(), b"END\r\n", rows()),
    Case(
        requests.probe(), value_lines((b"rain:probe", b"?", 0, None)) + b"END\r\n", rows((b"rain:probe", b"?", 0, None))
    ),
    Case(requests.get_config(), b"END\r\n", rows()),
]
META = [
    Case(requests.fetch("get", b"a"), b"EN\r\n", MISS),
    Case(requests.fetch("get", b"a"), b"VA 5\r\nhello\r\n", item(b"hello")),
    Case(requests.fetch("get", b"a"), b"VA 5\r\nhello\r\n", item(b"hello")),
    Case(requests.fetch("get", b"a"), b"VA 5\r\nh\r\nlo\r\n", item(b"h\r\nlo")),
    Case(requests.fetch("get", b"a"), b"VA 0\r\n\r\n", item(b"")),
    Case(requests.fetch("get", b"a"), b"VA 0 W\r\n\r\n", meta("VA", marks="W")),
    Case(requests.fetch("gets", b"a", True), b"VA 2 f3 c4\r\nhi\r\n", item(b"hi", 3, 4)),
    Case(requests.fetch("gat", b"a"), b"VA 2 X Z\r\nhi\r\n", meta("VA", b"hi", marks="XZ")),
    Case(requests.lease(b"a", 30), b"VA 0 f0 c12 W\r\n\r\n", meta("VA", b"", 0, 12, "W")),
    Case(requests.lease(b"a", 30), b"EN\r\n", meta("EN")),
    Case(requests.placeholder(b"a"), b"VA 1 f0 c1  t-1 Q\r\nx\r\n", meta("VA", b"x", 0, 1)),
    Case(requests.touch_fetch(b"a", 1), b"HD f9\r\n", meta("HD", b"", 9)),
    Case(requests.touch_fetch(b"a", 1), b"EN\r\n", meta("EN")),
    Case(requests.meta_delete(b"a", 1), b"HD\r\n", meta("HD")),
    Case(requests.meta_delete(b"a", 1), b"EX\r\n", meta("EX")),
    Case(requests.meta_delete_invalid(b"a"), b"NF\r\n", meta("NF")),
    Case(requests.barrier(), b"MN\r\n", meta("MN")),
    error(requests.fetch("get", b"a"), b"SERVER_ERROR out of memory\r\n"),
    error(requests.barrier(), b"ERROR\r\n"),
]
BOTH = [
    many(ABC),
    many(ABC, (b"b", b"", 1, None)),
    many(ABC, (b"c", b"3", 1, None), (b"a", b"END\r\n", 0, None)),
    many(ABC, (b"a", b"1", 1, 5), (b"b", b"VALUE c 0 1\r\nx", 1, 6)),
    many(FIVE, *((key, b"same", 0, None) for key in FIVE)),
    many(FIVE, *((key, b"same", 0, 7) for key in FIVE)),
    many(FIVE, *((key, key * number, number, None) for number, key in enumerate(FIVE))),
    many(FIVE, *((key, key, 0, None) for key in reversed(FIVE))),
    many(FIVE, *((key, b"END", 0, None) for key in FIVE[::2])),
    many(FIVE, *((key, b"x\r\ny" if key == b"k3" else b"xxxx", 0, None) for key in FIVE)),
    error(requests.fetch_many("get_many", FIVE), value_lines((b"k1", b"x", 0, None)) + b"CLIENT_ERROR no\r\n"),
    *(Case(requests.store(name, b"k", b"v"), b"STORED\r\n", b"STORED") for name in sorted(requests.STORAGE_COMMANDS)),
    Case(requests.store("add", b"k", b"v"), b"NOT_STORED\r\n", b"NOT_STORED"),
    Case(requests.store("cas", b"k", b"v"), b"EXISTS\r\n", b"EXISTS"),
    Case(requests.store("cas", b"k", b"v"), b"NOT_FOUND\r\n", b"NOT_FOUND"),
    error(requests.store("set", b"k", b"v"), b"SERVER_ERROR object too large for cache\r\n"),
    Case(requests.store("set", b"k", b"v"), b"\r\n", ("UnknownLine", b"")),
    Case(requests.store("set", b"k", b"v"), b"DELETED\r\n", ("UnknownLine", b"DELETED")),
    Case(requests.arithmetic("increment", b"k", 1), b"42\r\n", b"42"),
    Case(requests.arithmetic("increment", b"k", 1), b"4 \r\n", ("UnknownLine", b"4 ")),
    error(
        requests.arithmetic("decrement", b"k", 1),
        b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    Case(requests.touch(b"k", 0), b"TOUCHED\r\n", b"TOUCHED"),
    Case(requests.delete(b"k"), b"DELETED\r\n", b"DELETED"),
    Case(requests.flush_all(), b"OK\r\n", b"OK"),
    Case(requests.verbosity(1), b"OK\r\n", b"OK"),
    Case(requests.cache_memlimit(1), b"MEMLIMIT_TOO_SMALL so far\r\n", b"MEMLIMIT_TOO_SMALL so far"),
    Case(requests.version(), b"VERSION 1.6.18\r\n", b"VERSION 1.6.18"),
    Case(requests.authenticate("u", "p"), b"STORED\r\n", b"STORED"),
    Case(
        requests.stats(),
        b"STAT pid 1\r\nSTAT text a b\r\nSTAT\r\n\r\nSTAT empty\r\nEND\r\n",
        {"pid": "1", "text": "a b", "empty": ""},
    ),
    Case(requests.stats(("x",)), b"END\r\n", {}),
    Case(requests.stats(("reset",)), b"RESET\r\n", {}),
    Case(requests.stats(("detail",)), b"OK\r\n", {}),
    Case(requests.stats(), b"STAT bytes \xff\r\nEND\r\n", {"bytes": "\\xff"}),
    error(requests.stats(), b"STAT pid 1\r\nERROR\r\n"),
    Case(requests.config(), b"CONFIG cluster 0 4\r\n1\nab\r\nEND\r\n", rows((b"cluster", b"1\nab", 0, None))),
    Case(requests.config(), b"END\r\n", rows()),
    error(requests.config(), b"ERROR\r\n"),
]  # fmt: skip
SINGLES = [(ClassicDialect, case) for case in CLASSIC + BOTH] + [(MetaDialect, case) for case in META + BOTH]


@pytest.mark.parametrize(("dialect", "case"), SINGLES, ids=lambda part: getattr(part, "wire", b"")[:40])
def test_each_reply_cut_at_every_byte(dialect: type[Dialect], case: Case):
    whole = dialect()
    expecting(whole, [case.request])
    assert answers(whole.feed(case.wire)) == [(case.request, case.reply)]
    assert whole.unanswered == 0
    for place in range(len(case.wire) + 1):
        parted = dialect()
        expecting(parted, [case.request])
        assert fed(parted, [case.wire[:place], case.wire[place:]]) == [(case.request, case.reply)]


@pytest.mark.parametrize(("dialect", "cases"), [(ClassicDialect, CLASSIC + BOTH), (MetaDialect, META + BOTH)])
def test_a_run_of_all_replies(dialect: type[Dialect], cases: list[Case]):
    stream = b"".join(case.wire for case in cases)
    expected = [(case.request, case.reply) for case in cases]
    places = range(len(stream) + 1)
    pieces = [[stream[:place], stream[place:]] for place in places] + [[bytes([byte]) for byte in stream], [stream]]
    for parts in pieces:
        reader = dialect()
        expecting(reader, [case.request for case in cases])
        assert fed(reader, parts) == expected
        assert reader.unanswered == 0
        assert reader.missing() == 0


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.just(ClassicDialect), st.lists(classic_cases, max_size=6))
    | st.tuples(st.just(MetaDialect), st.lists(meta_cases, max_size=6)),
    st.lists(st.integers(0, 1 << 20), max_size=12),
    st.booleans(),
)
def test_random_replies_in_random_cuts(run: tuple[type[Dialect], list[Case]], places: list[int], dripped: bool):
    dialect, cases = run
    stream = b"".join(case.wire for case in cases)
    reader = dialect()
    expecting(reader, [case.request for case in cases])
    pieces = [bytes([byte]) for byte in stream] if dripped else cut(stream, places)
    assert fed(reader, pieces) == [(case.request, case.reply) for case in cases]


SCRAPS = (
    b"VALUE k1 0 3\r\n", b"VALUE k1 0 3 5\r\n", b"VALUE k2 0 600\r\n", b"VALUE a 0 3\r\n", b"VALUE k3 0 -1\r\n",
    b"abc\r\n", b"END\r\n", b"EN\r\n", b"VA 3\r\n", b"VA 3 f1 c2 W\r\n", b"VA 600\r\n", b"VA 99999999999\r\n",
    b"VA\r\n", b"HD\r\n", b"HD f1\r\n", b"MN\r\n", b"STORED\r\n", b"7\r\n", b"STAT a b\r\n", b"CONFIG cluster 0 3\r\n",
    b"ERROR\r\n", b"OK\r\n", b"\r\n", b"\r", b"x" * 600, b"x" * 600 + b"\r\n", b"VALUE", b" ",
)  # fmt: skip
ALL_REQUESTS = [case.request for _, case in SINGLES]


def check_harmless(dialect: type[Dialect], wanted: list[Request], stream: bytes, places: list[int]) -> None:
    """Whole and in parts give the same, nothing is raised, and nothing more is kept than an unfinished line."""
    whole, parted = dialect(), dialect()
    expecting(whole, wanted)
    expecting(parted, wanted)
    outcome = answers(whole.feed(stream))
    assert len(outcome) <= len(wanted) + 1
    in_parts = fed(parted, cut(stream, places))
    if outcome and outcome[-1][0] is None:  # bytes that nobody asked for: how many of them depends on the cut
        assert in_parts[:-1] == outcome[:-1]
        assert in_parts[-1][0] is None
        assert in_parts[-1][1][2] == outcome[-1][1][2]
        assert outcome[-1][1][1].startswith(in_parts[-1][1][1])
    else:
        assert in_parts == outcome
        assert whole.unanswered == parted.unanswered
        assert whole.missing() == parted.missing()
    assert len(whole._parser._rest) <= MAX_LINE + 1


@settings(max_examples=5_000 if IN_CI else 500, deadline=None)
@given(
    st.sampled_from((ClassicDialect, MetaDialect)),
    st.lists(st.sampled_from(ALL_REQUESTS), max_size=4),
    st.lists(st.binary(max_size=30) | st.sampled_from(SCRAPS), max_size=12).map(b"".join),
    st.lists(st.integers(0, 1 << 20), max_size=4),
)
def test_random_bytes_do_no_harm(dialect: type[Dialect], wanted: list[Request], stream: bytes, places: list[int]):
    check_harmless(dialect, wanted, stream, places)


@pytest.mark.parametrize("dialect", [ClassicDialect, MetaDialect])
def test_ten_thousand_random_inputs_do_no_harm(dialect: type[Dialect]):
    for seed in range(10_000):
        chance = random.Random(seed)
        wanted = chance.choices(ALL_REQUESTS, k=chance.randrange(5))
        scraps = [*chance.choices(SCRAPS, k=chance.randrange(12)), chance.randbytes(chance.randrange(30))]
        if seed % 2:
            chance.shuffle(scraps)
        places = [chance.randrange(1 << 20) for _ in range(4)]
        check_harmless(dialect, wanted, b"".join(scraps), places)


BIG = 20_000


def big_values(command: str) -> Case:
    keys = tuple(b"key%d" % number for number in range(60))
    sizes = [0, 1, 511, 512, 600, 5_000, 16_384, 66_000, 3, 700_000, 900, 2_000]
    found = []
    for number, key in enumerate(keys):
        size = sizes[number % len(sizes)]
        token = number if command == "gets_many" else None
        found.append((key, (b"%d\r\nEND\r\n" % number * size)[:size], number, token))
    return Case(requests.fetch_many(command, keys), value_lines(*found) + b"END\r\n", rows(*found))


def big_fetches() -> list[Case]:
    cases = [Case(requests.fetch("get", b"a"), b"VA 900\r\n" + b"z" * 900 + b"\r\n", item(b"z" * 900))]
    for size in (0, 900, 20_000, 900, 900, 3, 70_000, 900):
        value = b"\r\nEN\r\n" * size
        value = value[:size]
        cases.append(Case(requests.fetch("get", b"a"), b"VA %d\r\n%b\r\n" % (size, value), item(value)))
        flagged = b"VA %d f5\r\n%b\r\n" % (size, value)
        cases.append(Case(requests.fetch("get", b"a", True), flagged, item(value, 5)))
    cases.append(Case(requests.fetch("get", b"a"), b"EN\r\n", MISS))
    cases.append(
        Case(requests.lease(b"a", 30), b"VA 900 f0 c1 Z\r\n" + b"z" * 900 + b"\r\n", meta("VA", b"z" * 900, 0, 1, "Z"))
    )
    return cases  # fmt: skip


@pytest.mark.parametrize("step", [1_000, 16_384, 65_536, 262_144, 1 << 30])
@pytest.mark.parametrize(
    ("dialect", "cases"),
    [
        (ClassicDialect, [big_values("get_many"), *CLASSIC[:4], big_values("gets_many"), *BOTH]),
        (MetaDialect, [*big_fetches(), big_values("get_many"), *big_fetches(), *META]),
        (MetaDialect, [*big_fetches(), *BOTH, *big_fetches()]),
        (MetaDialect, [Case(GET, b"VA 900\r\n%b\r\n" % (b"z" * 900), item(b"z" * 900)) for _ in range(40)]),
    ],
)
def test_large_values(dialect: type[Dialect], cases: list[Case], step: int):
    reader = dialect()
    expecting(reader, [case.request for case in cases])
    stream = b"".join(case.wire for case in cases)
    done = fed(reader, [stream[start : start + step] for start in range(0, len(stream), step)])
    assert done == [(case.request, case.reply) for case in cases]


LARGE_ITEM = value_lines((b"k1", b"x" * BIG, 0, None))


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"VALUE k1 0 600\r\n%b\r\n", NO_KEY),
        (b"VALUE k9 0 600\r\n%b\r\n", NO_KEY),
        (b"VALUE k2 0 x\r\n%b\r\n", NO_NUMBER),
        (b"VALUE k2 4294967296 600\r\n%b\r\n", NO_NUMBER),
        (b"VALUE k2 0 600\r\n%b!\r\n", NO_END % 600),
        (b"VALUE k2 0 599\r\n%b\r\n", NO_END % 599),
        (b"VALUE k2  600\r\n%b\r\n", NO_NUMBER),
        (b"VOLUME k2 0 600\r\n%b\r\n", NO_VALUES),
    ],
)
def test_what_is_wrong_after_a_large_item(wire: bytes, reply: str):
    reader = MetaDialect()
    expecting(reader, [requests.fetch_many("get_many", FIVE)])
    [(_, violation)] = fed(reader, [LARGE_ITEM + wire % (b"y" * 600) + b"END\r\n"])
    assert violation[0] == "Violation"
    assert violation[2] == reply


def test_a_large_configuration_is_no_answer_to_a_fetch():
    """Keys that an earlier answer left out are not asked for any more."""
    reader = ClassicDialect()
    expecting(reader, [requests.fetch_many("get_many", FIVE), requests.config()])
    stream = b"END\r\nCONFIG cluster 0 %d\r\n%b\r\nVALUE k2 0 1\r\nx\r\nEND\r\n" % (BIG, b"n" * BIG)
    done = fed(reader, [stream])
    assert done[1][1] == ("Violation", b"VALUE k2 0 1", NO_CONFIG)


@pytest.mark.parametrize(
    ("dialect", "request_", "wire", "line", "reason"),
    [
        (MetaDialect, GET, b"HD\r\n", b"HD", NO_META),
        (MetaDialect, GET, b"\r\n", b"", NO_META),
        (MetaDialect, requests.meta_delete(b"k", 1), b"VA 1\r\n", b"VA 1", NO_META),
        (MetaDialect, GET, b"VA\r\n", b"VA", NO_NUMBER),
        (MetaDialect, GET, b"VA -1\r\n", b"VA -1", NO_NUMBER),
        (MetaDialect, GET, b"VA +1\r\n", b"VA +1", NO_NUMBER),
        (MetaDialect, GET, b"VA 1_0\r\n", b"VA 1_0", NO_NUMBER),
        (MetaDialect, GET, b"VA 1073741825\r\n", b"VA 1073741825", NO_NUMBER),
        (MetaDialect, GET, b"VA 1 f\r\n", b"VA 1 f", NO_NUMBER),
        (MetaDialect, GET, b"VA 1 f4294967296\r\n", b"VA 1 f4294967296", NO_NUMBER),
        (MetaDialect, GET, b"VA 1 cx\r\n", b"VA 1 cx", NO_NUMBER),
        (MetaDialect, GET, b"VA 1\r\nabc", b"bc", NO_END % 1),
        (MetaDialect, GET, b"VA 5\r\nab\r\ncd\r\n", b"d\r", NO_END % 5),
        (ClassicDialect, GET, b"VALUE k 0\r\n", b"VALUE k 0", NO_VALUES),
        (ClassicDialect, GET, b"STORED\r\n", b"STORED", NO_VALUES),
        (ClassicDialect, GET, b"\r\n", b"", NO_VALUES),
        (ClassicDialect, GET, b"VALUE k 0 1 %d\r\n" % (2**64), b"VALUE k 0 1 %d" % (2**64), NO_NUMBER),
        (ClassicDialect, GET, b"VALUE k 0 %021d\r\n" % 1, b"VALUE k 0 %021d" % 1, NO_NUMBER),
        (ClassicDialect, GET, b"VALUE l 0 1\r\n", b"VALUE l 0 1", NO_KEY),
        (ClassicDialect, requests.config(), b"CONFIG cluster 0\r\n", b"CONFIG cluster 0", NO_CONFIG),
        (ClassicDialect, requests.config(), b"CONFIG cluster 0 x\r\n", b"CONFIG cluster 0 x", NO_CONFIG),
        (ClassicDialect, requests.config(), b"STORED\r\n", b"STORED", NO_CONFIG),
        (ClassicDialect, requests.version(), b"x" * 8193, b"x" * 200, TOO_LONG),
        (ClassicDialect, requests.version(), b"x" * 8193 + b"\r\n", b"x" * 200, TOO_LONG),
        (ClassicDialect, requests.stats(), b"y" * 300_000, b"y" * 200, TOO_LONG),
    ],
)  # fmt: skip
def test_violations(dialect: type[Dialect], request_: Request, wire: bytes, line: bytes, reason: str):
    behind = requests.version()
    for pieces in ([wire], [wire + b"VERSION 1\r\n" * 3], [bytes([byte]) for byte in wire]):
        reader = dialect()
        expecting(reader, [request_, behind])
        assert fed(reader, pieces) == [(request_, ("Violation", line, reason))]
        assert reader.feed(b"VERSION 1\r\n") == []
        assert reader.oldest() is behind
        assert reader.take_unanswered() == [behind]
        assert reader.unanswered == 0


ALIKE = value_lines(*((key, b"v", 0, None) for key in FIVE))


@pytest.mark.parametrize(
    "wire",
    [
        value_lines(*((key, b"v", 0, None) for key in (*FIVE[:4], b"k4"))),
        value_lines(*((key, b"v", 0, None) for key in (*FIVE[:4], b"k6"))),
        value_lines(*((key, b"v", 0, 2**64 if key == b"k5" else 1) for key in FIVE)),
        value_lines(*((key, b"v", 2**32 if key == b"k5" else 1, None) for key in FIVE)),
        value_lines(*((key, b"v", 2**32, None) for key in FIVE)),
        ALIKE.replace(b" 0 1", b"\n0 1"),
        ALIKE.replace(b" 0 1", b" 0 1 "),
        ALIKE.replace(b" 0 1", b"  0 1"),
        ALIKE.replace(b" 0 1", b" 0 1" + b" " * 50),
        ALIKE.replace(b" 0 1", b"x0 1"),
        ALIKE.replace(b"VALUE k5", b"VELUE k5"),
        ALIKE.replace(b"VALUE k5 0 1", b"VALUE k5 0 2"),
    ],
)
def test_one_wrong_item_among_many(wire: bytes):
    reader, dripped = ClassicDialect(), ClassicDialect()
    request = requests.fetch_many("get_many", FIVE)
    expecting(reader, [request])
    expecting(dripped, [request])
    [(_, reply)] = done = fed(reader, [wire + b"END\r\n"])
    assert reply[0] == "Violation"
    assert fed(dripped, [bytes([byte]) for byte in wire + b"END\r\n"]) == done


def test_bytes_that_nobody_asked_for():
    for wire in (b"STORED\r\n", b"x", b"\r\n", b"x" * 1000):
        reader = MetaDialect()
        assert fed(reader, [wire]) == [(None, ("Violation", wire[:200], "bytes that nobody asked for"))]
        assert reader.unanswered == 0
    reader = MetaDialect()
    expecting(reader, [requests.version()])
    [_, (asker, violation)] = fed(reader, [b"VERSION 1\r\nHELLO\r\nthere"])
    assert asker is None
    assert violation == ("Violation", b"HELLO\r\nthere", "bytes that nobody asked for")
    assert reader.unanswered == 0


class Waiter:
    """What the parser knows of a future."""

    def __init__(self) -> None:
        self.gone = False

    def done(self) -> bool:
        return self.gone


def test_the_value_of_an_abandoned_request_is_not_kept():
    for told_late in (False, True):
        reader = MetaDialect()
        gone, behind = requests.fetch("get", b"a"), requests.fetch("get", b"b")
        gone.waiter, behind.waiter = Waiter(), Waiter()
        gone.waiter.gone = True
        if told_late:
            gone.on_late = lambda request, reply: None
        expecting(reader, [gone, behind])
        assert fed(reader, [b"VA 1000\r\n", b"x" * 999, b"x\r", b"\nVA 1\r\ny\r\n"]) == [
            (gone, item(b"x" * 1000 if told_late else b"")),
            (behind, item(b"y")),
        ]


def test_the_values_of_an_abandoned_fetch_of_many_are_not_kept():
    reader = MetaDialect()
    gone = requests.fetch_many("get_many", FIVE)
    gone.waiter = Waiter()
    gone.waiter.gone = True
    expecting(reader, [gone])
    wire = value_lines(*((key, b"v" * BIG, 0, None) for key in FIVE)) + b"END\r\n"
    assert fed(reader, [wire]) == [(gone, rows(*((key, b"", 0, None) for key in FIVE)))]


def test_missing_tells_what_is_known_to_be_missing():
    reader = MetaDialect()
    expecting(reader, [requests.fetch("get", b"a")])
    assert reader.missing() == 0
    reader.feed(b"VA 100000\r\n")
    assert reader.missing() == 100_002
    reader.feed(b"x" * 60_000)
    assert reader.missing() == 40_002
    [(_, reply)] = fed(reader, [b"x" * 40_000 + b"\r\n"])
    assert reply == item(b"x" * 100_000)
    assert reader.missing() == 0


def test_a_lying_length_takes_no_memory():
    reader = MetaDialect()
    expecting(reader, [requests.fetch("get", b"a")])
    assert reader.feed(b"VA 1073741824\r\nabc") == []
    assert reader.missing() == (1 << 30) + 2 - 3
    block = reader._parser._block
    assert block is not None
    assert block.kept is not None
    assert len(block.kept.getvalue()) == 3


def test_heads_are_remembered_within_a_limit():
    reader = MetaDialect()
    for number in range(5000):
        request = requests.fetch("get", b"a", True)
        expecting(reader, [request])
        assert answers(reader.feed(b"VA 1 f%d\r\nx\r\n" % number)) == [(request, item(b"x", number))]
    assert len(reader._parser._heads) <= 4096


def seconds(stream: bytes, count: int, step: int) -> float:
    keys = tuple(b"k%d" % number for number in range(count))
    best = float("inf")
    for _ in range(3):
        reader = ClassicDialect()
        expecting(reader, [requests.fetch_many("get_many", keys)])
        began = time.process_time()
        done = [reply for start in range(0, len(stream), step) for reply in reader.feed(stream[start : start + step])]
        best = min(best, time.process_time() - began)
        assert len(done) == 1
        assert len(done[0][1]) == count
    return best


@pytest.mark.parametrize("step", [50, 1 << 30])
@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value[:20]))
def test_time_grows_with_the_length_only(value: bytes, step: int):
    def stream(count: int) -> bytes:
        return value_lines(*((b"k%d" % number, value, number, None) for number in range(count))) + b"END\r\n"

    small, large = seconds(stream(100), 100, step), seconds(stream(800), 800, step)
    assert large < 8 * 6 * small + 0.05


def test_each_caller_of_merged_fetches_gets_its_own():
    reader = ClassicDialect()
    askers = [requests.fetch("get", key, flags) for key, flags in ((b"a", False), (b"b", True), (b"a", True))]
    reader.encode(askers)
    done = reader.feed(b"VALUE a 5 1\r\nx\r\nEND\r\n")
    assert answers(done) == [(askers[0], item(b"x")), (askers[1], MISS), (askers[2], item(b"x", 5))]
    reader.encode(askers)
    assert answers(reader.feed(b"SERVER_ERROR busy\r\n")) == [
        (asker, ("ErrorLine", b"SERVER_ERROR busy")) for asker in askers
    ]
    reader.encode(askers)
    assert [plain(reply)[0] for _, reply in reader.feed(b"HELLO\r\n")] == ["Violation"] * 3
