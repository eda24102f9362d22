"""Keys of results."""

from dataclasses import replace

import pytest

from rain.cache.keys import KEY_BYTES, InputDigest, KeyParts, result_key

INPUT = InputDigest("blob", "text", b"d" * 32)
PARTS = KeyParts("py/", (b"code", b"c", b"", b"a"), (INPUT,), ("x",), (b"o",), (("A", "1"),), "3.11")


def test_equal_parts_give_equal_keys():
    assert result_key(PARTS) == result_key(replace(PARTS))
    assert len(result_key(PARTS)) == KEY_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"task_type": "py"},
        {"computation": (b"code", b"c", b"", b"b")},
        {"computation": (b"text", b"c")},
        {"computation": (b"code", b"", b"c", b"a")},
        {"inputs": ()},
        {"inputs": (INPUT, INPUT)},
        {"inputs": (replace(INPUT, digest=b"e" * 32),)},
        {"inputs": (replace(INPUT, content_type=""),)},
        {"inputs": (replace(INPUT, data_type="dir"),)},
        {"labels": ("y",)},
        {"labels": ()},
        {"outputs": (b"p",)},
        {"outputs": (b"o", b"o")},
        {"env": ()},
        {"env": (("A", "2"),)},
        {"env": (("A", None),)},
        {"env": (("A", ""),)},
        {"python": "3.12"},
    ],
)
def test_every_part_counts(change):
    assert result_key(replace(PARTS, **change)) != result_key(PARTS)


def test_pieces_cannot_be_shifted():
    one = replace(PARTS, labels=("ab", "c"))
    other = replace(PARTS, labels=("a", "bc"))
    assert result_key(one) != result_key(other)


def test_an_absent_variable_is_not_an_empty_one():
    assert result_key(replace(PARTS, env=(("A", ""),))) != result_key(replace(PARTS, env=(("A", None),)))
