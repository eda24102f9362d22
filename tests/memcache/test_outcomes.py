"""Outcomes: every command with every reply of its row and with others: result or exception, and the connection."""

from __future__ import annotations

from typing import Any

import pytest

from rain.memcache import client_errors as errors, outcomes, requests
from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.base import Item
from rain.memcache.outcomes import Breach, breach, judge
from rain.memcache.replies import (
    MISS,
    UNSUPPORTED,
    ErrorLine,
    Fault,
    Items,
    MetaItem,
    Reply,
    UnknownLine,
    Violation,
)
from rain.memcache.requests import Request

NODE = MemcachedHostAddress("cache", 11211)

ONE = [requests.fetch(command, b"k") for command in ("get", "gets", "gat", "gats")]
MANY = [requests.fetch_many(command, (b"k", b"l")) for command in ("get_many", "gets_many", "gat_many", "gats_many")]
CONDITIONAL = [requests.store(command, b"k", b"v") for command in ("add", "replace", "append", "prepend")]
SET, CAS = requests.store("set", b"k", b"v"), requests.store("cas", b"k", b"v")
NUMBERS = [requests.arithmetic(command, b"k", 1) for command in ("increment", "decrement")]
TOUCH, DELETE = requests.touch(b"k", 1), requests.delete(b"k")
FLUSH, LIMIT, VERBOSITY = requests.flush_all(), requests.cache_memlimit(1), requests.verbosity(1)
ADMINISTRATION = [FLUSH, LIMIT, VERBOSITY, requests.version(), requests.stats()]
META = [
    requests.lease(b"k", 1),
    requests.placeholder(b"k"),
    requests.touch_fetch(b"k", 1),
    requests.meta_delete(b"k", 1),
    requests.meta_delete_invalid(b"k"),
]
CONFIGS = [requests.config(), requests.get_config()]
OWN = [requests.barrier(), requests.probe()]
LOGIN = requests.authenticate("user", "secret")
STORAGE = [SET, CAS, *CONDITIONAL]
OTHERS = [*ONE, *MANY, *NUMBERS, TOUCH, DELETE, *ADMINISTRATION, *META, *CONFIGS, *OWN]
ALL = [*STORAGE, *OTHERS, LOGIN]


def identity(request: Request) -> str:
    return request.command


def raised(request: Request, reply: Reply) -> errors.CommandError:
    with pytest.raises(errors.CommandError) as caught:
        judge(request, reply, NODE)
    error = caught.value
    assert error.command == request.command
    assert error.address is NODE
    return error


@pytest.mark.parametrize("request_", STORAGE, ids=identity)
def test_stored(request_: Request):
    assert judge(request_, b"STORED", NODE) is None
    assert outcomes.stored(request_, b"STORED", NODE) is None


@pytest.mark.parametrize(
    ("request_", "reply"),
    [*((request, b"NOT_STORED") for request in CONDITIONAL), (CAS, b"EXISTS")],
    ids=lambda part: getattr(part, "command", part),
)
def test_a_condition_that_failed(request_: Request, reply: bytes):
    error = raised(request_, reply)
    assert type(error) is errors.NotStoredStorageCommandError
    assert error.args == ()
    assert error.reply == reply.decode()


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        *((SET, reply) for reply in (b"NOT_STORED", b"EXISTS", b"NOT_FOUND")),
        *((request, reply) for request in CONDITIONAL for reply in (b"EXISTS", b"NOT_FOUND")),
        *((CAS, reply) for reply in (b"NOT_STORED", b"NOT_FOUND")),
    ],
    ids=lambda part: getattr(part, "command", part),
)
def test_other_replies_to_storage(request_: Request, reply: bytes):
    error = raised(request_, reply)
    assert type(error) is errors.StorageCommandError
    assert error.reply == reply.decode()
    assert str(error) == f"{request_.command} b'k' at cache:11211 was answered {reply.decode()}"


def test_cas_without_a_token_where_zero_means_none():
    """The binary protocol cannot send token 0, which no item has."""
    assert type(raised(CAS, UNSUPPORTED)) is errors.NotStoredStorageCommandError


FETCHED: list[tuple[Request, Reply, Any]] = [
    *((request, MISS, None) for request in ONE),
    *((request, Item(b"v", 1, 2), Item(b"v", 1, 2)) for request in ONE),
    *((request, MetaItem("VA", b"", 1, 2, pending=True), None) for request in ONE),
    *((request, MetaItem("VA", b"", 1, 2, won=True), None) for request in ONE),
    (ONE[0], MetaItem("VA", b"v", 1, 2, won=True, stale=True), Item(b"v", None, None)),
    (ONE[1], MetaItem("VA", b"v", 1, 2, pending=True), Item(b"v", None, 2)),
    (ONE[2], MetaItem("VA", b"", 1, 2, pending=True, stale=True), Item(b"", None, None)),
    (requests.fetch("gats", b"k", True), MetaItem("VA", b"", 1, 2, stale=True), Item(b"", 1, 2)),
    (requests.fetch("get", b"k", True), MetaItem("VA", b"", 1, 2, stale=True), Item(b"", 1, None)),
]


@pytest.mark.parametrize(("request_", "reply", "result"), FETCHED, ids=lambda part: getattr(part, "command", ""))
def test_one_item(request_: Request, reply: Reply, result: Item | None):
    assert judge(request_, reply, NODE) == result
    assert outcomes.item(request_, reply, NODE) == result


def test_an_item_is_handed_on_as_it_is():
    item = Item(b"v", None, None)
    assert outcomes.item(ONE[0], item, NODE) is item


def test_many_items():
    found = Items()
    found.add(b"k", b"1", 5, None)
    found.add(b"l", b"2", 6, 9)
    for request in (MANY[0], MANY[2]):
        assert judge(request, found, NODE) == {b"k": Item(b"1", None, None), b"l": Item(b"2", None, None)}
    for request in (MANY[1], MANY[3]):
        assert judge(request, found, NODE) == {b"k": Item(b"1", None, None), b"l": Item(b"2", None, 9)}
    asked = requests.fetch_many("get_many", (b"k", b"l"), True)
    assert judge(asked, found, NODE) == {b"k": Item(b"1", 5, None), b"l": Item(b"2", 6, None)}
    assert judge(asked, Items(), NODE) == {}


RESULTS: list[tuple[Request, Reply, Any]] = [
    *((request, b"18446744073709551615", 2**64 - 1) for request in NUMBERS),
    (TOUCH, b"TOUCHED", None),
    (DELETE, b"DELETED", None),
    *((request, b"OK", None) for request in (FLUSH, LIMIT, VERBOSITY)),
    (requests.version(), b"VERSION 1.6.18 x", "1.6.18 x"),
    (requests.stats(), {"pid": "1"}, {"pid": "1"}),
    *((request, Items([b"k"], [b"1\nhost|ip|1"], [0], [None]), b"1\nhost|ip|1") for request in CONFIGS),
    *((request, Items(), None) for request in CONFIGS),
    *((request, Items(), None) for request in OWN),
    (requests.barrier(), MetaItem("MN"), None),
    (LOGIN, b"STORED", None),
]


@pytest.mark.parametrize(("request_", "reply", "result"), RESULTS, ids=lambda part: getattr(part, "command", ""))
def test_results(request_: Request, reply: Reply, result: Any):
    assert judge(request_, reply, NODE) == result


@pytest.mark.parametrize("request_", META, ids=identity)
def test_meta_commands_give_what_came(request_: Request):
    reply = MetaItem("HD")
    assert judge(request_, reply, NODE) is reply


@pytest.mark.parametrize("request_", [*NUMBERS, TOUCH, DELETE], ids=identity)
def test_not_found(request_: Request):
    error = raised(request_, b"NOT_FOUND")
    assert type(error) is errors.NotFoundCommandError
    assert error.args == ()
    assert error.reply == "NOT_FOUND"


def test_too_small_a_limit():
    error = raised(LIMIT, b"MEMLIMIT_TOO_SMALL so far")
    assert type(error) is errors.CommandError
    assert error.reply == "MEMLIMIT_TOO_SMALL so far"


@pytest.mark.parametrize("request_", ALL, ids=identity)
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ErrorLine(b"ERROR"), errors.CommandError),
        (ErrorLine(b"ERROR what"), errors.CommandError),
        (ErrorLine(b"CLIENT_ERROR bad command line format"), errors.ClientError),
        (ErrorLine(b"SERVER_ERROR out of memory"), errors.ServerError),
        (ErrorLine(b"CLIENT_ERROR unauthenticated"), errors.AuthenticationError),
        (ErrorLine(b"CLIENT_ERROR bad authentication token format"), errors.AuthenticationError),
        (UnknownLine(b"HELLO \xff"), errors.CommandError),
        (Violation(b"HELLO \xff", "a strange line"), errors.CommandError),
        (UNSUPPORTED, errors.CommandError),
    ],
    ids=repr,
)
def test_failures(request_: Request, reply: Reply, kind: type[errors.CommandError]):
    if request_ is CAS and reply is UNSUPPORTED:
        kind = errors.NotStoredStorageCommandError
    elif request_ is LOGIN:
        kind = errors.AuthenticationError
    elif request_ in STORAGE and kind is not errors.AuthenticationError:
        kind = errors.StorageCommandError
    error = raised(request_, reply)
    assert type(error) is kind
    if isinstance(reply, Fault):
        assert error.reply == reply.line.decode("ascii", "backslashreplace")
        assert error.reply in str(error)
        assert request_.command in str(error)
        assert "cache:11211" in str(error)
        assert "secret" not in str(error)


def test_texts_of_failures():
    assert str(outcomes.failure(SET, Violation(b"\xffabc", "a strange line"), None)) == (
        "set b'k' was answered with what breaks the protocol (a strange line): \\xffabc"
    )
    assert str(outcomes.failure(LIMIT, UNSUPPORTED, NODE)) == (
        "cache_memlimit at cache:11211 is not possible in the protocol of this connection"
    )
    assert "pass chunking=True" in str(
        outcomes.failure(SET, ErrorLine(b"SERVER_ERROR object too large for cache"), NODE)
    )
    assert "pass username=" in str(outcomes.failure(SET, ErrorLine(b"CLIENT_ERROR unauthenticated"), NODE))
    assert outcomes.failure(LIMIT, UNSUPPORTED, NODE).reply is None


@pytest.mark.parametrize("request_", ALL, ids=identity)
@pytest.mark.parametrize(
    "reply", [b"STORED", b"7", MISS, UNSUPPORTED, Items(), MetaItem("HD"), Item(b"", 0, 0), {}], ids=repr
)
def test_regular_replies_do_nothing_to_the_connection(request_: Request, reply: Reply):
    assert breach(request_, reply) is None


@pytest.mark.parametrize("request_", ALL, ids=identity)
def test_what_faults_do_to_the_connection(request_: Request):
    with_data = request_ in STORAGE or request_ is LOGIN
    for line in (b"CLIENT_ERROR unauthenticated", b"CLIENT_ERROR bad authentication token format"):
        assert breach(request_, ErrorLine(line)) is Breach.UNAUTHENTICATED
    for line in (b"ERROR", b"ERROR what", b"CLIENT_ERROR", b"CLIENT_ERROR bad data chunk"):
        assert breach(request_, ErrorLine(line)) is (Breach.OUT_OF_STEP if with_data else None)
    for line in (b"SERVER_ERROR", b"SERVER_ERROR object too large for cache"):
        assert breach(request_, ErrorLine(line)) is None
    assert breach(request_, UnknownLine(b"HELLO")) is Breach.OUT_OF_STEP
    assert breach(request_, Violation(b"HELLO", "a strange line")) is Breach.OUT_OF_STEP


def test_bytes_that_nobody_asked_for_are_out_of_step():
    assert breach(None, Violation(b"HELLO", "bytes that nobody asked for")) is Breach.OUT_OF_STEP
