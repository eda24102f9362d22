"""What members of linked blocks use of each other: packed, unpacked, and refused if it cannot be."""

from __future__ import annotations

from array import array
from typing import Any

import msgpack
import pytest
from hypothesis import given, strategies as st

from rain.common.links import (
    MOST_INPUTS,
    MOST_MEMBERS,
    MOST_REFERENCES,
    Link,
    pack_assigned,
    unpack_assigned,
    unpack_checked,
)

INPUTS, MEMBERS = 2, 3
FIELDS: dict[str, Any] = {
    "templates": [7, 0],
    "which": b"\x00\x01\x00",
    "counts": b"\x01\x02\x03",
    "references": array("H", [0, 1, 2, 0, 3, 2]).tobytes(),
}
"""Two functions; the second member uses the first, the third uses both."""


def packed(**fields: Any) -> bytes:
    """A packed link with other fields."""
    return bytes(msgpack.packb(list((FIELDS | fields).values())))


def refs(*numbers: int) -> bytes:
    return array("H", numbers).tobytes()


def unpacked(data: bytes, members: int = MEMBERS, inputs: int = INPUTS) -> Link:
    return Link.unpack(data, members, inputs)


@st.composite
def links(draw: st.DrawFn) -> tuple[Link, int, int]:
    """A link, its members and the inputs of its block."""
    inputs, members = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    templates = draw(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=3))
    which = draw(st.sampled_from([0, members]).flatmap(lambda size: positions(size, len(templates))))
    references: array[int] = array("H")
    counts = []
    for member in range(members):
        own = [draw(st.integers(0, inputs - 1)), *draw(st.lists(st.integers(0, inputs + member - 1), max_size=4))]
        references.extend(own)
        counts.append(len(own))
    return Link(templates, which, bytes(counts), references, inputs), members, inputs


def positions(size: int, limit: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.integers(0, limit - 1), min_size=size, max_size=size).map(bytes)


def everything(link: Link) -> tuple[Any, ...]:
    members = range(len(link.counts))
    references = [list(link.references_of(k)) for k in members]
    return [link.template(k) for k in members], references, link.templates, link.inputs


@given(links())
def test_round_trip(made: tuple[Link, int, int]):
    link, members, inputs = made
    again = Link.unpack(link.pack(), members, inputs)
    assert everything(again) == everything(link)
    assert again.pack() == link.pack()


@given(links(), st.data())
def test_round_trip_with_what_is_wanted(made: tuple[Link, int, int], data: st.DataObject):
    link, members, inputs = made
    wanted = data.draw(positions(members, 2))
    packed = pack_assigned(link.pack(), wanted)
    for again, found in (unpack_assigned(packed, members, inputs), unpack_checked(packed, inputs)):
        assert (everything(again), found) == (everything(link), wanted)


@given(links())
def test_each_member_has_its_references_and_a_function(made: tuple[Link, int, int]):
    link, members, _ = made
    assert [reference for k in range(members) for reference in link.references_of(k)] == list(link.references)
    assert link.functions() == [link.references_of(k)[0] for k in range(members)]


def test_what_members_have():
    link = unpacked(packed())
    assert everything(link) == ([7, 0, 7], [[0], [1, 2], [0, 3, 2]], [7, 0], INPUTS)
    assert link.functions() == [0, 1, 0]


def test_without_which_all_have_the_first_template():
    link = unpacked(packed(which=b""))
    assert [link.template(k) for k in range(MEMBERS)] == [7, 7, 7]


@given(links(), st.data())
def test_a_reference_to_what_comes_later_is_refused(made: tuple[Link, int, int], data: st.DataObject):
    link, members, inputs = made
    member = data.draw(st.integers(0, members - 1))
    at = sum(link.counts[:member]) + data.draw(st.integers(0, link.counts[member] - 1))
    link.references[at] = data.draw(st.integers(inputs + member, 0xFFFF))
    with pytest.raises(ValueError, match="malformed link"):
        Link.unpack(link.pack(), members, inputs)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        packed()[:-1],
        packed() + b"\x00",
        msgpack.packb(5),
        msgpack.packb([1, 2, 3]),
        msgpack.packb([1, 2, 3, 4]),
        msgpack.packb({"a": 1, "b": 2, "c": 3, "d": 4}),
        b"\x81\x80\x00",
        packed(templates=[]),
        packed(templates=None),
        packed(templates=b"\x07\x00"),
        packed(templates=[7, -1]),
        packed(templates=[7, 1 << 32]),
        packed(templates=[7, True]),
        packed(templates=[7, "0"]),
        packed(templates=[7]),
        packed(which=b"\x00\x01"),
        packed(which=b"\x00\x02\x00"),
        packed(which="\x00\x01\x00"),
        packed(which=[0, 1, 0]),
        packed(which=None),
        packed(counts=b"\x01\x05"),
        packed(counts=b"\x01\x02\x02"),
        packed(counts=b"\x00\x03\x03"),
        packed(counts=[1, 2, 3]),
        packed(counts="\x01\x02\x03"),
        packed(references=FIELDS["references"][:-1]),
        packed(references=FIELDS["references"] + b"\x00\x00"),
        packed(references=[0, 1, 2, 0, 3, 2]),
        packed(references=[0, 1, 2, 0, 3, 1 << 16]),
        packed(references=None),
        packed(references=6),
        packed(references=refs(2, 1, 2, 0, 3, 2)),
        packed(references=refs(0, 1, 3, 0, 3, 2)),
        packed(references=refs(0, 1, 2, 0, 4, 2)),
        packed(references=refs(0, 2, 1, 0, 3, 2)),
        packed(references=refs(0, 1, 2, 3, 0, 2)),
        packed(counts=bytes([1, 2, MOST_REFERENCES + 1]), references=refs(0, 1, 2, *[0] * (MOST_REFERENCES + 1))),
    ],
)
def test_malformed_links_are_refused(data: bytes):
    with pytest.raises(ValueError, match="a malformed link"):
        unpacked(data)


@pytest.mark.parametrize(("members", "inputs"), [(0, 2), (2, 2), (4, 2), (3, 0), (3, 1), (3, -1)])
def test_a_link_of_another_block_is_refused(members: int, inputs: int):
    with pytest.raises(ValueError, match="a malformed link"):
        unpacked(packed(), members, inputs)


def test_limits():
    largest = Link([0], b"", bytes([1]) * MOST_MEMBERS, array("H", [MOST_INPUTS - 1]) * MOST_MEMBERS, MOST_INPUTS)
    assert unpacked(largest.pack(), MOST_MEMBERS, MOST_INPUTS).references_of(MOST_MEMBERS - 1)[0] == MOST_INPUTS - 1
    most = Link([0], b"", bytes([MOST_REFERENCES]), array("H", [0]) * MOST_REFERENCES, 1)
    assert len(unpacked(most.pack(), 1, 1).references_of(0)) == MOST_REFERENCES
    with pytest.raises(ValueError, match="members"):
        unpacked(largest.pack(), MOST_MEMBERS, MOST_INPUTS + 1)
    larger = Link([0], b"", bytes([1]) * (MOST_MEMBERS + 1), array("H", [0]) * (MOST_MEMBERS + 1), 1)
    with pytest.raises(ValueError, match="members"):
        unpacked(larger.pack(), MOST_MEMBERS + 1, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb(5),
        msgpack.packb([1, 2]),
        msgpack.packb([packed()]),
        msgpack.packb([packed(), "\x00\x01\x01"]),
        msgpack.packb([packed().hex(), b"\x00\x01\x01"]),
        pack_assigned(packed(), b"\x00\x01"),
        pack_assigned(packed(counts=b""), b"\x00\x01\x01"),
        pack_assigned(packed(), b"\x00\x01\x01")[:-1],
        pack_assigned(packed(), b"\x00\x02\x01"),
    ],
)
def test_malformed_assigned_links_are_refused(data: bytes):
    with pytest.raises(ValueError, match="a malformed link"):
        unpack_assigned(data, MEMBERS, INPUTS)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data: bytes):
    with pytest.raises(ValueError, match="a malformed link"):
        unpacked(data)
    with pytest.raises(ValueError, match="a malformed link"):
        unpack_assigned(data, MEMBERS, INPUTS)
