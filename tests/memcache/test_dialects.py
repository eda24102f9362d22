"""Dialects: the buffers of a turn, merging of fetches, and the account of what is unanswered."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from rain.memcache import requests
from rain.memcache.dialects import LARGE, ClassicDialect, Dialect, MetaDialect
from rain.memcache.requests import Request
from tests.memcache.wire import answers


@pytest.mark.parametrize(("dialect", "name"), [(ClassicDialect(), "classic"), (MetaDialect(), "meta")])
def test_names(dialect: Dialect, name: str):
    assert dialect.name == name


def test_small_values_are_joined_and_large_ones_are_not_copied():
    small, large, huge = b"s" * (LARGE - 1), b"l" * LARGE, memoryview(bytearray(b"h" * LARGE * 2))
    turn = [
        requests.fetch("get", b"a"),
        requests.store("set", b"b", small),
        requests.store("set", b"c", large),
        requests.store("cas", b"d", huge, token=5),
        requests.delete(b"e"),
    ]
    buffers, unsupported = MetaDialect().encode(turn)
    assert unsupported == []
    assert buffers == [
        b"mg a v\r\nset b 0 0 65535\r\n" + small + b"\r\nset c 0 0 65536\r\n",
        large,
        b"\r\ncas d 0 0 131072 5\r\n",
        huge,
        b"\r\ndelete e\r\n",
    ]
    assert buffers[1] is large
    assert buffers[3] is huge


def test_a_large_value_at_the_end_is_followed_by_its_end_of_line():
    large = b"l" * LARGE
    assert MetaDialect().encode([requests.store("set", b"k", large)]) == ([b"set k 0 0 65536\r\n", large, b"\r\n"], [])


def test_an_empty_turn_sends_nothing():
    assert MetaDialect().encode([]) == ([], [])
    assert ClassicDialect().encode([]) == ([], [])


def gets(*keys: bytes, command: str = "get") -> list[Request]:
    return [requests.fetch(command, key) for key in keys]


def test_the_gets_of_a_turn_are_merged():
    dialect = ClassicDialect()
    turn = [*gets(b"a", b"b"), requests.delete(b"d"), *gets(b"a", b"c", command="gets"), *gets(b"a", b"e")]
    assert dialect.encode(turn) == ([b"delete d\r\nget a b e\r\ngets a c\r\n"], [])
    assert dialect.unanswered == 7
    first = [turn[2], turn[0], turn[1], turn[5], turn[6], turn[3], turn[4]]
    assert dialect.pending() == first
    assert dialect.oldest() is turn[2]
    done = dialect.feed(b"DELETED\r\nVALUE a 0 1\r\nx\r\nEND\r\nVALUE c 0 1 7\r\ny\r\nEND\r\n")
    assert [request for request, _ in done] == first
    a, miss = ("item", b"x", None, None), done[2][1]
    assert [reply for _, reply in answers(done)][1:] == [a, miss, a, miss, miss, ("item", b"y", None, 7)]
    assert dialect.unanswered == 0
    assert dialect.oldest() is None


def test_one_get_among_others_stays_as_it_is():
    dialect = ClassicDialect()
    turn = [*gets(b"a"), requests.version()]
    assert dialect.encode(turn) == ([b"version\r\nget a\r\n"], [])
    assert dialect.unanswered == 2


def test_merged_commands_have_up_to_32_different_keys():
    keys = [b"%d" % number for number in range(70)]
    turn = list(itertools.chain.from_iterable(gets(key, key) for key in keys))
    dialect = ClassicDialect()
    [buffer], _ = dialect.encode(turn)
    lines = bytes(buffer).split(b"\r\n")
    assert [len(line.split()) - 1 for line in lines[:-1]] == [32, 32, 6]
    assert dialect.unanswered == 140
    assert dialect.oldest() is turn[0]
    assert dialect.pending() == turn
    done = dialect.feed(b"END\r\n" * 3)
    assert [request for request, _ in done] == turn
    assert dialect.unanswered == 0


def test_with_meta_nothing_is_merged():
    dialect = MetaDialect()
    assert dialect.encode(gets(b"a", b"b") + gets(b"c", command="gets")) == ([b"mg a v\r\nmg b v\r\nmg c v c\r\n"], [])
    assert dialect.unanswered == 3


def test_noreply_requests_are_not_waited_for():
    for dialect in (ClassicDialect(), MetaDialect()):
        turn = [requests.store("set", b"k", b"v", noreply=True), requests.delete(b"k", True), requests.quit_()]
        assert dialect.encode(turn) == ([b"set k 0 0 1 noreply\r\nv\r\ndelete k noreply\r\nquit\r\n"], [])
        assert dialect.unanswered == 0
        assert dialect.pending() == []


def test_what_a_dialect_lacks_is_told_and_the_rest_is_sent():
    lease, version = requests.lease(b"k", 5), requests.version()
    dialect = ClassicDialect()
    assert dialect.encode([lease, version, lease]) == ([b"version\r\n"], [lease, lease])
    assert dialect.unanswered == 1


def test_after_a_loss_nothing_is_taken_any_more():
    dialect = ClassicDialect()
    turn = [requests.config(), *gets(b"a", b"b")]
    dialect.encode(turn)
    dialect.feed(b"CONFIG cluster 0 9\r\nabc")
    assert dialect.missing() == 8
    assert dialect.take_unanswered() == turn
    assert dialect.unanswered == 0
    assert dialect.oldest() is None
    assert dialect.missing() == 0
    assert dialect.feed(b"def") == []


def test_large_values_are_copied_once():
    keys = tuple(b"key%d" % number for number in range(100))
    size = 10_000
    stream = b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (key, size, b"v" * size) for key in keys) + b"END\r\n"
    view = memoryview(stream)
    dialect = MetaDialect()
    dialect.encode([requests.fetch_many("get_many", keys)])
    tracemalloc.start()
    try:
        done = [
            answer for start in range(0, len(view), 1 << 18) for answer in dialect.feed(view[start : start + (1 << 18)])
        ]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(done) == 1
    assert peak < 1.1 * len(stream)
