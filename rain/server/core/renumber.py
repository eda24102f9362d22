"""From the ids of a submit to rows, once a session has task arrays (see `numbering`).

Blocks of arrays become tasks without outputs but those that other tasks of the submit use, so that the submit is
checked and applied like any other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from rain.common.links import Link
from rain.common.number_arguments import NumberArguments
from rain.common.structs import dataclass
from rain.protocol.messages import INLINE, KEEP, SAME, SubmitBlock, SubmitChunk
from rain.server.core.blocks import Arguments, Block, NumberColumn, claim
from rain.server.core.graph import MAX_ID
from rain.server.core.numbering import Numbering, TaskArray
from rain.server.core.staging import InvalidSubmitError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rain.server.core.session import Session

_start = attrgetter("start")
MAX_GAP = 1 << 20
"""Ids that may be left out in one submit."""


@dataclass(slots=True)
class Renumbered:
    """A submit in rows. Nothing of it is in the session yet.

    blocks: the new ones, in `chunks` at their rows. claimed: row of a block's output by its id. names: ids by row, of
    blocks and claimed outputs. numbering: None if rows are ids.
    """

    chunks: list[SubmitChunk]
    numbering: Numbering | None = None
    blocks: list[Block] = field(default_factory=list)
    claimed: dict[int, int] = field(default_factory=dict)
    names: dict[int, int] = field(default_factory=dict)

    def id(self, row: int) -> int:
        """Id of a row, for messages."""
        if self.numbering is None:
            return row
        known = self.names.get(row)
        return self.numbering.id(row) if known is None else known

    def commit(self, session: Session) -> None:
        """The submit is accepted: its arrays belong to the session."""
        numbering = self.numbering
        if numbering is None:
            return
        graph = session.graph
        graph.numbering = numbering
        numbering.single.update(self.claimed)
        for row, number in self.names.items():
            numbering.set_id(row, number)
        for block in self.blocks:
            graph.blocks[block.row] = block
            block.array.place(block)


def renumber(session: Session, staged: list[SubmitChunk | SubmitBlock]) -> Renumbered:
    """The submit in rows.

    Raises:
        InvalidSubmitError: an id is used already or does not exist, or an array is not complete.
    """
    plain = [chunk for chunk in staged if isinstance(chunk, SubmitChunk)]
    if len(plain) == len(staged) and not session.graph.numbering.arrays:
        return Renumbered(plain)
    return _Renumbering(session, staged, plain).result


class _Renumbering:
    def __init__(self, session: Session, staged: list[SubmitChunk | SubmitBlock], plain: list[SubmitChunk]) -> None:
        self._session = session
        self._claim_known(staged)
        graph = session.graph
        self._numbering = numbering = graph.numbering.copy()
        if not numbering.arrays:
            numbering.end = len(graph)
        self._row = len(graph)
        self.result = Renumbered([], numbering)
        self._number_ids(plain, _arrays(session, staged))
        self._add_blocks([block for block in staged if isinstance(block, SubmitBlock)])
        self._claim_new(staged)
        rows = iter(self.result.blocks)
        for chunk in staged:
            self.result.chunks.append(
                self._chunk(chunk) if isinstance(chunk, SubmitChunk) else self._block(chunk, next(rows))
            )

    # --- ids ---

    def _number_ids(self, plain: list[SubmitChunk], arrays: list[TaskArray]) -> None:
        """Give the new ids rows, but those of arrays."""
        columns = [column for chunk in plain for column in (chunk.tasks, chunk.outputs, chunk.objects) if column]
        last = max(map(max, columns), default=-1)
        self._room = MAX_GAP + 2 * sum(map(len, columns))
        for added in arrays:
            if added.first < self._numbering.end:
                raise InvalidSubmitError(f"id {self._name(added.first)} is already in use")
            self._add_rows(added.first)
            self._numbering.add_array(added)
        self._add_rows(last + 1)

    def _add_rows(self, stop: int) -> None:
        """Rows for the ids from the end to `stop`."""
        count = stop - self._numbering.end
        if count <= 0:
            return
        self._room -= count
        if self._room < 0 or stop > MAX_ID:
            raise InvalidSubmitError(f"id {self._name(stop - 1)} is out of range")
        self._numbering.add_rows(self._numbering.end, self._row)
        self._numbering.end = stop
        self._row += count

    def _name(self, number: int) -> str:
        return f"{self._session.number}/{number}"

    # --- blocks and claimed outputs ---

    def _claim_known(self, staged: list[SubmitChunk | SubmitBlock]) -> None:
        """Outputs of blocks of earlier submits that are inputs now."""
        numbering = self._session.graph.numbering
        if not numbering.arrays:
            return
        for number in _distinct_inputs(staged, numbering.arrays[0].first):
            member = numbering.member(number) if number not in numbering.single else None
            if member is not None and not member[2] and (member[0].results is None or member[0].is_kept(member[1])):
                claim(self._session, member[0], member[1])

    def _add_blocks(self, blocks: list[SubmitBlock]) -> None:
        for block in blocks:
            members = self._numbering.array_of(block.first)
            assert members is not None
            arguments = (
                NumberColumn(NumberArguments(block.column, block.args))
                if block.column
                else Arguments(block.args, block.arg_sizes)
            )
            count = len(block.arg_sizes)
            added = Block(self._row, members, block.start, count, block.keep, arguments, block.start)
            if block.link:
                added.link = self._link(block)
                added.unkept = {block.start + k for k, flags in enumerate(block.keeps) if not flags & KEEP}
            self.result.blocks.append(added)
            self.result.names[self._row] = added.task
            self._row += 1

    def _link(self, block: SubmitBlock) -> Link:
        try:
            return Link.unpack(block.link, len(block.arg_sizes), len(block.inputs))
        except ValueError as error:
            name = self._name(block.first + block.start)
            raise InvalidSubmitError(f"the linked block of data object {name}: {error}") from error

    def _claim_new(self, staged: list[SubmitChunk | SubmitBlock]) -> None:
        """Outputs of blocks of this submit that are inputs in it."""
        blocks = self.result.blocks
        if not blocks:
            return
        by_array: dict[TaskArray, list[Block]] = {}
        for block in blocks:
            by_array.setdefault(block.array, []).append(block)
        for number in _distinct_inputs(staged, min(block.array.first for block in blocks)):
            found = self._numbering.array_of(number)
            if found is None or not 0 <= number - found.first < found.members:
                continue
            index = number - found.first
            own = by_array.get(found)
            if own is not None:
                block = own[bisect_right(own, index, key=_start) - 1]
                block.claimed[index] = self.result.claimed[number] = self._row
                self.result.names[self._row] = number
                self._row += 1

    # --- chunks ---

    def _chunk(self, chunk: SubmitChunk) -> SubmitChunk:
        return replace(
            chunk,
            tasks=self._new(chunk.tasks),
            inputs=self._known(chunk.inputs),
            outputs=self._new(chunk.outputs),
            objects=self._new(chunk.objects),
            values=self._values(chunk),
        )

    def _block(self, block: SubmitBlock, added: Block) -> SubmitChunk:
        indices = sorted(added.claimed)
        claimed = array("I", [added.claimed[index] for index in indices])
        nothing = array("I")
        return SubmitChunk(
            block.session,
            block.templates,
            tasks=array("I", [added.row]),
            task_templates=array("I", [block.template]),
            args=[],
            input_counts=array("I", [len(block.inputs)]),
            inputs=self._known(block.inputs),
            output_counts=array("I", [len(claimed)]),
            outputs=claimed,
            output_flags=bytes([KEEP if added.is_kept(index) else 0 for index in indices]),
            objects=nothing,
            object_flags=b"",
            object_specs=[],
            values=[],
        )

    def _new(self, numbers: array[int]) -> array[int]:
        """Rows of ids that are declared."""
        row, rows = self._numbering.row, array("I")
        for number in numbers:
            found = row(number)
            if found < 0:
                raise InvalidSubmitError(f"id {self._name(number)} is already in use")
            rows.append(found)
        return rows

    def _known(self, numbers: array[int]) -> array[int]:
        """Rows of ids that are used."""
        row, claimed, rows = self._numbering.row, self.result.claimed, array("I")
        for number in numbers:
            found = claimed.get(number)
            if found is None:
                found = row(number)
            if found < 0:
                raise InvalidSubmitError(f"input {self._name(number)} does not exist or is not kept")
            rows.append(found)
        return rows

    def _values(self, chunk: SubmitChunk) -> list[bytes | None]:
        """Inline values; those which name another constant name its row."""
        values = list(chunk.values)
        flags = [flag for flag in chunk.object_flags if flag & (INLINE | SAME)]
        for position, flag in enumerate(flags[: len(values)]):
            value = values[position]
            if flag & SAME and value is not None:
                source = max(0, self._numbering.row(int.from_bytes(value[:4], "little")))
                values[position] = source.to_bytes(4, "little")
        return values


def _distinct_inputs(staged: list[SubmitChunk | SubmitBlock], least: int) -> Iterable[int]:
    """Ids of inputs from `least` on."""
    return dict.fromkeys(number for message in staged for number in message.inputs if number >= least)


def _arrays(session: Session, staged: list[SubmitChunk | SubmitBlock]) -> list[TaskArray]:
    """The new arrays by rising ids; their blocks must be complete."""
    stops: dict[int, int] = {}
    arrays: dict[int, TaskArray] = {}
    for block in staged:
        if not isinstance(block, SubmitBlock):
            continue
        known = arrays.setdefault(block.first, TaskArray(block.first, block.members))
        if known.members != block.members or stops.get(block.first, 0) != block.start or not block.arg_sizes:
            raise InvalidSubmitError(f"the blocks of task array {session.number}/{block.first} do not fit together")
        stops[block.first] = block.start + len(block.arg_sizes)
    for first, found in arrays.items():
        if stops[first] != found.members or found.end > MAX_ID:
            raise InvalidSubmitError(f"task array {session.number}/{first} is not complete")
    return [arrays[first] for first in sorted(arrays)]
