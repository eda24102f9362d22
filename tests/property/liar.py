"""Messages that are valid by themselves and hold anything: what a lying worker or a confused client may say.

Fields are filled by their annotation and name, so that new messages need no change here.
"""

from __future__ import annotations

import dataclasses
import math
import random
from array import array
from typing import Any

import msgpack

from rain.common.failure import Failure
from rain.protocol.codec import decode, encode
from rain.protocol.limits import ProtocolError

_HUGE = [2**31 - 1, 2**31, 2**32 - 1]
_TEXTS = [
    "",
    "fail",
    "continue",
    "0.0.0.0:9000",
    "10.0.0.3:9000",
    "garbage",
    "x" * 2000,
    "a\0b",
    "3.11.4",
    "\N{SNOWMAN}",
]
_ADDRESSES = ["10.0.0.2:9000", "10.0.0.4:9000", "10.0.0.99:7210", "nowhere", "", ":"]
_FLOATS = [0.0, 1.0, 0.25, -1.0, 1e308, -1e308, math.nan, math.inf, -math.inf]
_DEEP: Any = None
for _ in range(400):
    _DEEP = [_DEEP]

_MAPS: list[dict[str, Any]] = [
    {},
    {"cpus": 1},
    {"cpus": 2, "gpus": [0, 1], "memory": 1 << 30, "custom": 1.5},
    {"cpus": 1, "gpus": _DEEP},
    {"cpus": 1, "gpus": [None, "x"]},
    {"cpus": -1},
    {"cpus": 1 << 63},
    {"cpus": 1, "memory": "1 GB"},
    {"cpus": 1, "memory": math.inf},
    {"cpus": 1, "custom": math.nan},
    {"cpus": None},
    {"cpus": [1]},
    {"tasks": [[1, 2]], "objects": [], "objects_to_delete": []},
    {"tasks": _DEEP, "objects": None, "worker_id": "stolen", "free_cpus": "many"},
    {"k": msgpack.ExtType(5, b"x")},
    Failure("task", "failed").to_map(),
    Failure("task", "failed", retriable=False).to_map(),
    {**Failure("task", "failed").to_map(), "message": 5},
    {**Failure("task", "failed").to_map(), "message": _DEEP},
    {**Failure("task", "failed").to_map(), "exception": "text", "debug": None},
    {**Failure("task", "failed").to_map(), "kind": "nonsense"},
    {**Failure("task", "failed").to_map(), "session": "x", "attempts": None},
    {"kind": "task"},
    {"message": "no kind"},
    {**Failure("task", "failed").to_map(), "further": 1},
]

_TEMPLATE: dict[str, Any] = {"task_type": "py/f", "outputs": [{}]}
_TEMPLATES: list[Any] = [
    _TEMPLATE,
    _TEMPLATE,
    _TEMPLATE,
    {"task_type": "buildin/concat", "outputs": [{"label": "x", "data_type": "dir"}]},
    {**_TEMPLATE, "retries": 2, "priority": 5, "timeout": 1.0, "name": "n", "user": {"a": 1}, "env": {"A": "1"}},
    {**_TEMPLATE, "resources": {"cpus": 0}},
    {**_TEMPLATE, "resources": {"cpus": 2, "gpus": 1}},
    {**_TEMPLATE, "resources": {"cpus": 1 << 40}},
    {**_TEMPLATE, "resources": {"memory": "1 GiB"}},
    {**_TEMPLATE, "resources": {"memory": "9" * 400}},
    {**_TEMPLATE, "resources": {"custom": math.inf}},
    {**_TEMPLATE, "resources": {5: 5}},
    {**_TEMPLATE, "resources": [1]},
    {**_TEMPLATE, "retries": "x"},
    {**_TEMPLATE, "retries": -1},
    {**_TEMPLATE, "priority": "high"},
    {**_TEMPLATE, "priority": 1 << 40},
    {**_TEMPLATE, "priority": 1.5},
    {**_TEMPLATE, "timeout": math.nan},
    {**_TEMPLATE, "timeout": -5},
    {**_TEMPLATE, "timeout": "soon"},
    {**_TEMPLATE, "name": ["x"]},
    {**_TEMPLATE, "env": {"A": 5}},
    {**_TEMPLATE, "env": {"A=B": "x"}},
    {**_TEMPLATE, "env": {"A": "x\0y"}},
    {**_TEMPLATE, "env": [["A", "B"]]},
    {**_TEMPLATE, "labels": 5},
    {**_TEMPLATE, "outputs": 5},
    {**_TEMPLATE, "outputs": [5]},
    {**_TEMPLATE, "outputs": [[[]]]},
    {**_TEMPLATE, "user": _DEEP},
    {**_TEMPLATE, "user": {"a": _DEEP}},
    {"task_type": 5},
    {"task_type": ""},
    {},
    [],
    5,
]
_SPECS: list[Any] = [
    {},
    {"label": "x"},
    {"data_type": "dir"},
    {"user": {"_testing": {"size": "x"}}},
    {"user": 5},
    [],
    5,
    None,
]
_INFOS: list[Any] = [{}, {"content_type": "text"}, {"user": {"a": _DEEP}}, {"debug": 5}, [], 5, "x"]

_PACKED: dict[str, list[bytes]] = {
    name: [msgpack.packb(value) for value in values] + [b"", b"\xc1", b"\x91", b"\xdd\xff\xff\xff\xff"]
    for name, values in (("templates", _TEMPLATES), ("specs", _SPECS), ("infos", _INFOS))
}
_VALUES = [b"", b"x", b"value" * 20, b"\x92\x90\x80", b"\x05\x00\x00\x00", b"\xc1"]


class Liar:
    """Makes messages.

    Args:
        source: of randomness.

    Attributes:
        sessions: numbers it likes to name. runs: (session, task, run) it likes to tell of.
    """

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.sessions: list[int] = [1]
        self.runs: list[tuple[int, int, int]] = []
        self._seq = 1000

    def say(self, cls: type[Any]) -> Any | None:
        """A message of this class as it arrives, or None if the receiver's codec would refuse it."""
        fields = self._fields(cls)
        if self.runs and {"session", "tasks", "runs"} <= fields.keys() and self.source.random() < 0.6:
            self._tell_of_runs(fields)
        try:
            return decode(encode([cls(**fields)]))
        except ProtocolError:
            return None

    def _fields(self, cls: type[Any]) -> dict[str, Any]:
        size = self.source.choice((0, 1, 1, 1, 2, 3))
        names = {field.name for field in dataclasses.fields(cls)}
        fields: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for counts in ("input_counts", "output_counts"):
            if counts in names:
                fields[counts] = array("I", [self.source.choice((0, 1, 1, 2)) for _ in range(size)])
                total = sum(fields[counts])
                lengths.update({"inputs": total} if counts == "input_counts" else dict.fromkeys(_OF_OUTPUTS, total))
        objects = self.source.choice((0, 1, 2))
        lengths.update(dict.fromkeys(_OF_OBJECTS, objects))
        if "object_flags" in names:
            fields["object_flags"] = bytes(self.source.choice((0, 1, 2, 3, 4, 8, 16, 255)) for _ in range(objects))
            lengths["values"] = sum(bool(flags & 10) for flags in fields["object_flags"])
        elif "objects" not in names:  # values, specs ... of something else
            lengths = {name: size for name in lengths} if "output_counts" not in names else lengths
        for field in dataclasses.fields(cls):
            if field.name not in fields:
                fields[field.name] = self._value(str(field.type), field.name, lengths.get(field.name, size))
        return fields

    def _tell_of_runs(self, fields: dict[str, Any]) -> None:
        count = len(fields["tasks"])
        chosen = [self.source.choice(self.runs) for _ in range(count)]
        if chosen:
            fields["session"] = chosen[0][0]
            fields["tasks"] = array("I", [task for _, task, _ in chosen])
            fields["runs"] = array("I", [run for _, _, run in chosen])

    def _value(self, annotation: str, name: str, size: int) -> Any:
        source = self.source
        if annotation == "int":
            return self._number(name)
        if annotation in ("Ids", "U32", "U64"):
            return array("Q" if annotation == "U64" else "I", [self._id() for _ in range(size)])
        if annotation == "Ids" and self.source.random() < 0.5:
            first = self._id()
            return range(first, min(first + size, 1 << 32))
        if annotation == "F64":
            return array("d", [source.choice(_FLOATS) for _ in range(size)])
        if annotation == "Blobs":
            return [None if source.random() < 0.3 else self._blob(name) for _ in range(size)]
        if annotation == "list[bytes]":
            return [self._blob(name) for _ in range(size)]
        if annotation == "list[list[str]]":
            return [self._addresses() for _ in range(size)]
        plain = {
            "float": lambda: source.choice(_FLOATS),
            "bool": lambda: source.random() < 0.5,
            "bytes": lambda: self._bytes(name, size),
            "str": lambda: source.choice(_TEXTS),
            "Map": lambda: source.choice(_MAPS),
            "list[str]": self._addresses,
        }
        return plain[annotation]()

    def _number(self, name: str) -> int:
        source = self.source
        if name == "session":
            return source.choice([*self.sessions, *self.sessions, *self.sessions, 0, 99])
        if name == "seq":
            self._seq += 1
            return source.choice((0, self._seq, self._seq, self._seq, 1))
        if name == "mode":
            return source.randrange(5)
        if name == "template":
            return source.choice((0, 0, 1, 7))
        return self._id()

    def _id(self) -> int:
        return self.source.choice(_HUGE) if self.source.random() < 0.02 else self.source.randrange(16)

    def _bytes(self, name: str, size: int) -> bytes:
        if name.endswith(("flags", "states")):
            return self.source.randbytes(size)
        return self.source.choice(_VALUES)

    def _blob(self, name: str) -> bytes:
        for kind, blobs in _PACKED.items():
            if kind in name:
                return self.source.choice(blobs)
        return self.source.choice(_VALUES)

    def _addresses(self) -> list[str]:
        return [self.source.choice(_ADDRESSES) for _ in range(self.source.randrange(3))]


_OF_OUTPUTS = ("outputs", "output_flags", "sizes", "output_infos", "values", "output_specs")
_OF_OBJECTS = ("objects", "object_specs", "specs", "infos", "values", "holders", "sizes")
