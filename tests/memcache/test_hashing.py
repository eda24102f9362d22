"""Which node has a key: the vectors of every way of hashing, spread, stability."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import pytest

from rain.memcache import hashing
from rain.memcache.addresses import MemcachedHostAddress, node_id
from rain.memcache.options import HASHINGS

PORTS = (11211, 11212, 11213)
NODE_IDS = [node_id(MemcachedHostAddress("127.0.0.1", port)) for port in PORTS]

VECTORS = {
    b"a": (11212, 11213, 11213),
    b"foo": (11213, 11213, 11212),
    b"bar": (11213, 11213, 11213),
    b"key": (11213, 11213, 11212),
    b"key:0": (11211, 11211, 11213),
    b"key:1": (11211, 11212, 11213),
    b"key:2": (11213, 11213, 11213),
    b"key:3": (11211, 11211, 11211),
    b"0123456789abcdef": (11212, 11212, 11211),
    b"x" * 250: (11212, 11212, 11211),
    b"\xc3\xb1": (11213, 11213, 11211),
    b"rain:task:42": (11212, 11212, 11212),
}


@pytest.fixture(params=["mmh3", "pure"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module as it is with and without mmh3."""
    if request.param == "pure":
        monkeypatch.setitem(sys.modules, "mmh3", None)
    yield importlib.reload(hashing)
    monkeypatch.undo()
    importlib.reload(hashing)


def test_mmh3_is_used_if_there_is_one(module: ModuleType, request: pytest.FixtureRequest):
    """Both ways are really tested."""
    pure = "pure" in request.node.callspec.id
    assert (module.murmur3 is module.pure_murmur3) == pure


@pytest.mark.parametrize("key", VECTORS)
@pytest.mark.parametrize("column", range(3))
def test_vectors(module: ModuleType, key: bytes, column: int):
    """Keys go to the nodes that are written down."""
    choose = module.chooser(HASHINGS[column], NODE_IDS)
    assert PORTS[choose(key)] == VECTORS[key][column]


def test_murmur3_vectors(module: ModuleType):
    """The hash itself."""
    assert module.murmur3(b"") == 0
    assert module.murmur3(b"hello") == 0xCBD8A7B341BD9B02
    assert module.murmur3(b"a127.0.0.111211") == 0x720EADB0618A5465


def test_both_murmur3_agree():
    """At every length of the last block."""
    assert hashing.murmur3 is not hashing.pure_murmur3
    for length in range(70):
        data = bytes(range(200, 200 - length, -1))
        assert hashing.pure_murmur3(data) == hashing.murmur3(data)


def test_fold_vectors():
    """What is kept of the hashes."""
    folded = [hashing.fold(hashing.murmur3(node)) for node in NODE_IDS]
    assert folded == [0xFFFFFFE6, 0xFFFF006B, 0xFFFFFFA7]
    assert [hashing.fold(hashing.murmur3(b"a" + node)) for node in NODE_IDS] == [0xFFFF0065, 0xFFFFFF17, 0xFF000073]
    assert [hashing.fold(hashing.murmur3(b"foo" + node)) for node in NODE_IDS] == [0xFF000048, 0xFFFFFFBF, 0xFFFFFFF9]


def test_fold_is_the_formula():
    """Bytes as signed numbers, spread over what lies above them."""

    def signed(byte: int) -> int:
        return byte - 256 if byte >= 128 else byte

    for h1 in (0, 0x7F, 0x80, 0x8000, 0x80_0000, 0x8000_0000, 0xFF00_0000_0000, 0x8081_7F80, 0x0180_8001, 2**64 - 1):
        b0, b1, b2, b3 = (h1 >> shift & 0xFF for shift in (0, 8, 16, 24))
        expected = signed(b0) & 0xFFFFFFFF
        expected |= 0xFFFFFF00 * (signed(b1) < 0) | 0xFFFF0000 * (signed(b2) < 0) | 0xFF000000 * (signed(b3) < 0)
        assert hashing.fold(h1) == expected
        assert hashing.fold_aarch64(h1) == b0


def test_rendezvous_vectors():
    """The hash of the key, and those of the nodes."""
    assert hashing.blake(b"a") == 0x2F42665B399EF840
    assert [hashing.blake(node) for node in NODE_IDS] == [0x9C723008C6C2AAFB, 0xA86E88E55FA9C0DB, 0x1A0A36375CEAECE4]
    scores = [hashing.mixed(hashing.blake(b"a") ^ hashing.blake(node)) for node in NODE_IDS]
    assert scores == [0x023520BD5AE5C2ED, 0xA5800EDA7C2F4E03, 0xAEA6CFFC212FB452]


def test_emcache_ties():
    """Equal scores: the larger folded hash of the id alone wins, wherever it stands in the list."""
    ranks = [hashing.fold(hashing.murmur3(node)) for node in NODE_IDS]
    tied = 0
    for number in range(20_000):
        key = b"tie:%d" % number
        scores = [hashing.fold(hashing.murmur3(key + node)) for node in NODE_IDS]
        best = [node for node in range(3) if scores[node] == max(scores)]
        if len(best) > 1:
            tied += 1
            expected = max(best, key=ranks.__getitem__)
            for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
                choose = hashing.chooser("emcache", [NODE_IDS[node] for node in order])
                assert order[choose(key)] == expected
    assert tied > 10


@pytest.mark.parametrize("kind", HASHINGS)
def test_nodes_with_equal_ids(kind: str):
    """The earlier one wins."""
    choose = hashing.chooser(kind, [b"same", b"same", b"same"])
    assert {choose(b"key:%d" % number) for number in range(50)} == {0}


@pytest.mark.parametrize("kind", HASHINGS)
def test_order_of_nodes_does_not_matter(kind: str):
    """Clients that know the nodes in different orders agree."""
    forward, backward = hashing.chooser(kind, NODE_IDS), hashing.chooser(kind, NODE_IDS[::-1])
    for number in range(500):
        key = b"key:%d" % number
        assert forward(key) == 2 - backward(key)


@pytest.mark.parametrize("kind", HASHINGS)
def test_a_node_that_leaves_moves_only_its_keys(kind: str):
    """Rendezvous: what was elsewhere stays there."""
    ids = [node_id(MemcachedHostAddress(f"cache-{number}", 11211)) for number in range(5)]
    choose, without = hashing.chooser(kind, ids), hashing.chooser(kind, ids[:2] + ids[3:])
    moved = 0
    for number in range(2000):
        key = b"key:%d" % number
        before, after = ids[choose(key)], (ids[:2] + ids[3:])[without(key)]
        assert after == before or before == ids[2]
        moved += after != before
    assert 0 < moved < 1000


@pytest.mark.parametrize(
    ("kind", "nodes", "tolerance"),
    [
        ("emcache", 4, 0.05),
        ("emcache", 16, 0.10),
        ("emcache", 64, 0.20),
        ("emcache-aarch64", 4, 0.05),
        ("rendezvous", 4, 0.05),
        ("rendezvous", 16, 0.10),
        ("rendezvous", 64, 0.20),
    ],
)
def test_spread(kind: str, nodes: int, tolerance: float):
    """100 000 keys are spread evenly."""
    choose = hashing.chooser(kind, [node_id(MemcachedHostAddress(f"10.0.0.{n}", 11211)) for n in range(nodes)])
    counts = Counter(choose(b"key:%d" % number) for number in range(100_000))
    mean = 100_000 / nodes
    assert len(counts) == nodes
    assert mean * (1 - tolerance) < min(counts.values()) <= max(counts.values()) < mean * (1 + tolerance)
