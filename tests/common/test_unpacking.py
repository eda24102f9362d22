"""Unpacking what other processes sent."""

from __future__ import annotations

import msgpack
import pytest

from rain.common.unpacking import unpack_bounded


@pytest.mark.parametrize("value", [None, [1, "x", b"y"], {"a": [1.5, {}]}, list(range(5000)), [b"x" * 100_000] * 3])
def test_values(value):
    assert unpack_bounded(msgpack.packb(value)) == value


@pytest.mark.parametrize("padding", [0, 2000])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "too early|incomplete"),
        (b"\x92\x01", "too early|incomplete"),
        (b"\xc1", r"."),
        (b"\x01\x02", "follow after its end"),
        (b"\xa1\xff", "utf-8"),
        (b"\x81\x01\x02", "int is not allowed for map key"),
        (b"\x91" * 3000, r"."),
    ],
)
def test_what_is_not_one_value(data, text, padding):
    packed = msgpack.packb([b"x" * padding])
    for spoilt in (data, b"\x92" + packed + data):
        with pytest.raises(ValueError, match=text) as caught:
            unpack_bounded(spoilt)
        assert len(str(caught.value)) < 300


def test_keys_of_other_types():
    assert unpack_bounded(b"\x81\x01\x02", strict_map_key=False) == {1: 2}
    with pytest.raises(ValueError, match="unhashable"):
        unpack_bounded(b"\x81\x90\x02", strict_map_key=False)
