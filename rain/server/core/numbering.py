"""Which row of the columns an id has.

Until a session has its first task array, rows equal ids. The ids of an array have no rows, except those of single
members (`single`); the ids behind it are shifted. Ids are tiled by *segments*: stretches with rows and arrays.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rain.protocol.fields import Ids
    from rain.server.core.blocks import Block


class TaskArray:
    """A task array of `members` tasks: ids from `first` on are its outputs, then come its tasks.

    blocks: those of its members that are tracked together, by rising `starts`; the others are single.
    """

    __slots__ = ("blocks", "first", "members", "starts")

    def __init__(self, first: int, members: int) -> None:
        self.first = first
        self.members = members
        self.starts: list[int] = []
        self.blocks: list[Block] = []

    @property
    def end(self) -> int:
        """The first id behind it."""
        return self.first + 2 * self.members

    def task(self, index: int) -> int:
        """Id of a member's task."""
        return self.first + self.members + index

    def output(self, index: int) -> int:
        """Id of a member's output."""
        return self.first + index

    def place(self, block: Block) -> None:
        """Add a block, or note its new start."""
        if block in self.blocks:
            self.remove(block)
        position = bisect_right(self.starts, block.start)
        self.starts.insert(position, block.start)
        self.blocks.insert(position, block)

    def remove(self, block: Block) -> None:
        """Its members are single now."""
        position = self.blocks.index(block)
        del self.starts[position], self.blocks[position]

    def block_at(self, index: int) -> Block | None:
        """The block to which a member belongs, None if it is single."""
        position = bisect_right(self.starts, index) - 1
        if position < 0:
            return None
        block = self.blocks[position]
        return block if index < block.start + block.count else None


class Piece:
    """Part of a selection of ids: rows `start` to `stop`, or with a block its members with these positions in the
    array, as tasks or as outputs."""

    __slots__ = ("block", "is_task", "start", "stop")

    def __init__(self, start: int, stop: int, block: Block | None = None, is_task: bool = False) -> None:
        self.start = start
        self.stop = stop
        self.block = block
        self.is_task = is_task

    def number(self, numbering: Numbering, position: int) -> int:
        """Id of one of its rows or members."""
        if self.block is None:
            return numbering.id(position)
        members = self.block.array
        return members.task(position) if self.is_task else members.output(position)


class Numbering:
    """Rows by id and ids by row.

    Attributes:
        arrays: the task arrays by rising id; while there is none, rows equal ids.
        single: rows of single members' tasks and outputs by id.
        ghosts: rows of blocks by the id of their first task, for runs that are being stopped after the block was
            dissolved.
    """

    def __init__(self) -> None:
        self.arrays: list[TaskArray] = []
        self.single: dict[int, int] = {}
        self.ghosts: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        # Segments by rising first id; the shift (id - row) of those with rows, None for an array.
        self._starts = [0]
        self._shifts: list[int | None] = [0]
        self._arrays: list[TaskArray | None] = [None]
        # Segments with rows by rising first row.
        self._row_starts = [0]
        self._row_shifts = [0]
        self._last_ids: Ids = range(0)
        self._last_spans: list[tuple[int, int]] = []
        self.end = 0
        """The first id behind all that are numbered; meaningful once there is an array."""

    def copy(self) -> Numbering:
        """For trying out a submit."""
        other = Numbering()
        other.arrays, other.single, other._ids = list(self.arrays), self.single, self._ids
        other.ghosts = self.ghosts
        other._starts, other._shifts, other._arrays = list(self._starts), list(self._shifts), list(self._arrays)
        other._row_starts, other._row_shifts = list(self._row_starts), list(self._row_shifts)
        other.end = self.end
        return other

    # --- building ---

    def add_rows(self, first: int, row: int) -> None:
        """Ids from `first` on have rows from `row` on."""
        self._starts.append(first)
        self._shifts.append(first - row)
        self._arrays.append(None)
        self._row_starts.append(row)
        self._row_shifts.append(first - row)

    def add_array(self, added: TaskArray) -> None:
        """Ids from the end on belong to an array."""
        self.arrays.append(added)
        self._starts.append(added.first)
        self._shifts.append(None)
        self._arrays.append(added)
        self.end = added.end

    def set_id(self, row: int, number: int) -> None:
        """The row of a block or a single member has this id towards others."""
        self._ids[row] = number

    # --- looking up ---

    def row(self, number: int) -> int:
        """Row of an id; -1 if it has none: it belongs to a block, or to nothing."""
        if not self.arrays:
            return number
        known = self.single.get(number)
        if known is not None:
            return known
        if number >= self.end:
            return -1
        shift = self._shifts[bisect_right(self._starts, number) - 1]
        return -1 if shift is None else number - shift

    def id(self, row: int) -> int:
        """Id of a row."""
        if not self.arrays:
            return row
        known = self._ids.get(row)
        if known is not None:
            return known
        return row + self._row_shifts[bisect_right(self._row_starts, row) - 1]

    def ids(self, rows: Iterable[int]) -> array[int]:
        """Ids of rows, in order."""
        if not self.arrays:
            return rows if isinstance(rows, array) else array("I", rows)
        return array("I", map(self.id, rows))

    def array_of(self, number: int) -> TaskArray | None:
        """The array to which an id belongs."""
        if number >= self.end:
            return None
        return self._arrays[bisect_right(self._starts, number) - 1]

    def member(self, number: int) -> tuple[Block, int, bool] | None:
        """Block, position in the array, whether it is the task; None if the id does not belong to a block."""
        found = self.array_of(number)
        if found is None:
            return None
        is_task, index = divmod(number - found.first, found.members)
        block = found.block_at(index)
        return None if block is None else (block, index, bool(is_task))

    def is_ghost(self, row: int) -> bool:
        """True if the row only stands for a run that is being stopped."""
        return bool(self.ghosts) and row in self.ghosts.values()

    def drop_ghost(self, row: int) -> None:
        """The run is stopped."""
        del self.ghosts[self._ids.pop(row)]

    def row_of_report(self, number: int, run: int, run_of: Sequence[int]) -> int:
        """Row of the task, block or ghost of which a worker reports a run; -1 if unknown. `run_of`: by row."""
        ghost = self.ghosts.get(number)
        if ghost is not None and run_of[ghost] == run:
            return ghost
        row = self.row(number)
        if row >= 0:
            return row
        found = self.member(number)
        return found[0].row if found is not None and found[2] and found[0].start == found[1] else -1

    def pieces(self, ids: Ids) -> Iterator[Piece]:
        """What these ids are, in order. An id that belongs to nothing comes as a row that nothing has."""
        if ids is not self._last_ids:  # each request asks several times
            self._last_ids, self._last_spans = ids, list(spans(ids))
        for first, stop in self._last_spans:
            yield from self.between(first, stop)

    def between(self, first: int, stop: int) -> Iterator[Piece]:
        """What the ids from `first` to before `stop` are, in order."""
        while first < stop:
            if first >= self.end:
                yield Piece(UNKNOWN, UNKNOWN + 1)
                return
            position = bisect_right(self._starts, first) - 1
            end = self._starts[position + 1] if position + 1 < len(self._starts) else self.end
            end = min(stop, end)
            found, shift = self._arrays[position], self._shifts[position]
            if found is not None:
                yield from self._members(found, first, end)
            else:
                assert shift is not None
                yield Piece(first - shift, end - shift)
            first = end

    def _members(self, found: TaskArray, first: int, stop: int) -> Iterator[Piece]:
        while first < stop:
            is_task, index = divmod(first - found.first, found.members)
            half_end = min(stop, found.first + (1 + is_task) * found.members)
            block = found.block_at(index)
            if block is None:
                row = self.single[first]
                yield Piece(row, row + 1)
                first += 1
            else:
                count = min(half_end - first, block.start + block.count - index)
                yield Piece(index, index + count, block, bool(is_task))
                first += count


UNKNOWN = 1 << 40
"""A row that nothing has."""


def spans(ids: Ids) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring ids, in the order given: (first, behind the last)."""
    if type(ids) is range:
        if ids:
            yield ids.start, ids.stop
        return
    count = len(ids)
    if count and ids[-1] - ids[0] == count - 1 and ids.tobytes() == array("I", range(ids[0], ids[0] + count)).tobytes():
        yield ids[0], ids[0] + count
        return
    first = stop = -1
    for number in ids:
        if number != stop:
            if stop >= 0:
                yield first, stop
            first = number
        stop = number + 1
    if stop >= 0:
        yield first, stop
