"""What is said between worker and executors: registration, and calls and results of Python executors.

The protocol is described in docs/design/executor-protocol.md. A codec object belongs to one connection and is chosen
when the executor registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

import msgpack

from rain.common.comm import FrameError, pack_frame
from rain.common.structs import dataclass
from rain.common.unpacking import unpack_bounded
from rain.worker.core.events import ObjectKey
from rain.worker.foreign_encoding import MESSAGE_PACK, Encoding, encoding_of, read_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rain.worker.core.actions import Run, RunInput

PYTHON_PROTOCOL = "rain-py-1"
"""The private batched protocol of Python executors."""

_FRAME_TARGET = 8 << 20
_KNOWN_SESSIONS = 16
_ROW_OVERHEAD = 64
SKIPPED_ROW = 2
_SHORTEST_ROW = 5
_NUMBERS = (float, int)
_LONGEST = 1e12
"""Seconds."""
_LARGEST_SIZE = 1 << 62
_LARGEST_INFO = 16 << 20
"""Bytes: what a task adds to its result, debug text and user data, travels in one message to the server."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What an executor says first.

    Attributes:
        protocol, type, executor_id: as it says.
        encoding: in which it says so.
    """

    protocol: str
    type: str
    executor_id: Any
    encoding: Encoding


class CallError(Exception):
    """A run cannot be sent to an executor; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Results:
    """One frame of results.

    Attributes:
        rows: `[task, run, start, duration, task info, outputs]` or `[task, run, start, duration, failure map]`, or
            `[task, run]` of a call that was skipped; an
            output is `[bytes, path or id of an equal input, object info, size]`, its size None if it is not told.
            Of a block `[task, run, start, duration, task info, outputs, packed result, members that ran]`.
        cached: objects which the executor now holds decoded.
        written: what these runs, and others behind them, wrote: `[task, run, from where to where it wrote to stdout,
            the same for stderr]` in bytes of its logs. Only where there is something.
    """

    rows: list[list[Any]]
    cached: list[ObjectKey]
    written: list[list[int]]


class Codec(Protocol):
    """How one connection encodes and decodes.

    Attributes:
        one_at_a_time: the executor gets a call when the one before is done; `calls` gets lists of one run then.
    """

    one_at_a_time: bool

    def welcome(self, values: str | None, inline_limit: int) -> list[bytes]:
        """Frames that answer the registration."""

    def calls(self, runs: list[Run]) -> list[bytes]:
        """Frames that carry a batch, or one block.

        Raises:
            CallError: the run cannot be sent (only where the calls are sent one at a time).
        """

    def drop_cached(self, objects: Iterable[ObjectKey]) -> list[bytes]:
        """Frames that make the executor forget objects."""

    def end_session(self, session: int) -> list[bytes]:
        """Frames that make the executor forget a session."""

    def results(self, payload: bytes) -> Results:
        """Read a frame.

        Raises:
            FrameError: it is malformed; the text names the defect.
        """


class ValueSource(Protocol):
    """Where values of inputs come from."""

    def get(self, key: ObjectKey) -> bytes | Path | None:
        """The value, or the path of its file or tree, None if it is not here."""

    def size(self, key: ObjectKey) -> int:
        """Bytes of the value, KeyError if it is not here."""


def read_registration(payload: bytes) -> Registration:
    """Read the first frame of an executor.

    Raises:
        FrameError: it is no registration, or in CBOR while the library for that is not installed.
    """
    encoding = encoding_of(payload)
    name, data = read_message(encoding, payload)
    if name != "register" or not isinstance(data, dict):
        raise FrameError("the first message is not 'register'")
    return Registration(str(data.get("protocol")), str(data.get("executor_type")), data.get("executor_id"), encoding)


def check_registration(registration: Registration, type: str) -> None:
    """Check what an executor of a type says first.

    Raises:
        FrameError: the protocol is unknown or does not belong to the encoding, or the type is another.
    """
    encoding = registration.encoding
    protocols = [encoding.protocol] if encoding is not MESSAGE_PACK else [encoding.protocol, PYTHON_PROTOCOL]
    if registration.protocol not in protocols or registration.type != type:
        raise FrameError(
            f"it registered by {encoding.name} with protocol {registration.protocol!r} and type "
            f"{registration.type!r}, expected were protocol {' or '.join(map(repr, protocols))} and type {type!r}"
        )


class PythonCodec:
    """The protocol `rain-py-1`.

    Args:
        store: gives values of inputs.
        missing: told of an input that is not in the store.
    """

    one_at_a_time = False

    def __init__(self, store: ValueSource, missing: Callable[[ObjectKey], None]) -> None:
        self._store = store
        self._missing = missing
        self._templates: dict[int, set[int]] = {}  # numbers sent, by session, the longest unused session first

    def welcome(self, values: str | None, inline_limit: int) -> list[bytes]:
        """Tell where large results go and what is large."""
        return [_frame(["welcome", {"values": values, "inline_limit": inline_limit}])]

    def drop_cached(self, objects: Iterable[ObjectKey]) -> list[bytes]:
        """Tell it to forget functions."""
        return [_frame(["drop_cached", list(objects)])]

    def end_session(self, session: int) -> list[bytes]:
        """Tell it to forget templates and functions, if it knows any."""
        return [_frame(["end_session", session])] if self._templates.pop(session, None) is not None else []

    def calls(self, runs: list[Run]) -> list[bytes]:
        """Compose a batch: one frame, more where sessions or large values demand it."""
        frames: list[bytes] = []
        if runs[0].members:
            (block,) = runs
            self._block(block, frames)
            return frames
        start = 0
        for index in range(1, len(runs)):
            if runs[index].key[0] != runs[start].key[0]:
                self._session_calls(runs[start:index], frames)
                start = index
        self._session_calls(runs[start:], frames)
        return frames

    def _session_calls(self, runs: list[Run], frames: list[bytes]) -> None:
        session = runs[0].key[0]
        known = self._known_templates(session, frames)
        templates: list[tuple[int, dict[str, Any]]] = []
        objects: dict[int, tuple[Any, ...]] = {}
        calls: list[tuple[Any, ...]] = []
        size = 0
        last: tuple[RunInput, ...] | None = None
        ids: list[int] = []
        for run in runs:
            if size > _FRAME_TARGET:
                frames.append(_frame(["calls", session, templates, list(objects.values()), calls]))
                templates, objects, calls, size, last = [], {}, [], 0, None
            if run.template not in known:
                known.add(run.template)
                templates.append((run.template, run.template_data))
            if run.inputs is not last:
                last = run.inputs
                ids = [item.object[1] for item in last]
                for item in last:
                    if item.cached or item.object[1] in objects:
                        continue
                    if item.live:
                        objects[item.object[1]] = (item.object[1], item.spec, None, None)
                    else:
                        size += self._add_object(item, objects)
            args = run.args
            size += _ROW_OVERHEAD + (len(args) if args else 0)
            calls.append((run.key[1], run.key[2], run.template, args, ids, run.outputs, run.output_specs or None))
        frames.append(_frame(["calls", session, templates, list(objects.values()), calls]))

    def _block(self, run: Run, frames: list[bytes]) -> None:
        session, task, attempt = run.key
        known = self._known_templates(session, frames)
        link = run.link
        used = [(run.template, run.template_data)] if link is None else link.templates
        templates = [(number, data) for number, data in used if number not in known]
        known.update([number for number, _ in used])
        objects: dict[int, tuple[Any, ...]] = {}
        for item in run.inputs:
            if not item.cached and item.object[1] not in objects:
                self._add_object(item, objects)
        ids = [item.object[1] for item in run.inputs]
        packed = None if link is None else link.packed
        block = (task, attempt, run.template, run.args, ids, run.outputs[0], run.members, packed)
        frames.append(_frame(["block", session, templates, list(objects.values()), block]))

    def _known_templates(self, session: int, frames: list[bytes]) -> set[int]:
        known = self._templates.pop(session, None)
        if known is None:
            known = set()
            while len(self._templates) >= _KNOWN_SESSIONS:
                frames += self.end_session(next(iter(self._templates)))
        self._templates[session] = known
        return known

    def _add_object(self, item: RunInput, objects: dict[int, tuple[Any, ...]]) -> int:
        """Add an input with its value; returns the bytes it takes."""
        value = self._store.get(item.object)
        if value is None:
            self._missing(item.object)
            return 0
        number = item.object[1]
        if isinstance(value, bytes):
            objects[number] = (number, item.spec, item.info, value)
            return len(value)
        objects[number] = (number, item.spec, item.info, str(value))
        return _ROW_OVERHEAD

    def results(self, payload: bytes) -> Results:
        """Read a frame of results."""
        message = _unpack(payload)
        if message[0] != "results":
            raise FrameError(f"unknown message {message[0]!r}")
        if len(message) not in (3, 4) or not all(isinstance(part, list) for part in message[1:]):
            raise FrameError("the message 'results' does not have its lists")
        if not all(map(is_id, message[2])):
            raise FrameError("a cached object is not a pair of numbers")
        cached = [(session, number) for session, number in message[2]]
        if len(message) == 3:
            return Results(message[1], cached, [])
        if not all(map(_is_written, message[3])):
            raise FrameError("what a run wrote is not told by six sound numbers")
        return Results(message[1], cached, message[3])


def check_row(row: Any) -> None:
    """Check the form of a row of `Results`, as far as what follows relies on it.

    Raises:
        FrameError: it has another form.
    """
    if type(row) is not list or len(row) < _SHORTEST_ROW:
        if type(row) is list and len(row) == SKIPPED_ROW:
            return
        raise FrameError("a result is not a list of two, five or more")
    start, duration, info = row[2], row[3], row[4]
    if not (type(start) in _NUMBERS and type(duration) in _NUMBERS and 0.0 <= duration < _LONGEST):
        raise FrameError("a result has no start or no duration")
    if len(row) == _SHORTEST_ROW:
        if not isinstance(info, dict) or len(str(info.get("message"))) > _LARGEST_INFO:
            raise FrameError("a failure is not a map with a message of bounded length")
        return
    if info is not None:
        _check_info(info)
    if type(row[5]) is not list:
        raise FrameError("the outputs of a result are not a list")
    for output in row[5]:
        if type(output) is not list or len(output) != 3:
            raise FrameError("an output is not a list of value, info and size")
        _, info, size = output
        if info is not None:
            _check_info(info)
        if size is not None and not (type(size) is int and 0 <= size < _LARGEST_SIZE):
            raise FrameError("the size of an output is no size")


def _check_info(info: Any) -> None:
    if type(info) is not bytes or len(info) > _LARGEST_INFO:
        raise FrameError(f"an info is not packed, or larger than {_LARGEST_INFO} bytes")


def is_id(value: Any) -> TypeGuard[Sequence[int]]:
    """Tell whether this is an id `[session, number]`."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(part) is int for part in value)


def _is_written(row: Any) -> bool:
    if type(row) is not list or len(row) != 6 or not all(type(number) is int for number in row):
        return False
    _, _, out_start, out_end, err_start, err_end = cast("list[int]", row)
    return 0 <= out_start <= out_end < _LARGEST_SIZE and 0 <= err_start <= err_end < _LARGEST_SIZE


def _unpack(payload: bytes) -> list[Any]:
    try:
        message = unpack_bounded(payload, strict_map_key=False)
    except ValueError as error:
        raise FrameError(f"not MessagePack: {error}") from None
    if not isinstance(message, list) or not message:
        raise FrameError("not a list that begins with the name of a message")
    return message


def _frame(message: list[Any]) -> bytes:
    return pack_frame(cast("bytes", msgpack.packb(message)))
