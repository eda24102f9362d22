"""Packed templates, specs and infos: what is taken and what is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from rain.common.task_template import read_info_map, read_spec_map, read_template_map

FULL: dict[str, Any] = {
    "task_type": "py/f",
    "config": {"any": ["thing"]},
    "resources": {"cpus": 1},
    "name": "n",
    "user": {"a": 1},
    "retries": 2,
    "timeout": 1.5,
    "priority": -5,
    "cache": True,
    "env": {"A": "x", "B": None},
    "labels": ["a", None, ""],
    "outputs": [{"label": "x"}, None],
    "later": "unknown",
}


def deep(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


def test_whole_template():
    assert read_template_map(msgpack.packb(FULL)) == FULL
    nothing = dict.fromkeys(FULL, None) | {"task_type": "!run"}
    assert read_template_map(msgpack.packb(nothing)) == nothing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_type", 5),
        ("name", ["n"]),
        ("resources", [1]),
        ("user", "x"),
        ("retries", -1),
        ("retries", True),
        ("retries", 1 << 31),
        ("timeout", -0.5),
        ("timeout", float("nan")),
        ("timeout", "5 s"),
        ("priority", 1 << 31),
        ("priority", 1.5),
        ("env", [["A", "B"]]),
        ("env", {"": "x"}),
        ("env", {"A=B": "x"}),
        ("env", {"A\0": "x"}),
        ("env", {"A": "x\0y"}),
        ("env", {"A": 5}),
        ("labels", [5]),
        ("outputs", [5]),
    ],
)
def test_malformed_field(name, value):
    with pytest.raises(ValueError, match=f"'{name}' of a template is malformed"):
        read_template_map(msgpack.packb({**FULL, name: value}))


@pytest.mark.parametrize("packed", [b"", b"\x05", b"\x90", b"\x80", b"\x81\xa9task_type\xa0", b"\xc1"])
def test_no_template(packed):
    with pytest.raises(ValueError, match=r"."):
        read_template_map(packed)


def test_deep_nesting():
    """What could be unpacked but never be packed again is refused where it comes in."""
    packed = msgpack.packb({**FULL, "user": {"k": deep(1000)}})
    assert read_template_map(packed)
    packed = packed.replace(msgpack.packb(deep(1000)), b"\x91" * 1020 + b"\xc0")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_template_map(packed)


@pytest.mark.parametrize("read", [read_spec_map, read_info_map])
def test_maps(read):
    assert read(b"\x80") == {}
    assert read(msgpack.packb({"label": "x"})) == {"label": "x"}
    for packed in (b"", b"\x90", b"\xc0", b"\xc1", b"\x81\xa1k" * 1023 + b"\xc0"):
        with pytest.raises(ValueError, match=r"."):
            read(packed)
