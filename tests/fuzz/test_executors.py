"""Fuzzers of what executors say: registration, results of Python executors and of the two public encodings."""

from __future__ import annotations

import contextlib
import math
from array import array
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
import msgpack
import pytest

from rain.common.comm import FrameError
from rain.common.failure import Failure
from rain.worker.core.actions import Run, RunInput
from rain.worker.core.events import ObjectKey
from rain.worker.executor_frames import (
    SKIPPED_ROW,
    CallError,
    PythonCodec,
    check_registration,
    check_row,
    read_registration,
)
from rain.worker.foreign_codec import ForeignCodec
from rain.worker.foreign_encoding import CBOR, MESSAGE_PACK, Encoding
from rain.worker.task_logs import TaskLogs
from tests.fuzz.fuzzing import check_growth, cpu_limit, fuzz

GROWTH = (1 << 20, 400)
MAX_TEXT = 4000

RUN = Run((1, 7, 1), 0, {"task_type": "x/y", "outputs": [{}, {}]}, None, (), (8, 9))


class NoValues:
    def get(self, key: ObjectKey) -> bytes | Path | None:
        return None

    def size(self, key: ObjectKey) -> int:
        raise KeyError(key)


def missing(key: ObjectKey) -> None:
    raise AssertionError(f"no input is asked for, but {key} was")


def refusal(error: FrameError) -> None:
    """It is shown to users: neither endless nor more than a text."""
    assert len(str(error)) < MAX_TEXT


# --- registration -----------------------------------------------------------------------------------

REGISTER = ["register", {"protocol": "msgpack-1", "executor_type": "x", "executor_id": 1}]
REGISTRATIONS = [msgpack.packb(REGISTER), cbor2.dumps(REGISTER), b"\xdd\x00\x00\x00\x02\xa8register\x80", b"\x9f"]


def register(payload: bytes) -> None:
    try:
        registration = read_registration(payload)
        f"registered with the id {registration.executor_id!r:.100}"
        check_registration(registration, "x")
    except FrameError as error:
        refusal(error)


def test_registration(inputs: int) -> None:
    fuzz("registration", register, REGISTRATIONS, inputs, growth=GROWTH)


# --- Python executors -------------------------------------------------------------------------------

PYTHON_ROWS = [
    [7, 1, 1.0, 0.5, None, [[b"value", None, 5], ["/path", b"\x80", None]]],
    [7, 1, 1.0, 0.5, {"kind": "task", "message": "failed"}],
]
PYTHON_RESULTS = [msgpack.packb(["results", rows, []]) for rows in ([], PYTHON_ROWS[:1], PYTHON_ROWS)]
PYTHON_RESULTS.append(msgpack.packb(["results", [], [[1, 2], [1, 3]]]))
WRITTEN = [[7, 1, 0, 10, 5, 300], [9, 1, 10, 11, 300, 300]]
PYTHON_RESULTS.append(msgpack.packb(["results", PYTHON_ROWS[:1], [], WRITTEN]))
DUE = [Run((1, 7, 1), 0, {}, None, (), ()), Run((1, 8, 1), 0, {}, None, (), (), members=5)]


def python_results(payload: bytes, task_logs: TaskLogs | None = None) -> None:
    codec = PythonCodec(NoValues(), missing)
    try:
        results = codec.results(payload)
    except FrameError as error:
        refusal(error)
        return
    for session, number in results.cached:
        assert type(session) is type(number) is int
    for row in results.rows:
        take_row(row)
    if results.written and task_logs is not None:
        with contextlib.suppress(FrameError):
            task_logs.executor_wrote(1, DUE, results.written)


def take_row(row: Any) -> None:
    """What the pool does with a row: then the core reports it to the server."""
    try:
        check_row(row)
    except FrameError as error:
        refusal(error)
        return
    if len(row) == SKIPPED_ROW:
        return
    array("d", row[2:4])
    if len(row) > 5:
        array("Q", [size for _, _, size in row[5] if size is not None])
        assert all(isinstance(info, bytes | None) for info in (row[4], *[info for _, info, _ in row[5]]))
        return
    with contextlib.suppress(ValueError):
        Failure.from_map(row[4]).to_map()["message"].encode()


def test_python_results(inputs: int, tmp_path: Path) -> None:
    target = partial(python_results, task_logs=TaskLogs(tmp_path))
    fuzz("python-results", target, PYTHON_RESULTS, inputs, growth=GROWTH)


# --- public protocol --------------------------------------------------------------------------------

INFO = {"content_type": "text", "user": {"k": [1, "x", None]}, "debug": "text"}
RESULT: dict[str, Any] = {
    "task": [1, 7],
    "success": True,
    "info": {"user": {"a": 1.5}, "debug": "d"},
    "outputs": [
        {"info": INFO, "location": ["memory", b"value"], "cache_hint": True},
        {"info": {}, "location": ["path", "/a/b"], "cache_hint": False},
    ],
    "cached_objects": [[1, 8]],
}
FAILED = {"task": [1, 7], "success": False, "info": {"error": "why"}, "outputs": [], "cached_objects": []}
SHARED = {**RESULT, "outputs": [{"location": ["other_object", [1, 2]]}, {"location": ["other_object", [1, 3]]}]}

CBOR_TAGS = [
    bytes([0xC0 + tag]) + item
    for tag in range(6)
    for item in (
        b"\x00",
        b"\x41\x00",
        b"\x60",
        b"\x82\x01\x02",
        b"\x82\x1b\x00\x00\x00\x7f\xff\xff\xff\xff\x01",
        b"\xf6",
    )
]
CBOR_TAGS += [
    b"\xd8" + bytes([tag]) + item
    for tag in (25, 28, 29, 30, 31, 32, 35, 36, 37, 43000 & 0xFF, 100)
    for item in (
        b"\x00",
        b"\x82\x01\x00",
        b"\x61(",
        b"\x81\xd8\x1d\x00",
        b"\xa0",
        b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    )
]
CBOR_TAGS += [
    b"\xd9\x01\x02\x81\x80",
    b"\xd9\x01\x04\x44\x00\x00\x00\x00",
    b"\xd9\x01\x05\xa1\x41\x00\x18\x20",
    b"\xd9\xd9\xf7\x00",
]


def with_cbor(item: bytes) -> bytes:
    """A result whose user data holds an encoded item."""
    packed: bytes = cbor2.dumps(["result", {**RESULT, "info": {"user": {"k": b"marker"}}}])
    assert packed.count(cbor2.dumps(b"marker")) == 1
    return packed.replace(cbor2.dumps(b"marker"), item)


def corpus_of(encoding: Encoding) -> list[bytes]:
    """Good results and typical bad ones."""
    corpus = [encoding.pack(["result", data]) for data in (RESULT, FAILED, SHARED, {}, [])]
    return corpus + [with_cbor(item) for item in CBOR_TAGS] if encoding is CBOR else corpus


def foreign_results(encoding: Encoding, payload: bytes) -> None:
    """The result is refused, or what it says can be sent on."""
    codec = ForeignCodec(encoding, NoValues(), missing)
    codec.calls([RUN])
    try:
        results = codec.results(payload)
    except FrameError as error:
        refusal(error)
        return
    check_row(results.rows[0])
    ((number, attempt, _, _, *rest),) = results.rows
    assert (number, attempt) == (7, 1)
    msgpack.packb(rest)
    if len(rest) == 2:
        info, outputs = rest
        assert info is None or isinstance(msgpack.unpackb(info), dict)
        for value, packed, size in outputs:
            assert isinstance(value, bytes | str | int)
            assert packed is None or isinstance(msgpack.unpackb(packed), dict)
            assert size is None


@pytest.mark.parametrize("encoding", [MESSAGE_PACK, CBOR], ids=["msgpack-1", "cbor-1"])
def test_foreign_results(inputs: int, encoding: Encoding) -> None:
    fuzz(encoding.protocol, lambda data: foreign_results(encoding, data), corpus_of(encoding), inputs, growth=GROWTH)


def nested(item: bytes, times: int) -> bytes:
    """An item within itself; the innermost is missing."""
    return item * times


@pytest.mark.parametrize("times", [100, 1023, 50_000])
@pytest.mark.parametrize(
    "item",
    [
        b"\x91",
        b"\x81\xa1k",
        b"\xdd\x00\x0f\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x00\x0f\xff\xff",
        b"\xc6\x00\x0f\xff\xff",
    ],
    ids=["list", "map", "lying list", "huge list", "lying map", "lying bytes"],
)
def test_nested_message_pack(item: bytes, times: int) -> None:
    payload = b"\x92\xa6result" + item * times + b"\xc0" * 100
    with cpu_limit():
        for target in (register, python_results, lambda data: foreign_results(MESSAGE_PACK, data)):
            check_growth(target, payload, (1 << 20, 250))


@pytest.mark.parametrize("times", [100, 1000, 50_000])
@pytest.mark.parametrize(
    "item",
    [
        b"\x81",
        b"\xa1\x61k",
        b"\x9a\x00\x0f\xff\xff",
        b"\x9b" + b"\x7f" + b"\xff" * 7,
        b"\x9f",
        b"\xbf\x00",
        b"\xc1",
        b"\xd8\x1c",
    ],
    ids=["list", "map", "lying list", "huge list", "endless list", "endless map", "tag", "shared"],
)
def test_nested_cbor(item: bytes, times: int) -> None:
    payload = b"\x82\x66result" + item * times
    with cpu_limit():
        for target in (register, lambda data: foreign_results(CBOR, data)):
            check_growth(target, payload, (4 << 20, 500))


@pytest.mark.parametrize("exponent", [10, 10**6, 10**9, 10**18])
def test_cbor_numbers_that_grow(exponent: int) -> None:
    """A few bytes of a decimal or binary fraction do not become gigabytes of digits."""
    for tag in (4, 5):
        for sign in (1, -1):
            item = cbor2.dumps(cbor2.CBORTag(tag, [sign * exponent, 3]))
            with cpu_limit():
                check_growth(lambda data: foreign_results(CBOR, data), with_cbor(item), (1 << 20, 400))


def test_numbers_that_are_not_finite() -> None:
    for number in (math.nan, math.inf, -math.inf):
        for encoding in (MESSAGE_PACK, CBOR):
            result = {**RESULT, "info": {"user": {"k": number}}}
            foreign_results(encoding, encoding.pack(["result", result]))


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [MESSAGE_PACK, CBOR], ids=["msgpack-1", "cbor-1"])
@pytest.mark.parametrize("field", ["args", "spec", "info"])
def test_calls_of_what_clients_packed(inputs: int, encoding: Encoding, field: str) -> None:
    """A task with packed arguments, specs or infos of any kind: it is called, or it fails alone."""

    def call(data: bytes) -> None:
        item = RunInput((1, 2), data if field == "spec" else None, data if field == "info" else None, True)
        args = data if field == "args" else None
        run = Run((1, 7, 1), 0, {"task_type": "x/y", "labels": ["a", "b"]}, args, (item,), (8,))
        with contextlib.suppress(CallError):
            ForeignCodec(encoding, NoValues(), missing).calls([run])

    corpus = [msgpack.packb(value) for value in ({"label": "x"}, {"content_type": 5}, [1, {"a": None}], 5)]
    fuzz("calls", call, [*corpus, b"\x91" * 600 + b"\xc0"], inputs // 6, growth=GROWTH)
