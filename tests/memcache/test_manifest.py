"""How large values are cut, what their manifest says, and how they are put together."""

from __future__ import annotations

import struct
from hashlib import blake2b

import pytest
from hypothesis import given, strategies as st

from rain.memcache import manifest
from rain.memcache.manifest import MAX_PARTS, Assembly, Cutting, Manifest

IDENTITY = bytes(range(16))


def cut(value: bytes, part_size: int, flags: int = 5) -> tuple[list[tuple[bytes, bytes]], Manifest]:
    cutting = Cutting(value, flags, part_size, IDENTITY)
    parts = [(key, bytes(data)) for key, data in cutting]
    return parts, cutting.manifest()


def test_layout():
    parts, told = cut(b"abcdefghij", 4)
    assert told.encode() == struct.pack(
        "<4sIQII16s16s", b"RMC1", 5, 10, 4, 3, IDENTITY, blake2b(b"abcdefghij", digest_size=16).digest()
    )
    assert len(told.encode()) == 56
    assert parts == [
        (b"rmc1:000102030405060708090a0b0c0d0e0f:0", b"abcd"),
        (b"rmc1:000102030405060708090a0b0c0d0e0f:1", b"efgh"),
        (b"rmc1:000102030405060708090a0b0c0d0e0f:2", b"ij"),
    ]
    assert told.part_keys() == [key for key, _ in parts]
    assert manifest.decode(told.encode()) == told


@given(st.binary(min_size=1, max_size=300), st.integers(1, 100))
def test_what_was_cut_is_put_together(value: bytes, part_size: int):
    parts, told = cut(value, part_size)
    assert len(parts) == told.parts == -(-len(value) // part_size)
    assembly = Assembly(told)
    assert all(assembly.add(data) for _, data in parts)
    assert assembly.value() == value


def test_given_names_only_the_parts_that_were_taken():
    cutting = Cutting(b"x" * 10, 0, 3, IDENTITY)
    assert cutting.given() == []
    parts = iter(cutting)
    taken = [next(parts)[0], next(parts)[0]]
    assert cutting.given() == taken


@pytest.mark.parametrize(
    ("length", "parts"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (4 * MAX_PARTS, MAX_PARTS)]
)
def test_count(length: int, parts: int):
    assert manifest.count_parts(length, 4) == parts


def test_too_many_parts():
    with pytest.raises(ValueError, match=r"16385 bytes needs 4097 parts of 4 bytes.*larger chunk_size"):
        manifest.count_parts(4 * MAX_PARTS + 1, 4)
    with pytest.raises(ValueError, match="4097 parts"):
        Cutting(bytes(4 * MAX_PARTS + 1), 0, 4, IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        {"magic": b"RMC2"},
        {"part_size": 0},
        {"parts": 0, "length": 0},
        {"parts": 2},
        {"parts": 4},
        {"length": 4 * (MAX_PARTS + 1), "parts": MAX_PARTS + 1},
    ],
)
def test_broken_manifest(change: dict[str, object]):
    fields: dict[str, object] = {"magic": b"RMC1", "flags": 5, "length": 10, "part_size": 4, "parts": 3, **change}
    data = struct.pack("<4sIQII", *fields.values()) + IDENTITY + bytes(16)
    assert len(data) == 56
    assert manifest.decode(data) is None


@pytest.mark.parametrize(
    "data", [b"", b"RMC1", bytes(56), cut(b"abc", 1)[1].encode() + b"x", cut(b"abc", 1)[1].encode()[:-1]]
)
def test_something_else_is_no_manifest(data: bytes):
    assert manifest.decode(data) is None


def test_a_part_of_the_wrong_length():
    _, told = cut(b"abcdefghij", 4)
    assembly = Assembly(told)
    assert not assembly.add(b"abc")
    assert assembly.add(b"abcd")
    assert assembly.add(b"efgh")
    assert not assembly.add(b"ijk")
    assert not assembly.add(b"i")
    assert assembly.add(b"ij")
    assert assembly.value() == b"abcdefghij"


def test_wrong_bytes_and_missing_parts():
    _, told = cut(b"abcdefghij", 4)
    assembly = Assembly(told)
    assembly.add(b"abcd")
    assert assembly.value() is None
    assembly.add(b"efgH")
    assembly.add(b"ij")
    assert assembly.value() is None
