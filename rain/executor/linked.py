"""Linked blocks: the loop over members that use what earlier ones gave, and what of that is reported."""

from __future__ import annotations

import io
import pickle
import time
from functools import lru_cache, partial
from itertools import chain, compress, repeat
from typing import TYPE_CHECKING, Any

import msgpack

from rain.common.blocks import FULL, LATE
from rain.common.data_instance import DataInstance
from rain.common.links import unpack_checked
from rain.common.packing import load_extension
from rain.common.pickle5 import encode_pickle5
from rain.executor.blocks import BLOCK_BYTES, BLOCK_SECONDS, LARGE_INT, QUICK, as_encoded, bare_types
from rain.executor.context import Context
from rain.executor.inputs import LIVE, VALUE, InputObject
from rain.executor.output import LONG
from rain.executor.results import PICKLE5_INFO, SCALARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rain.common.attributes import TaskSpec
    from rain.executor.blocks import Gathered
    from rain.executor.executor import Executor
    from rain.executor.results import Encoded
    from rain.executor.templates import Template

_UNCHANGEABLE = SCALARS | {str, bytes}
"""Exact types of values that nobody can tell from a decoded copy."""

_LONGEST_REFERENCE = 255
_MOST_KNOWN = 256
_PLACEHOLDERS: dict[type, Any] = {int: 0, float: 0.0}


class LinkedMembers:
    """The members of a linked block, and what is kept of those that ran.

    Args:
        executor: runs them.
        row: of the block as of a call, with the ids of the first member.
        assigned: packed link, and which outputs are wanted.
        gathered: gets what is to be reported.

    Raises:
        Exception: a function cannot be loaded, or an input is missing.
    """

    __slots__ = ("_current", "_executor", "_frees", "_functions", "_gathered", "_held", "_inputs", "_last_uses",
                 "_link", "_output", "_references", "_run", "_slots", "_task", "_templates", "_wanted")  # fmt: skip

    def __init__(self, executor: Executor, row: list[Any], assigned: bytes, gathered: Gathered) -> None:
        self._executor = executor
        self._gathered = gathered
        self._task, self._run, _, _, self._inputs, (self._output,), _ = row
        link, self._wanted = unpack_checked(assigned, len(self._inputs))
        self._link = link
        self._references: list[int] = link.references.tolist()
        self._templates = [executor._state.templates[number] for number in link.templates]
        #: position of the last member that uses a reference; made when first needed
        self._last_uses: dict[int, int] = {}
        self._functions = self._load_functions()
        #: what references stand for: the row of a data object ([]: not here, or not needed), or a number, bool or None
        self._slots: list[Any] = [executor._objects.get(number, []) for number in self._inputs]
        #: references of rows which nobody needs when the member of a position is done
        self._frees: dict[int, list[int]] = {}
        #: bytes of values which would have to be reported now
        self._held = 0
        #: position and row of the member that asked for its row last
        self._current: tuple[int, list[Any]] | None = None

    def _load_functions(self) -> list[Callable[..., Any]]:
        """The function of each member. All other inputs must be there."""
        executor = self._executor
        positions = self._link.functions()
        functions = {}
        for position in set(positions):
            number = self._inputs[position]
            functions[position] = executor._state.functions.get(number) or executor._load_function(number)
        for position, number in enumerate(self._inputs):
            if position not in functions:
                executor._input(number)
        return [functions[position] for position in positions]

    # --- what the running member asks for ---

    def row(self) -> list[Any]:
        """The row of the member that runs, as of a call; its inputs are among the objects of the executor then."""
        position = self._gathered.done
        if self._current is None or self._current[0] != position:
            link = self._link
            for reference in link.references_of(position):
                earlier = reference - link.inputs
                if earlier >= 0:
                    self._executor._objects[self._output + earlier] = self._row_of(earlier)
            call = [self._task + position, self._run, link.template(position), b"", self._numbers(position)]
            self._current = position, [*call, [self._output + position], None]
        return self._current[1]

    def context(self) -> Context:
        """The context of the member that runs."""
        position = self._gathered.done
        make_spec = partial(self._spec, position)
        return Context(make_spec, self._functions[position], self._run, self._executor._workspace)

    def _spec(self, position: int) -> TaskSpec:
        template, session = self._templates[self._kind(position)], self._executor._session
        output = self._output + position
        return template.task_spec(session, self._task + position, self._numbers(position), [output])

    def _numbers(self, position: int) -> list[int]:
        """Ids of the inputs of a member."""
        inputs, first = self._inputs, self._output - self._link.inputs
        references = self._link.references_of(position)
        return [inputs[number] if number < len(inputs) else first + number for number in references]

    def _kind(self, position: int) -> int:
        """Position of the template of a member."""
        return self._link.which[position] if self._link.which else 0

    def _row_of(self, earlier: int) -> list[Any]:
        """The row of what an earlier member gave."""
        slot = self._slots[self._link.inputs + earlier]
        if type(slot) is list:
            return slot
        template = self._templates[self._kind(earlier)]
        return [self._output + earlier, template.output_spec, PICKLE5_INFO, encode_pickle5(slot), slot]

    # --- the loop ---

    def _calls(self, args: bytes) -> Iterator[tuple[Callable[..., Any], int, tuple[Any, Any]]]:
        """Of each member its function, the position of its template, and its arguments, decoded when it is its turn."""
        slots, references, session = self._slots, self._references, self._executor._session
        counts, plain = self._link.counts, [template.plain for template in self._templates]
        #: what pickles in the arguments of members with so many references stand for, apart for `remote` functions
        tables: dict[tuple[int, bool], dict[bytes, int]] = {(count, one): {} for count in counts for one in plain}
        known: dict[bytes, int] = {}
        first = 0

        def resolve(code: int, data: bytes) -> Any:
            index = known.get(data)
            if index is None:
                if len(data) <= _LONGEST_REFERENCE and len(known) < _MOST_KNOWN:
                    index = reference_index(data, loaded=not plain[kind])
                if index is None or index >= count:
                    return load_extension(code, data)
                known[data] = index
            slot = slots[references[first + index]]
            if type(slot) is not list:
                return slot
            return _natural(session, slot) if slot and plain[kind] else load_extension(code, data)

        unpacker = msgpack.Unpacker(ext_hook=resolve, use_list=False, max_buffer_size=len(args))
        unpacker.feed(args)
        unpacker.read_array_header()
        unpack = unpacker.unpack
        for function, kind, count in zip(self._functions, self._link.which or bytes(len(counts)), counts, strict=True):
            known = tables[count, plain[kind]]
            yield function, kind, unpack()
            first += count

    def run(self, args: bytes) -> None:
        """Run members in order until the block ends. Each look at the clock ends one and starts the next."""
        executor, gathered, frees = self._executor, self._gathered, self._frees
        output, clock = executor.output, time.monotonic
        add_duration, add_slot = gathered.durations.append, self._slots.append
        data: Any
        info: bytes | None
        last_info: Any = ()
        last_kind, least = -1, -LARGE_INT
        start = clock()
        until = start + BLOCK_SECONDS
        try:
            for function, kind, (positional, keywords) in self._calls(args):
                if kind != last_kind:
                    last_kind, template = kind, self._templates[kind]
                    plain, bare = template.plain, bare_types(template)
                if not plain:
                    positional = (executor.context(), *positional)
                value = function(*positional, **keywords) if keywords else function(*positional)
                encoded = None
                if (type_ := type(value)) in bare and (type_ is not int or least < value < LARGE_INT):
                    data, info = value, PICKLE5_INFO
                else:
                    called = clock()
                    encoded = self._encoded(template, value)
                    data, info, _ = encoded
                    if type(data) is not bytes or template.outputs[0].directory:
                        gathered.end_stored(encoded, executor._task_info(), start, clock())
                        return
                if executor._context is not None or info is not last_info:
                    told = executor._task_info()
                    if told is not None or (info is not last_info and not gathered.changes_to(info)):
                        gathered.end_stored(as_encoded(data, info), told, start, clock())
                        return
                    executor._context, last_info = None, info
                if encoded is None:
                    add_slot(value)
                else:
                    self._hold(template, value, data, info)
                end = clock()
                duration = end - start
                if output.wrote or duration > LONG:
                    output.attribute(self._task + gathered.done, self._run)
                add_duration(duration)
                if frees:
                    self._free(gathered.done - 1)
                if duration > QUICK or self._held > BLOCK_BYTES:
                    if end > until or self._held > BLOCK_BYTES:
                        gathered.end = FULL if self._held > BLOCK_BYTES else LATE
                        return
                    if encoded is None or called - start > QUICK:
                        executor._tidy()
                        end = clock()
                start = end
        except BaseException as error:  # exit() and the like fail the member, too
            gathered.end_failed(executor._failure(error, self._task + gathered.done, self._run), start, clock())

    def _encoded(self, template: Template, value: Any) -> Encoded:
        encode = self._executor._encoder.plain if template.plain else self._executor._encoder.returned
        if not isinstance(value, DataInstance):
            return encode(template, value, [])[0]
        data, info, size = encode(template, value, self.row()[4])[0]
        if type(data) is int and data not in self._inputs:  # what an earlier member gave is not known outside
            data = self._executor._objects[data][VALUE]
        return data, info, size

    def _hold(self, template: Template, value: Any, data: bytes, info: bytes | None) -> None:
        """Keep what the member gave if anybody needs it."""
        position = self._gathered.done
        reference = self._link.inputs + position
        last, wanted = self._last_use(reference), self._wanted[position]
        if last < 0 and not wanted:
            self._slots.append([])
            return
        row = [self._output + position, template.output_spec, info, data]
        plan = template.outputs[0]
        if template.plain and plan.natural and plan.content_type is None and type(value) in _UNCHANGEABLE:
            row.append(value)
        self._slots.append(row)
        self._held += len(data)
        if last >= 0 and not wanted:
            self._frees.setdefault(last, []).append(reference)

    def _last_use(self, reference: int) -> int:
        """Position of the last member that uses it, -1 without."""
        if not self._last_uses:
            users = chain.from_iterable(map(repeat, range(self._gathered.members), self._link.counts))
            self._last_uses = dict(zip(self._references, users, strict=True))
        return self._last_uses.get(reference, -1)

    def _free(self, position: int) -> None:
        """The member of this position is done."""
        for reference in self._frees.pop(position, ()):
            self._held -= len(self._slots[reference][VALUE])
            self._slots[reference] = []
            self._executor._objects.pop(self._output + reference - self._link.inputs, None)

    def report(self) -> None:
        """Let `gathered` have what is wanted outside, and what the rest of the members needs."""
        done, first = self._gathered.done, self._link.inputs
        slots = self._slots[first : first + done]
        needed: bytes | list[int] = self._wanted
        if done < len(needed):
            needed = [needed[n] or self._last_use(first + n) >= done for n in range(done)]
        kinds = set(map(type, compress(slots, needed)))
        other = _PLACEHOLDERS.get(kinds.pop(), b"") if len(kinds) == 1 else b""
        self._gathered.values = [
            (slot[VALUE] if type(slot) is list else slot) if flag else other
            for slot, flag in zip(slots, needed, strict=True)
        ]


def _natural(session: int, row: list[Any]) -> Any:
    """The value of a data object, for one use."""
    if len(row) > LIVE:
        return row[LIVE]
    value = InputObject(session, row).natural()
    if type(value) in _UNCHANGEABLE and type(row[VALUE]) is bytes:
        row.append(value)
    return value


class _Reference:
    """Stands for a data object in arguments; parameters as of `unpickle_input_object`."""

    __slots__ = ("index", "is_loaded")

    def __init__(self, name: str, index: int, load: bool | None, content_type: str | None) -> None:
        self.index = index
        self.is_loaded = bool(load) and not content_type


class _ReferenceReader(pickle.Unpickler):
    """Knows nothing but references."""

    def find_class(self, module: str, name: str) -> type[_Reference]:
        """Refuse everything else."""
        if (module, name) != ("rain.executor.executor", "unpickle_input_object"):
            raise pickle.UnpicklingError(f"{module}.{name} is no data object")
        return _Reference


@lru_cache(maxsize=256)
def reference_index(data: bytes, *, loaded: bool = False) -> int | None:
    """Which input of the call a pickle stands for; None if it is not a data object and nothing else, or with `loaded`
    one that is to be decoded whatever its type."""
    try:
        found = _ReferenceReader(io.BytesIO(data)).load()
    except Exception:  # whatever unpickling raises; the pickle is loaded in the usual way then
        return None
    return found.index if type(found) is _Reference and (found.is_loaded or not loaded) else None
