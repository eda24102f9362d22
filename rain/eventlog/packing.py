"""Batch records as bytes and back.

A batch is one msgpack list of the raw bytes of its columns: nothing is made per task, and 1000 runs take a few
microseconds. A column whose numbers rise evenly is the list [first, step, length] instead. Submits, which are read
seldom and hold texts, are compressed.
"""

from __future__ import annotations

import zlib
from array import array
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgpack

from rain.common.unpacking import unpack_bounded
from rain.eventlog.linked import read_link
from rain.eventlog.records import MembersFinished, ObjectsUnkept, RunsFinished, RunsStarted, Submitted, TasksEnded
from rain.protocol.messages import SubmitBlock, SubmitChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

Batch: TypeAlias = Submitted | RunsStarted | RunsFinished | MembersFinished | TasksEnded | ObjectsUnkept

SUBMIT, STARTED, FINISHED, MEMBERS = "submit", "started", "finished", "members"
ENDED, UNKEPT = "ended", "unkept"

_COMPRESSED_FROM = 512
_ZLIB = 0x78
"""First byte of what zlib compressed; no msgpack list begins so."""
_LARGEST = 1 << 30
"""Bytes of a batch when it is not compressed."""
_BLOCK_PARTS = 7
_LINKED_PARTS = 9
_LONGEST = 1 << 24
"""Elements of a column that is not written out."""


def pack(record: Batch, config_templates: Container[int] = ()) -> tuple[str, int, bytes]:
    """Pack a record.

    Args:
        record: any but a single event.
        config_templates: of a submit: numbers of the templates whose tasks' `args` are their config. Of the other tasks
            they are arguments of calls, which are not for the log.

    Returns:
        Kind, number of events, columns. The session and templates of submits are not in the columns.
    """
    if isinstance(record, RunsFinished):
        return FINISHED, count_events(record), _pack_finished(record)
    if isinstance(record, MembersFinished):
        return MEMBERS, count_events(record), _pack_members(record)
    if isinstance(record, RunsStarted):
        data = _packed([record.worker, _column(record.tasks), _column(record.runs)])
        return STARTED, count_events(record), data
    if isinstance(record, TasksEnded):
        data = _packed([record.type, _column(record.firsts), _column(record.counts)])
        return ENDED, count_events(record), data
    if isinstance(record, ObjectsUnkept):
        return UNKEPT, 1, _packed([_column(record.objects)])
    return SUBMIT, 1, _pack_submit(record, config_templates)


def count_events(record: Batch) -> int:
    """How many events a record stands for."""
    if isinstance(record, RunsFinished):
        return 2 * len(record.tasks) - len(record.announced) + len(record.outputs)
    if isinstance(record, MembersFinished):
        return 3 * len(record.durations) - record.is_announced
    if isinstance(record, RunsStarted):
        return len(record.tasks)
    return sum(record.counts) if isinstance(record, TasksEnded) else 1


def unpack(kind: str, session: int, data: bytes) -> Batch:
    """Inverse of `pack`. A submit comes without templates, values and arguments.

    Raises:
        ValueError: the data is damaged.
    """
    unpacker = _UNPACKERS.get(kind)
    if unpacker is None:
        raise ValueError(f"{kind!r} is no kind of batch")
    try:
        if data[:1] == bytes([_ZLIB]):
            data = _decompressed(data)
        return unpacker(session, unpack_bounded(data))
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        raise ValueError(f"a damaged batch of the kind {kind}: {error}") from error


def _packed(parts: list[Any]) -> bytes:
    return cast("bytes", msgpack.packb(parts))


def _decompressed(data: bytes) -> bytes:
    unzip = zlib.decompressobj()
    plain = unzip.decompress(data, _LARGEST)
    if not unzip.eof:
        raise ValueError("it ends too early, or is too large")
    return plain


# --- columns ---


def _column(column: array[Any]) -> bytes | list[int]:
    """Columns of ints; floats are never even."""
    length = len(column)
    if length > 2:
        first, last, step = column[0], column[-1], column[1] - column[0]
        if last - first == step * (length - 1) and length <= _LONGEST and _is_even(column, first, last, step):
            return [first, step, length]
    return column.tobytes()


def _is_even(column: array[int], first: int, last: int, step: int) -> bool:
    if step == 0:
        raw = column.tobytes()
        return raw == raw[: column.itemsize] * len(column)
    return step > 0 and column == array(column.typecode, range(first, last + 1, step))


def _read_column(code: str, packed: Any) -> array[Any]:
    column: array[Any] = array(code)
    if isinstance(packed, bytes):
        column.frombytes(packed)
        return column
    first, step, length = packed
    if not 0 <= length <= _LONGEST or not 0 <= first <= first + step * length < 1 << 64:
        raise ValueError("a column has an impossible length")
    if step == 0:
        column = array(code, [first]) * length
    else:
        column = array(code, range(first, first + step * length, step))
    return column


def _check(condition: bool) -> None:
    if not condition:
        raise ValueError("columns of a batch do not belong together")


def _check_lengths(length: int, *columns: Sequence[Any]) -> None:
    _check(all(len(column) == length for column in columns))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name in a batch is no text")
    return value


def _blobs(value: Any) -> list[bytes | None]:
    _check(isinstance(value, list) and all(entry is None or isinstance(entry, bytes) for entry in value))
    return cast("list[bytes | None]", value)


# --- kinds ---


def _pack_finished(record: RunsFinished) -> bytes:
    return _packed(
        [
            record.worker,
            _column(record.tasks),
            _column(record.runs),
            record.starts.tobytes(),
            record.durations.tobytes(),
            record.infos,
            _column(record.output_counts),
            _column(record.outputs),
            _column(record.sizes),
            _column(record.announced),
        ]
    )


def _unpack_finished(session: int, parts: Any) -> RunsFinished:
    worker, tasks, runs, starts, durations, infos, output_counts, outputs, sizes, announced = parts
    record = RunsFinished(
        session,
        _text(worker),
        _read_column("I", tasks),
        _read_column("I", runs),
        _read_column("d", starts),
        _read_column("d", durations),
        _blobs(infos),
        _read_column("I", output_counts),
        _read_column("I", outputs),
        _read_column("Q", sizes),
        _read_column("I", announced),
    )
    count = len(record.tasks)
    _check_lengths(count, record.runs, record.starts, record.durations)
    _check_lengths(len(record.outputs), record.sizes)
    _check(len(record.infos) in (0, count))
    total = sum(record.output_counts) if record.output_counts else count
    _check(len(record.output_counts) in (0, count) and total == len(record.outputs))
    early = record.announced
    _check(not early or (list(early) == sorted(set(early)) and early[-1] < count))
    return record


def _pack_members(record: MembersFinished) -> bytes:
    durations, sizes = record.durations, record.sizes
    return _packed(
        [
            record.worker,
            record.task,
            record.output,
            record.run,
            record.start,
            durations.typecode,
            durations.tobytes(),
            sizes.typecode,
            _column(sizes),
            record.is_announced,
        ]
    )


def _unpack_members(session: int, parts: Any) -> MembersFinished:
    worker, task, output, run, start, float_code, durations, int_code, sizes, is_announced = parts
    _check(type(task) is type(output) is type(run) is int and type(start) is float and type(is_announced) is bool)
    _check(float_code in ("f", "d") and int_code in ("B", "H", "I", "L", "Q"))
    seconds, lengths = _read_column(float_code, durations), _read_column(int_code, sizes)
    _check_lengths(len(seconds), lengths)
    _check(len(seconds) > 0)
    return MembersFinished(session, _text(worker), task, output, run, start, seconds, lengths, is_announced)


def _unpack_started(session: int, parts: Any) -> RunsStarted:
    worker, tasks, runs = parts
    record = RunsStarted(session, _text(worker), _read_column("I", tasks), _read_column("I", runs))
    _check_lengths(len(record.tasks), record.runs)
    return record


def _unpack_ended(session: int, parts: Any) -> TasksEnded:
    name, firsts, counts = parts
    record = TasksEnded(session, _text(name), _read_column("I", firsts), _read_column("I", counts))
    _check_lengths(len(record.firsts), record.counts)
    return record


def _unpack_unkept(session: int, parts: Any) -> ObjectsUnkept:
    (objects,) = parts
    return ObjectsUnkept(session, _read_column("I", objects))


# --- submits ---


def _pack_submit(record: Submitted, config_templates: Container[int]) -> bytes:
    parts: list[Any] = [record.first_template]
    for chunk in record.chunks:
        if isinstance(chunk, SubmitBlock):
            parts.append(_pack_block(chunk))
        else:
            parts.append(_pack_chunk(chunk, config_templates))
    data = _packed(parts)
    return zlib.compress(data, 1) if len(data) >= _COMPRESSED_FROM else data


def _pack_block(block: SubmitBlock) -> list[Any]:
    places = block.template, block.first, block.members, block.start, len(block.arg_sizes)
    parts = [*places, _column(block.inputs), block.keep]
    return [*parts, block.link, block.keeps] if block.link else parts


def _pack_chunk(chunk: SubmitChunk, config_templates: Container[int]) -> list[Any]:
    """Like the message, without templates and values."""
    args = chunk.args
    if args:
        wanted = [number in config_templates for number in chunk.task_templates]
        args = [arg if is_wanted else None for arg, is_wanted in zip(args, wanted, strict=True)] if any(wanted) else []
    return [
        _column(chunk.tasks),
        _column(chunk.task_templates),
        args,
        _column(chunk.input_counts),
        _column(chunk.inputs),
        _column(chunk.output_counts),
        _column(chunk.outputs),
        chunk.output_flags,
        _column(chunk.objects),
        chunk.object_flags,
        chunk.object_specs,
    ]


def _unpack_submit(session: int, parts: Any) -> Submitted:
    first_template, *packed = parts
    _check(type(first_template) is int)
    chunks: list[SubmitChunk | SubmitBlock] = []
    for part in packed:
        is_block = len(part) in (_BLOCK_PARTS, _LINKED_PARTS)
        chunks.append(_unpack_block(session, part) if is_block else _unpack_chunk(session, part))
    return Submitted(session, first_template, chunks)


def _unpack_block(session: int, parts: list[Any]) -> SubmitBlock:
    template, first, members, start, count, inputs, keep, *linked = parts
    _check(all(type(number) is int for number in (template, first, members, start, count)) and type(keep) is bool)
    _check(0 <= start <= start + count <= members < 1 << 32)
    sizes = _read_column("I", [0, 0, count])
    places = template, first, members, start, _read_column("I", inputs)
    block = SubmitBlock(session, [], *places, keep, b"", sizes, *linked)
    if linked:
        _check(type(block.link) is type(block.keeps) is bytes and len(block.keeps) in (0, count))
        read_link(block)
    return block


def _unpack_chunk(session: int, parts: list[Any]) -> SubmitChunk:
    tasks, task_templates, args, input_counts, inputs, output_counts, outputs, *of_objects = parts
    flags, objects, object_flags, specs = of_objects
    chunk = SubmitChunk(
        session,
        [],
        _read_column("I", tasks),
        _read_column("I", task_templates),
        _blobs(args),
        _read_column("I", input_counts),
        _read_column("I", inputs),
        _read_column("I", output_counts),
        _read_column("I", outputs),
        flags,
        _read_column("I", objects),
        object_flags,
        _blobs(specs),
        [],
    )
    _check(isinstance(flags, bytes) and isinstance(object_flags, bytes))
    count = len(chunk.tasks)
    _check_lengths(count, chunk.task_templates, chunk.input_counts, chunk.output_counts)
    _check_lengths(sum(chunk.input_counts), chunk.inputs)
    _check_lengths(sum(chunk.output_counts), chunk.outputs, flags)
    _check_lengths(len(chunk.objects), object_flags)
    _check(len(chunk.args) in (0, count) and len(chunk.object_specs) in (0, len(chunk.objects)))
    return chunk


_UNPACKERS: dict[str, Callable[[int, Any], Batch]] = {
    SUBMIT: _unpack_submit,
    STARTED: _unpack_started,
    FINISHED: _unpack_finished,
    MEMBERS: _unpack_members,
    ENDED: _unpack_ended,
    UNKEPT: _unpack_unkept,
}
