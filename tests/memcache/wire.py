"""Replies written down: what a node sends for a request, and what the parser must make of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from rain.memcache import requests
from rain.memcache.base import Item
from rain.memcache.dialects import ClassicDialect, MetaDialect
from rain.memcache.replies import MISS, Answer, Fault, Items, MetaItem, Reply, Violation
from rain.memcache.requests import Request


@dataclass
class Case:
    """A request, what comes back, and the reply in plain form (see `plain`)."""

    request: Request
    wire: bytes
    reply: Any


def plain(reply: Reply) -> Any:
    """Make a reply comparable."""
    if isinstance(reply, Item):
        return "item", reply.value, reply.flags, reply.cas
    if isinstance(reply, Items):
        return "items", list(reply)
    if isinstance(reply, MetaItem):
        return tuple(getattr(reply, name) for name in ("code", "value", "flags", "cas", "won", "pending", "stale"))
    if isinstance(reply, Violation):
        return "Violation", reply.line, reply.reason
    if isinstance(reply, Fault):
        return type(reply).__name__, reply.line
    return reply


def meta(code: str, value: bytes = b"", flags: int | None = None, cas: int | None = None, marks: str = "") -> Any:
    """Write a `MetaItem` in plain form."""
    return code, value, flags, cas, "W" in marks, "Z" in marks, "X" in marks


def answers(done: list[Answer]) -> list[tuple[Request | None, Any]]:
    """Make answers comparable."""
    return [(request, plain(reply)) for request, reply in done]


def expecting(dialect: ClassicDialect | MetaDialect, wanted: list[Request]) -> None:
    """Send the requests, each in a turn of its own."""
    for request in wanted:
        dialect.encode([request])


def fed(dialect: ClassicDialect | MetaDialect, pieces: list[bytes]) -> list[tuple[Request | None, Any]]:
    """Feed the pieces from one buffer that is overwritten each time, as the connection does."""
    done = []
    buffer = bytearray(max(map(len, pieces), default=0))
    for piece in pieces:
        buffer[: len(piece)] = piece
        done += dialect.feed(memoryview(buffer)[: len(piece)])
        buffer[:] = b"#" * len(buffer)
    return answers(done)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at these places, taken modulo its length."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


NASTY = (
    b"",
    b"END",
    b"END\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\nEND\r\n",
    b"VALUE a 0 1\r\nx\r\nEND\r\n",
    b"ERROR\r\n",
    b"SERVER_ERROR x",
    b"VA 3\r\nabc\r\n",
    b"EN\r\n",
    b"STORED\r\n",
    b"\r\n" * 400,
    b"z" * 511 + b"\r\n",
    b"w" * 512,
    b"y" * 700,
    b"END\r\n" * 200,
)
values = st.sampled_from(NASTY) | st.binary(max_size=40) | st.integers(0, 3000).map(lambda size: b"v" * size)
flag_numbers = st.integers(0, 2**32 - 1) | st.just(0)
tokens = st.integers(0, 2**64 - 1)
keys = st.binary(min_size=1, max_size=12).map(lambda text: bytes(33 + byte % 90 for byte in text))
error_lines = st.sampled_from(
    (b"ERROR", b"ERROR no such command", b"CLIENT_ERROR line too long", b"SERVER_ERROR out of memory", b"SERVER_ERROR")
)


@st.composite
def value_answers(draw: st.DrawFn, commands: tuple[str, ...]) -> Case:
    """A fetch answered by VALUE lines: of one key or of many, in any order, with misses, or cut by an error line."""
    command = draw(st.sampled_from(commands))
    asked = draw(st.lists(keys, min_size=1, max_size=9 if command.endswith("many") else 1, unique=True))
    found = draw(st.permutations(asked)) if draw(st.booleans()) else list(asked)
    found = found[: draw(st.integers(0, len(found)))] if draw(st.booleans()) else found
    common = draw(values)
    same = draw(st.booleans())
    with_cas = command in requests.WITH_CAS
    wire, rows = b"", []
    for key in found:
        value = common if same else draw(values)
        flags = 0 if same else draw(flag_numbers)
        cas = draw(tokens) if with_cas else None
        wire += b"VALUE %b %d %d" % (key, flags, len(value)) + (b" %d" % cas if cas is not None else b"")
        wire += b"\r\n" + value + b"\r\n"
        rows.append((key, value, flags, cas))
    return_flags = draw(st.booleans())
    if command.endswith("many"):
        request = requests.fetch_many(command, tuple(asked), return_flags, 7)
        reply: Any = ("items", rows)
    else:
        request = requests.fetch(command, asked[0], return_flags, 7)
        row = rows[0] if rows else None
        reply = ("item", row[1], row[2] if return_flags else None, row[3]) if row else MISS
    if draw(st.integers(0, 9)) == 0:
        line = draw(error_lines)
        return Case(request, wire + line + b"\r\n", ("ErrorLine", line))
    return Case(request, wire + b"END\r\n", reply)


@st.composite
def meta_answers(draw: st.DrawFn) -> Case:
    """A meta command of any kind with one of its replies."""
    command = draw(st.sampled_from(("get", "gets", "gat", "gats", "lease", "placeholder", "touch_fetch", "md", "mn")))
    flags = draw(st.none() | flag_numbers)
    cas = draw(st.none() | tokens)
    marks = draw(st.sampled_from(("", "", "", "W", "Z", "WX", "XZ", "X")))
    numbers = (b"" if flags is None else b" f%d" % flags) + (b"" if cas is None else b" c%d" % cas)
    tail = numbers + b"".join(b" %c" % ord(mark) for mark in marks) + draw(st.sampled_from((b"", b"", b" q5 Oab")))
    if command == "mn":
        return Case(requests.barrier(), b"MN\r\n", meta("MN"))
    if command == "md":
        code = draw(st.sampled_from(("HD", "NF", "EX")))
        request = draw(st.sampled_from((requests.meta_delete(b"k", 5), requests.meta_delete_invalid(b"k"))))
        return Case(request, code.encode() + b"\r\n", meta(code))
    if command == "touch_fetch":
        return Case(requests.touch_fetch(b"k", 9), b"HD" + tail + b"\r\n", meta("HD", b"", flags, cas, marks))
    one_key = command in requests.ONE_KEY_FETCHES
    request = requests.fetch(command, b"k") if one_key else Request(command, b"k")
    if draw(st.integers(0, 4)) == 0:
        return Case(request, b"EN\r\n", MISS if one_key else meta("EN"))
    value = draw(values)
    reply = ("item", value, flags, cas) if one_key and not marks else meta("VA", value, flags, cas, marks)
    return Case(request, b"VA %d%b\r\n%b\r\n" % (len(value), tail, value), reply)


@st.composite
def line_answers(draw: st.DrawFn) -> Case:
    """A command answered by one line."""
    makers = {
        b"STORED": requests.store("set", b"k", b"v"),
        b"NOT_STORED": requests.store("add", b"k", b"v"),
        b"EXISTS": requests.store("cas", b"k", b"v"),
        b"NOT_FOUND": requests.delete(b"k"),
        b"DELETED": requests.delete(b"k"),
        b"TOUCHED": requests.touch(b"k", 0),
        b"OK": requests.flush_all(),
        b"18446744073709551615": requests.arithmetic("increment", b"k", 1),
        b"0": requests.arithmetic("decrement", b"k", 1),
        b"VERSION 1.6.18": requests.version(),
        b"MEMLIMIT_TOO_SMALL cannot set maxbytes": requests.cache_memlimit(1),
    }
    line = draw(st.sampled_from(sorted(makers)))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        error = draw(error_lines)
        return Case(makers[line], error + b"\r\n", ("ErrorLine", error))
    if kind == 1:
        return Case(makers[line], b"HELLO there\r\n", ("UnknownLine", b"HELLO there"))
    return Case(makers[line], line + b"\r\n", line)


@st.composite
def other_answers(draw: st.DrawFn) -> Case:
    """Statistics and configurations."""
    if draw(st.booleans()):
        names = draw(st.dictionaries(st.sampled_from(("pid", "version", "x:y")), st.sampled_from(("", "1", "a b c"))))
        lines = b"".join(f"STAT {name} {value}\r\n".encode() for name, value in names.items())
        junk = draw(st.sampled_from((b"", b"\r\n", b"HELLO\r\n")))
        return Case(requests.stats(), lines + junk + b"END\r\n", names)
    value = draw(values)
    rows = [(b"cluster", value, 0, None)]
    return Case(requests.config(), b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(value), value), ("items", rows))


CLASSIC_FETCHES = ("get", "gets", "gat", "gats", "get_many", "gets_many", "gat_many", "gats_many")
MANY_FETCHES = CLASSIC_FETCHES[4:]
classic_cases = value_answers(CLASSIC_FETCHES) | line_answers() | other_answers()
meta_cases = meta_answers() | value_answers(MANY_FETCHES) | line_answers() | other_answers()
