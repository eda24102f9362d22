"""The public executor protocol, `msgpack-1` and `cbor-1`: composing calls, reading results.

It is described for authors of executors in docs/executors.md.
"""

from __future__ import annotations

import os
import reprlib
import time
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common import fs
from rain.common.comm import FrameError, pack_frame
from rain.common.content_type import is_type_instance
from rain.common.failure import MAX_TEXT, Failure
from rain.worker.executor_frames import CallError, Results, is_id
from rain.worker.foreign_encoding import read_message
from rain.worker.foreign_specs import object_info, object_spec, output_fields, task_spec, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.worker.core.actions import Run, RunInput
    from rain.worker.core.events import ObjectKey
    from rain.worker.executor_frames import ValueSource
    from rain.worker.foreign_encoding import Encoding

_CUT = "\n... (cut at 1 MiB)"


class _Failed(Exception):
    """The task failed by what its result says; the text is for the user."""


class ForeignCodec:
    """One connection that speaks the public protocol; one call is outstanding at a time.

    Args:
        encoding: as the executor chose.
        store: gives values of inputs.
        missing: told of an input that is not in the store.
    """

    one_at_a_time = True

    def __init__(self, encoding: Encoding, store: ValueSource, missing: Callable[[ObjectKey], None]) -> None:
        self._encoding = encoding
        self._store = store
        self._missing = missing
        self._run: Run | None = None
        self._start = 0.0
        self._clock = 0.0
        self._cached: set[ObjectKey] = set()

    def welcome(self, values: str | None, inline_limit: int) -> list[bytes]:
        """The registration is not answered."""
        return []

    def drop_cached(self, objects: Iterable[ObjectKey]) -> list[bytes]:
        """Tell it to forget objects, if it reported them."""
        known = self._cached.intersection(objects)
        if not known:
            return []
        self._cached -= known
        return [self._frame(["drop_cached", {"objects": [list(key) for key in sorted(known)]}])]

    def end_session(self, session: int) -> list[bytes]:
        """Tell it to forget the objects of a session."""
        return self.drop_cached([key for key in self._cached if key[0] == session])

    def calls(self, runs: list[Run]) -> list[bytes]:
        """Compose the call of the one run."""
        (run,) = runs
        if run.members:  # where `py` is a program; the members come one by one then
            raise CallError(f"An executor that speaks {self._encoding.protocol} runs no blocks")
        try:
            frame = self._frame(["call", self._call(run)])
        except (FrameError, ValueError, TypeError, AttributeError) as error:  # of what clients and executors packed
            raise CallError(f"The executor cannot be called: {error}") from None
        self._run = run
        self._start, self._clock = time.time(), time.monotonic()
        return [frame]

    def _call(self, run: Run) -> dict[str, Any]:
        outputs = [
            {"spec": object_spec((run.key[0], number), output_fields(run, index)), "cache_hint": False}
            for index, number in enumerate(run.outputs)
        ]
        return {"spec": task_spec(run), "inputs": [self._input(item) for item in run.inputs], "outputs": outputs}

    def _input(self, item: RunInput) -> dict[str, Any]:
        spec = unpacked(item.spec)
        value = self._store.get(item.object)
        location: Any
        if item.cached:
            location = "cached"
        elif value is None:
            self._missing(item.object)
            raise CallError("An input was lost: the value is not in the store")
        else:
            location = ["memory", value] if isinstance(value, bytes) else ["path", str(value)]
        try:
            size = self._size(item.object, value, directory=spec.get("data_type") == "dir")
        except KeyError:
            size = 0  # held by the executor alone
        info = object_info(unpacked(item.info), size)
        return {"spec": object_spec(item.object, spec), "info": info, "location": location, "cache_hint": False}

    def _size(self, key: ObjectKey, value: object, *, directory: bool) -> int:
        return fs.packed_size(value) if directory and isinstance(value, bytes) else self._store.size(key)

    def _frame(self, message: list[Any]) -> bytes:
        return pack_frame(self._encoding.pack(message))

    # --- results --------------------------------------------------------------------------------

    def results(self, payload: bytes) -> Results:
        """Read a frame, which must be the result of the call."""
        name, data = read_message(self._encoding, payload)
        if name != "result":
            raise FrameError(f"unknown message {name[:100]!r}")
        if not isinstance(data, dict):
            raise FrameError("the data of 'result' is not a map")
        task = data.get("task")
        run = self._run
        if run is None:
            raise FrameError(f"a result of task {_short(task)}, but nothing was called")
        session, number, attempt = run.key
        if not is_id(task) or list(task) != [session, number]:
            raise FrameError(f"a result of task {_short(task)}; called was task {[session, number]}")
        row: list[Any] = [number, attempt, self._start, time.monotonic() - self._clock]
        info = _map(data, "info", "the result")
        user, debug = _user(info), _text(info, "debug")
        try:
            row += [_packed({"user": user, "debug": debug}), self._outputs(run, data, info)]
        except _Failed as failed:
            failure = Failure("task", str(failed), session=session, task=number, debug=debug, attempts=attempt)
            row.append(failure.to_map())
        cached = _list(data, "cached_objects")
        for key in cached:
            if not is_id(key):
                raise FrameError(f"a cached object is not an id [session, number], but {_short(key)}")
        keys = [(key[0], key[1]) for key in cached]
        self._cached.update(keys)
        self._run = None
        return Results([row], keys, [])

    def _outputs(self, run: Run, data: dict[Any, Any], info: dict[Any, Any]) -> list[list[Any]]:
        success = data.get("success")
        if not isinstance(success, bool):
            raise FrameError(f"'success' of a result is {_short(success)}, not true or false")
        error = _text(info, "error")
        if error:
            raise _Failed(error)
        if not success:
            raise FrameError("a result without success has no error text in its info")
        outputs = _list(data, "outputs")
        if len(outputs) != len(run.outputs):
            raise FrameError(f"{len(outputs)} outputs of task {run.key[1]}, which has {len(run.outputs)}")
        return [self._output(run, index, output) for index, output in enumerate(outputs)]

    def _output(self, run: Run, index: int, output: Any) -> list[Any]:
        what = f"output {index}"
        if not isinstance(output, dict):
            raise FrameError(f"{what} is not a map")
        info = _map(output, "info", what)
        error = _text(info, "error")
        if error:
            raise _Failed(error)
        content_type = _text(info, "content_type")
        asked = output_fields(run, index).get("content_type")
        if content_type and not is_type_instance(content_type, asked or None):
            raise _Failed(
                f"Output {index} has content type {asked!r}, but the executor returned a value of type {content_type!r}"
            )
        packed = _packed({"content_type": content_type, "user": _user(info), "debug": _text(info, "debug")})
        return [_value(run, output.get("location"), what), packed, None]


def _value(run: Run, location: Any, what: str) -> bytes | str | int:
    """What a location says: the bytes, a path, or the id of an input."""
    if not isinstance(location, list | tuple) or len(location) != 2:
        raise FrameError(f"the location of {what} is {_short(location)}, not [kind, value]")
    kind, value = location
    if kind == "memory" and isinstance(value, bytes):
        return value
    if kind == "path" and isinstance(value, str):
        if not os.path.isabs(value):
            raise FrameError(f"the path {value[:1000]!r} of {what} is not absolute")
        return value
    if kind == "other_object" and is_id(value):
        if value[0] != run.key[0]:
            raise FrameError(f"{what} is equal to object {list(value)}, which is no input of task {run.key[1]}")
        return int(value[1])
    raise FrameError(f"the location of {what} has kind {_short(kind)} with a value of type {type(value).__name__!r}")


def _map(data: dict[Any, Any], name: str, owner: str) -> dict[Any, Any]:
    found = data.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise FrameError(f"'{name}' of {owner} is not a map")
    return found


def _list(data: dict[Any, Any], name: str) -> list[Any]:
    found = data.get(name)
    if found is None:
        return []
    if not isinstance(found, list | tuple):
        raise FrameError(f"'{name}' of a result is not an array")
    return list(found)


def _text(info: dict[Any, Any], name: str) -> str:
    text = info.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise FrameError(f"'{name}' of an info is not a text, but of type {type(text).__name__!r}")
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + _CUT


def _user(info: dict[Any, Any]) -> dict[str, Any]:
    """User data without reserved keys."""
    user = _map(info, "user", "an info")
    for key in user:
        if not isinstance(key, str):
            raise FrameError(f"'user' of an info has the key {_short(key)}, which is not a text")
    return {key: value for key, value in user.items() if not key.startswith("_")}


def _packed(fields: dict[str, Any]) -> bytes | None:
    """A packed info of the fields that are not empty."""
    given = {name: value for name, value in fields.items() if value}
    if not given:
        return None
    try:
        packed: bytes = msgpack.packb(given)
        msgpack.unpackb(packed)
    except (ValueError, TypeError, OverflowError) as error:
        raise FrameError(f"an info has user data that is not JSON-like: {error!r}") from None
    return packed


def _short(value: Any) -> str:
    return reprlib.repr(value)
