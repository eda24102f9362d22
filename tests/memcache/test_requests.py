"""Requests: the exact bytes of every form, in every dialect of text, and what a request says of itself."""

from __future__ import annotations

import pytest

from rain.memcache import requests
from rain.memcache.dialects import ClassicDialect, MetaDialect
from rain.memcache.requests import Request, has_data_block, is_abandoned, is_plain_read

KEYS = (b"foo", b"bar")

BOTH = [
    (requests.fetch_many("get_many", KEYS), b"get foo bar"),
    (requests.fetch_many("gets_many", KEYS, True), b"gets foo bar"),
    (requests.fetch_many("gat_many", KEYS, False, -1), b"gat -1 foo bar"),
    (requests.fetch_many("gats_many", KEYS, False, 9), b"gats 9 foo bar"),
    (requests.store("set", b"foo", b"value"), b"set foo 0 0 5\r\nvalue"),
    (requests.store("set", b"foo", b""), b"set foo 0 0 0\r\n"),
    (requests.store("set", b"foo", memoryview(b"value"), 1, 2), b"set foo 1 2 5\r\nvalue"),
    (requests.store("set", b"foo", b"value", noreply=True), b"set foo 0 0 5 noreply\r\nvalue"),
    (requests.store("add", b"foo", b"value", 4294967295, -1), b"add foo 4294967295 -1 5\r\nvalue"),
    (requests.store("replace", b"foo", b"value"), b"replace foo 0 0 5\r\nvalue"),
    (requests.store("append", b"foo", b"value"), b"append foo 0 0 5\r\nvalue"),
    (requests.store("prepend", b"foo", b"value", noreply=True), b"prepend foo 0 0 5 noreply\r\nvalue"),
    (requests.store("cas", b"foo", b"value", token=1), b"cas foo 0 0 5 1\r\nvalue"),
    (requests.store("cas", b"foo", b"value", token=0), b"cas foo 0 0 5 0\r\nvalue"),
    (requests.store("cas", b"foo", b"value", token=1, noreply=True), b"cas foo 0 0 5 1 noreply\r\nvalue"),
    (requests.arithmetic("increment", b"foo", 1), b"incr foo 1"),
    (requests.arithmetic("increment", b"foo", 1, True), b"incr foo 1 noreply"),
    (requests.arithmetic("decrement", b"foo", 2**64 - 1), b"decr foo 18446744073709551615"),
    (requests.arithmetic("decrement", b"foo", 1, True), b"decr foo 1 noreply"),
    (requests.touch(b"foo", 1), b"touch foo 1"),
    (requests.touch(b"foo", -1, True), b"touch foo -1 noreply"),
    (requests.delete(b"foo"), b"delete foo"),
    (requests.delete(b"foo", True), b"delete foo noreply"),
    (requests.flush_all(), b"flush_all 0"),
    (requests.flush_all(3, True), b"flush_all 3 noreply"),
    (requests.version(), b"version"),
    (requests.stats(), b"stats"),
    (requests.stats(("items", "x")), b"stats items x"),
    (requests.verbosity(1), b"verbosity 1"),
    (requests.verbosity(1, True), b"verbosity 1 noreply"),
    (requests.cache_memlimit(64), b"cache_memlimit 64"),
    (requests.cache_memlimit(64, True), b"cache_memlimit 64 noreply"),
    (requests.quit_(), b"quit"),
    (requests.config(), b"config get cluster"),
    (requests.get_config(), b"get AmazonElastiCache:cluster"),
    (requests.probe(), b"get rain:probe"),
    (requests.authenticate("a", "a"), b"set _ _ _ 3\r\na a"),
    (requests.authenticate("ü", "a b"), b"set _ _ _ 6\r\n\xc3\xbc a b"),
]
CLASSIC = [
    (requests.fetch("get", b"foo"), b"get foo"),
    (requests.fetch("get", b"foo", True), b"get foo"),
    (requests.fetch("gets", b"foo"), b"gets foo"),
    (requests.fetch("gat", b"foo"), b"gat 0 foo"),
    (requests.fetch("gats", b"foo", True, 8), b"gats 8 foo"),
    (requests.barrier(), b"get rain:probe"),
]
META = [
    (requests.fetch("get", b"foo"), b"mg foo v"),
    (requests.fetch("get", b"foo", True), b"mg foo v f"),
    (requests.fetch("gets", b"foo"), b"mg foo v c"),
    (requests.fetch("gets", b"foo", True), b"mg foo v f c"),
    (requests.fetch("gat", b"foo", False, 7), b"mg foo v T7"),
    (requests.fetch("gat", b"foo", True, -1), b"mg foo v f T-1"),
    (requests.fetch("gats", b"foo", False, 0), b"mg foo v c T0"),
    (requests.fetch("gats", b"foo", True, 0), b"mg foo v f c T0"),
    (requests.lease(b"foo", 30), b"mg foo v f c N30"),
    (requests.lease(b"foo", 30, 60), b"mg foo v f c N30 R60"),
    (requests.placeholder(b"foo"), b"mg foo v f c"),
    (requests.touch_fetch(b"foo", 5), b"mg foo f T5"),
    (requests.meta_delete(b"foo", 12), b"md foo C12"),
    (requests.meta_delete_invalid(b"foo"), b"md foo I"),
    (requests.barrier(), b"mn"),
]


@pytest.mark.parametrize(("request_", "form"), CLASSIC + BOTH, ids=lambda part: repr(part)[:40])
def test_classic_forms(request_: Request, form: bytes):
    assert ClassicDialect().encode([request_]) == ([form + b"\r\n"], [])


@pytest.mark.parametrize(("request_", "form"), META + BOTH, ids=lambda part: repr(part)[:40])
def test_meta_forms(request_: Request, form: bytes):
    assert MetaDialect().encode([request_]) == ([form + b"\r\n"], [])


@pytest.mark.parametrize(
    "request_",
    [
        requests.lease(b"foo", 30),
        requests.placeholder(b"foo"),
        requests.touch_fetch(b"foo", 5),
        requests.meta_delete(b"foo", 1),
        requests.meta_delete_invalid(b"foo"),
    ],
)
def test_classic_has_no_leases(request_: Request):
    dialect = ClassicDialect()
    assert dialect.encode([request_]) == ([], [request_])
    assert dialect.unanswered == 0


def test_plain_reads_may_be_sent_again():
    commands = {request.command for request, _ in CLASSIC + META + BOTH if is_plain_read(request)}
    assert commands == {"get", "gets", "get_many", "gets_many", "version", "stats", "placeholder"}


def test_data_blocks():
    commands = {request.command for request, _ in CLASSIC + META + BOTH if has_data_block(request)}
    assert commands == {"set", "add", "replace", "append", "prepend", "cas", "authenticate"}


def test_the_client_makes_these_for_itself():
    commands = {request.command for request, _ in CLASSIC + META + BOTH if request.own}
    assert commands == {"barrier", "probe", "authenticate", "placeholder", "config", "get_config", "quit"}
    assert requests.version(own=True).own


def test_a_request_is_abandoned_when_its_waiter_is_done():
    class Waiter:
        def __init__(self, gone: bool) -> None:
            self.gone = gone

        def done(self) -> bool:
            return self.gone

    request = requests.version()
    assert not is_abandoned(request)
    request.waiter = Waiter(False)
    assert not is_abandoned(request)
    request.waiter = Waiter(True)
    assert is_abandoned(request)


def test_the_text_of_a_request_tells_no_value_and_no_password():
    assert repr(requests.store("set", b"k", b"secret")) == "<Request set b'k'>"
    assert repr(requests.authenticate("user", "secret")) == "<Request authenticate>"
