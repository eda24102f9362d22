"""Which node has a key: the ways of `hashing=`, as pure functions of key and node ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import import_module
from typing import Any

try:
    mmh3: Any = import_module("mmh3")  # by name: type checkers need not have it
except ImportError:
    mmh3 = None

Chooser = Callable[[bytes], int]
"""Gives the index of a key's node in the list for which it was made."""

_MASK = 2**64 - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


def chooser(hashing: str, node_ids: Sequence[bytes]) -> Chooser:
    """The function that chooses among nodes.

    Args:
        hashing: one of the names of the option.
        node_ids: texts of `addresses.node_id`, in the order of the list of nodes, two at least.
    """
    return _CHOOSERS[hashing](node_ids)


def _emcache(node_ids: Sequence[bytes]) -> Chooser:
    return _murmur(node_ids, fold)


def _emcache_aarch64(node_ids: Sequence[bytes]) -> Chooser:
    return _murmur(node_ids, fold_aarch64)


def _murmur(node_ids: Sequence[bytes], folded: Callable[[int], int]) -> Chooser:
    """By the largest folded hash of key and node id; among equals the larger folded hash of the id, then the first."""
    ranks = [(-folded(murmur3(node)), index) for index, node in enumerate(node_ids)]
    in_order = [index for _, index in sorted(ranks)]
    texts = [node_ids[index] for index in in_order]

    def choose(key: bytes) -> int:
        scores = [folded(murmur3(key + text)) for text in texts]
        return in_order[scores.index(max(scores))]

    return choose


def fold(h1: int) -> int:
    """The 32 bits that emcache's builds for x86-64 keep of a hash."""
    low = h1 & 0xFF
    score = low if low < 0x80 else low | 0xFFFFFF00
    if h1 & 0x8000:
        score |= 0xFFFFFF00
    if h1 & 0x800000:
        score |= 0xFFFF0000
    if h1 & 0x80000000:
        score |= 0xFF000000
    return score


def fold_aarch64(h1: int) -> int:
    """What emcache's builds for Linux on aarch64 keep of a hash."""
    return h1 & 0xFF


def _rendezvous(node_ids: Sequence[bytes]) -> Chooser:
    hashes = [blake(node) for node in node_ids]

    def choose(key: bytes) -> int:
        own = blake(key)
        scores = [mixed(own ^ node) for node in hashes]
        return scores.index(max(scores))

    return choose


def blake(text: bytes) -> int:
    """The 64 bits by which `hashing="rendezvous"` knows keys and nodes."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def mixed(value: int) -> int:
    """The finaliser of MurmurHash3: every bit of a number changes about half of all bits."""
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def pure_murmur3(data: bytes) -> int:
    """First 64 bits of MurmurHash3_x64_128 with seed 0."""
    h1 = h2 = 0
    whole = len(data) & ~15
    for start in range(0, whole, 16):
        h1 ^= _scramble(int.from_bytes(data[start : start + 8], "little"), _C1, 31, _C2)
        h1 = (_rotated(h1, 27) + h2) * 5 + 0x52DCE729 & _MASK
        h2 ^= _scramble(int.from_bytes(data[start + 8 : start + 16], "little"), _C2, 33, _C1)
        h2 = (_rotated(h2, 31) + h1) * 5 + 0x38495AB5 & _MASK
    h1 ^= _scramble(int.from_bytes(data[whole : whole + 8], "little"), _C1, 31, _C2) ^ len(data)
    h2 ^= _scramble(int.from_bytes(data[whole + 8 :], "little"), _C2, 33, _C1) ^ len(data)
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    return mixed(h1) + mixed(h2) & _MASK


def _scramble(block: int, first: int, bits: int, second: int) -> int:
    return _rotated(block * first & _MASK, bits) * second & _MASK


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK


def _mmh3_murmur3(data: bytes) -> int:
    first: int = mmh3.hash64(data)[0]
    return first & _MASK


murmur3 = pure_murmur3 if mmh3 is None else _mmh3_murmur3
"""First 64 bits of MurmurHash3_x64_128 with seed 0, the fast way if there is one."""

_CHOOSERS: dict[str, Callable[[Sequence[bytes]], Chooser]] = {
    "emcache": _emcache,
    "emcache-aarch64": _emcache_aarch64,
    "rendezvous": _rendezvous,
}
