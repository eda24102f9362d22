"""`session.map`: from iterables of arguments to a task array."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sized
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import msgpack

from rain.client.arguments import LARGE, ArgumentPacker
from rain.client.array import TaskArray
from rain.client.caching import with_code
from rain.client.data import DataObject, to_dataobj
from rain.client.delayed import Delayed
from rain.client.embedding import reference_pickle
from rain.client.task import Task
from rain.common.errors import RainException
from rain.common.number_arguments import number_arguments
from rain.common.packing import PLAIN_TYPES, PickledValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rain.client.base import BaseSession

    Column = list[Any] | range | TaskArray

_NO_KEYWORDS: dict[str, Any] = {}


def map_tasks(
    session: BaseSession, fn: Any, iterables: tuple[Iterable[Any], ...], options: dict[str, Any]
) -> TaskArray:
    """Make the array; see `Session.map`."""
    if not iterables:
        raise TypeError("map() needs at least one iterable of arguments")
    if "session" in options:
        raise TypeError("map() makes its tasks in its own session; leave session= out")
    delayed = fn if isinstance(fn, Delayed) else Delayed(fn)
    if options:
        delayed = delayed.options(**options)
    if len(delayed.outputs) != 1:
        raise ValueError(f"map() needs a function with one output, {delayed!r} has {len(delayed.outputs)}")
    session._check_open()
    columns = _columns(iterables)
    if delayed._signature is not None and columns and len(columns[0]):
        delayed._signature.bind(*(column[0] for column in columns))
    function_packer = ArgumentPacker(session)
    packed, counts, inputs, held = _pack(session, function_packer, columns)
    function = delayed._function(session)
    if function_packer.constants:
        function_packer.register()
    numbers = array("I", [dataobj._number for dataobj in held]) if inputs is None and counts is not None else inputs
    shape = with_code(delayed._shape, delayed.fn, session) if delayed._needs_code else delayed._shape
    return TaskArray(session, shape, function, packed, counts, numbers, held, delayed.keep)


def _columns(iterables: tuple[Iterable[Any], ...]) -> list[Column]:
    """The arguments by position, as long as the shortest iterable; each is consumed once."""
    if len(iterables) == 1:
        only = iterables[0]
        return [only if isinstance(only, (range, TaskArray)) else list(only)]
    if all(isinstance(one, Sized) for one in iterables):
        length = min(len(one) for one in iterables if isinstance(one, Sized))
        found: list[Column] = []
        for one in iterables:
            values = one if isinstance(one, TaskArray) and len(one) == length else list(one)[:length]
            found.append(values)
        return found
    rows = list(zip(*iterables, strict=False))
    return [[row[position] for row in rows] for position in range(len(iterables))]


def _pack(
    session: BaseSession, packer: ArgumentPacker, columns: list[Column]
) -> tuple[Sequence[bytes], array[int] | None, array[int] | None, list[Any]]:
    """Packed arguments, number of inputs and their ids (None: those of the handles), and the handles."""
    if len(columns) == 1 and not isinstance(columns[0], TaskArray):
        numbers = number_arguments(columns[0])
        if numbers is not None:
            return numbers, None, None, []
    references = [_references(session, column) for column in columns]
    values = [_packable(column) if ids is None else [] for column, ids in zip(columns, references, strict=True)]
    fast = _pack_columns([one for one in values if one is not None], references) if None not in values else None
    if fast is not None:
        return (*fast, [column for column, ids in zip(columns, references, strict=True) if ids])
    packed: list[bytes] = []
    held: list[DataObject] = []
    counts = array("I")
    for args in zip(*columns, strict=True):
        one, found = packer.pack(args, _NO_KEYWORDS)
        packed.append(one)
        counts.append(len(found))
        held += found
    for dataobj in set(held).difference(packer.constants.values()):
        _check_own(session, dataobj)
    return packed, counts if held else None, None, held


def _pack_columns(
    columns: list[list[Any]], references: list[array[int] | None]
) -> tuple[list[bytes], array[int] | None, array[int] | None] | None:
    """Columns that msgpack can carry, and of data objects; None if a value is not as plain as its type says."""
    sources: list[Iterable[Any]] = []
    numbers = [ids for ids in references if ids is not None]
    index = 0
    for column, ids in zip(columns, references, strict=True):
        if ids is None:
            sources.append(column)
        else:
            index += 1
            sources.append(repeat(PickledValue(reference_pickle("", index, None, None)), len(ids)))
    pack = msgpack.Packer().pack
    try:
        packed = [pack((args, _NO_KEYWORDS)) for args in zip(*sources, strict=True)]
    except (OverflowError, UnicodeEncodeError):  # a large int, or a str with surrogates
        return None
    if not numbers or not packed:
        return packed, None, None
    inputs = numbers[0] if len(numbers) == 1 else array("I", chain.from_iterable(zip(*numbers, strict=True)))
    return packed, array("I", [len(numbers)]) * len(packed), inputs


def _packable(column: Column) -> list[Any] | None:
    """The column as msgpack can carry it; None if a value is large, holds data objects, or is hard to pickle."""
    values = list(column)
    kinds = set(map(type, values))
    if kinds <= PLAIN_TYPES and kinds.isdisjoint((str, bytes)):
        return values
    for position, value in enumerate(values):
        kind = type(value)
        if kind is str or kind is bytes:
            if len(value) > LARGE // 4:
                return None
        elif kind not in PLAIN_TYPES:
            try:
                blob = pickle.dumps(value, 5)
            except Exception:  # the value's own methods may raise anything; the slower way tells what is wrong
                return None
            if len(blob) > LARGE or b"__main__" in blob:
                return None
            values[position] = PickledValue(blob)
    return values


def _references(session: BaseSession, column: Column) -> array[int] | None:
    """Ids of the data objects of a column that holds nothing else."""
    if isinstance(column, TaskArray):
        _check_own(session, column)
        return column._output_numbers(0, len(column))
    if not column or not all(issubclass(kind, (Task, DataObject)) for kind in set(map(type, column))):
        return None
    objects = [to_dataobj(value) for value in column]
    for dataobj in objects:
        _check_own(session, dataobj)
    return array("I", [dataobj._number for dataobj in objects])


def _check_own(session: BaseSession, thing: DataObject | TaskArray) -> None:
    if thing._session is not session:
        raise RainException(
            f"{thing!r} belongs to session {thing._session.session_id}, the tasks to session {session.session_id}; "
            "fetch the value and pass that"
        )
