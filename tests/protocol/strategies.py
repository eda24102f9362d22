"""Hypothesis strategies for messages: valid values of every annotation, columns of matching lengths."""

from __future__ import annotations

import dataclasses
import re
from array import array
from typing import Any

from hypothesis import strategies as st

from rain.protocol import messages as m
from rain.protocol.codec import MESSAGE_CLASSES
from rain.protocol.stock import SCHEMA_PATH

_STRUCTS = re.findall(r"^struct (\w+) {\n(.*?)^}", SCHEMA_PATH.read_text("utf-8"), re.MULTILINE | re.DOTALL)
INT_BITS = {
    (struct, name): int(bits)
    for struct, body in _STRUCTS
    for name, bits in re.findall(r"^ *(\w+) @\d+ *:UInt(\d+)", body, re.MULTILINE)
}
"""By class and field in the schema's spelling: the width of integers."""


def camel_case(name: str) -> str:
    """The schema's spelling of a field or class name: `object_id` is `objectId`, `NewSession` is `newSession`."""
    head, *rest = name.split("_")
    return head[0].lower() + head[1:] + "".join(word.capitalize() for word in rest)


def column(typecode: str, size: int) -> st.SearchStrategy[array]:
    elements: st.SearchStrategy[Any]
    if typecode == "d":
        elements = st.floats(allow_nan=False)
    else:
        elements = st.integers(0, 2**32 - 1 if typecode == "I" else 2**64 - 1)
    return st.lists(elements, min_size=size, max_size=size).map(lambda values: array(typecode, values))


def blobs(size: int) -> st.SearchStrategy[list[bytes | None]]:
    return st.lists(st.none() | st.binary(max_size=40), min_size=size, max_size=size)


def value(annotation: str, size: int, bits: int = 64) -> st.SearchStrategy[Any]:
    """Values of one annotation; columns and lists have `size` elements, integers at most `bits` bits."""
    if annotation == "int":
        return st.integers(0, 2**bits - 1)
    plain: dict[str, st.SearchStrategy[Any]] = {
        "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "bool": st.booleans(),
        "float": st.floats(allow_nan=False),
        "bytes": st.binary(min_size=size, max_size=size),
        "U32": column("I", size),
        "Ids": column("I", size) | st.integers(0, 2**32 - 1 - size).map(lambda first: range(first, first + size)),
        "U64": column("Q", size),
        "F64": column("d", size),
        "Blobs": blobs(size),
        "Map": st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers() | st.none()).map(
            lambda entries: {key: number for key, number in entries.items() if number is None or abs(number) < 2**63}
        ),
        "list[bytes]": st.lists(st.binary(max_size=20), min_size=size, max_size=size),
        "list[str]": st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=size, max_size=size),
        "list[list[str]]": st.lists(st.lists(st.just("10.0.0.1:7000"), max_size=3), min_size=size, max_size=size),
    }
    return plain[annotation]


@st.composite
def messages(draw: st.DrawFn, cls: type[Any]) -> Any:
    """A valid message of this class."""
    size = draw(st.integers(0, 4))
    fields = {}
    for field in dataclasses.fields(cls):
        bits = INT_BITS.get((cls.__name__, camel_case(field.name)), 64)
        fields[field.name] = draw(value(str(field.type), size, bits))
    for counts, names in (("input_counts", ("inputs",)), ("output_counts", ("outputs", "output_flags"))):
        if counts in fields:
            fields[counts] = array("I", draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
            total = sum(fields[counts])
            for name in names:
                if name in fields:
                    kind = "bytes" if name == "output_flags" else "U32"
                    fields[name] = draw(value(kind, total))
    if cls is m.SubmitChunk:
        inline = sum(1 for flags in fields["object_flags"] if flags & (m.INLINE | m.SAME))
        fields["values"] = draw(st.lists(st.binary(max_size=40), min_size=inline, max_size=inline))
    if cls is m.AssignTasks:
        fields["members"] = draw(value("U32", draw(st.sampled_from([0, size]))))
        fields["output_specs"] = draw(value("Blobs", draw(st.sampled_from([0, len(fields["outputs"])]))))
        fields["links"] = draw(value("Blobs", draw(st.sampled_from([0, size]))))
    if cls is m.ValuesFetched:
        fields["column"] = draw(st.sampled_from(["", "q", "d"]))
        lengths = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
        fields["sizes"] = array("I", [] if fields["column"] else lengths)
        fields["values"] = draw(value("bytes", 8 * size if fields["column"] else sum(fields["sizes"])))
        fields["infos"] = draw(st.sampled_from([[], [None], [b"info"], [None, b"info"]]))
        if len(fields["infos"]) < 2:
            fields["kinds"] = b""
        else:
            fields["kinds"] = bytes(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    if cls is m.SubmitBlock:
        fields["column"] = draw(st.sampled_from(["", "q", "d"]))
        lengths = st.integers(0, 9) if not fields["column"] else st.just(8)
        fields["arg_sizes"] = array("I", draw(st.lists(lengths, max_size=4)))
        fields["args"] = draw(value("bytes", sum(fields["arg_sizes"])))
        fields["start"] = draw(st.integers(0, 2**32 - 5))
        fields["members"] = draw(st.integers(fields["start"] + len(fields["arg_sizes"]), 2**32 - 1))
        fields["keeps"] = draw(value("bytes", draw(st.sampled_from([0, len(fields["arg_sizes"])]))))
    return cls(**fields)


any_message = st.sampled_from(MESSAGE_CLASSES).flatmap(messages)


def normal(message: Any) -> Any:
    """What arrives when `message` is sent: lists that are all None are empty."""
    changed = {}
    for field in dataclasses.fields(message):
        blob_list = getattr(message, field.name)
        if field.type == "Blobs" and all(blob is None for blob in blob_list):
            changed[field.name] = []
    return dataclasses.replace(message, **changed)
