"""Blocks: consecutive members of a task array that the server tracks as one row.

A block waits, is assigned, returned, cancelled and aborted like a task. It is *cut* into blocks that are assigned
apart; members leave it as *single* tasks with rows of their own when their fate differs from the others'.
Members that are inputs of other tasks before the block is finished have a row for their output (`claimed`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import field, replace
from itertools import accumulate
from operator import sub
from typing import TYPE_CHECKING

from rain.common.blocks import BlockResult, joined
from rain.common.links import Link
from rain.common.number_columns import WIDTH, column_value
from rain.common.structs import dataclass
from rain.protocol.messages import KEEP
from rain.server.core import linked
from rain.server.core.graph import (
    CONSTANT,
    FINISHED,
    NOT_ASSIGNED,
    OBJECT,
    OBJECT_ABORTED,
    READY,
    REMOVED,
    TASK,
    TASK_FINISHED,
    UNFINISHED,
    Graph,
)
from rain.server.core.linked import SHORTEST_MEMBER, template_of
from rain.server.core.numbering import TaskArray
from rain.server.core.story import inherit
from rain.server.core.waits import watch_again

if TYPE_CHECKING:
    from rain.common.failure import Failure
    from rain.common.number_arguments import NumberArguments
    from rain.server.core.session import Session
    from rain.server.core.state import ServerState

BLOCK_SECONDS = 0.05
"""Expected seconds of a block that is assigned."""
LEAST_SECONDS = 0.002
"""Work below which a block is not cut only to feed more cpus."""
FEWEST = 8
"""Members below which they run one by one."""


class Arguments:
    """Packed arguments of consecutive members, one after the other."""

    __slots__ = ("_data", "_offsets")

    def __init__(self, data: bytes, sizes: array[int]) -> None:
        self._data = data
        self._offsets = array("I", accumulate(sizes, initial=0))

    def one(self, position: int) -> bytes:
        """Those of one member."""
        return self._data[self._offsets[position] : self._offsets[position + 1]]

    def some(self, position: int, count: int) -> bytes:
        """Those of several members, as one packed list."""
        return joined(count, self._data[self._offsets[position] : self._offsets[position + count]])

    def size(self, position: int, count: int) -> int:
        """Bytes of those of several members."""
        return self._offsets[position + count] - self._offsets[position]


class NumberColumn:
    """The same for members that get one number each."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: NumberArguments) -> None:
        self._numbers = numbers

    def one(self, position: int) -> bytes:
        """Those of one member."""
        return self._numbers[position]

    def some(self, position: int, count: int) -> bytes:
        """Those of several members, as a marked column."""
        return self._numbers[position : position + count].marked()

    def size(self, _position: int, count: int) -> int:
        """Bytes of those of several members."""
        return WIDTH * count


class Results:
    """What the members of a finished block gave, by their position in the block; values only as long as kept.

    infos: the different object infos; column: code of a column of numbers; as in `BlockResult`.
    """

    __slots__ = ("_begins", "_kinds", "_offsets", "_values", "column", "durations", "infos")

    def __init__(self, result: BlockResult) -> None:
        self.durations = result.durations
        self._begins: array[float] | None = None
        self._offsets = array("I") if result.column else array("I", accumulate(result.sizes, initial=0))
        self._values = result.values
        self.infos = result.infos
        self.column = result.column
        self._kinds = result.kinds

    def begin(self, position: int) -> float:
        """Seconds between the start of the block and that of a member."""
        if self._begins is None:
            self._begins = array("d", accumulate(self.durations, initial=0.0))
        return self._begins[position]

    def size(self, position: int) -> int:
        """Bytes of a value."""
        if self.column:
            return len(self.value(position))
        return self._offsets[position + 1] - self._offsets[position]

    def value(self, position: int) -> bytes:
        """A value."""
        if self.column:
            return column_value(self.column, self._values, position)
        return self._values[self._offsets[position] : self._offsets[position + 1]]

    def info(self, position: int) -> bytes | None:
        """The packed object info of a value."""
        if not self.infos:
            return None
        return self.infos[self._kinds[position] if self._kinds else 0]

    def sizes(self, position: int, count: int) -> array[int]:
        """Bytes of several values; nothing of a column."""
        if self.column:
            return array("I")
        offsets = self._offsets
        ends = offsets[position + 1 : position + count + 1]
        return array("I", map(sub, ends, offsets[position : position + count]))

    def values(self, position: int, count: int) -> bytes:
        """Several values, one after the other."""
        if self.column:
            return self._values[WIDTH * position : WIDTH * (position + count)]
        return self._values[self._offsets[position] : self._offsets[position + count]]

    def kinds(self, position: int, count: int) -> bytes:
        """Positions in `infos` of those of several values."""
        return self._kinds[position : position + count] if self._kinds else bytes(count)

    def fitting(self, position: int, count: int, budget: int) -> int:
        """How many of several values have at most `budget` bytes together."""
        if self.column:
            return min(count, budget // WIDTH)
        limit = self._offsets[position] + budget
        return bisect_right(self._offsets, limit, position, position + count + 1) - 1 - position

    def drop_values(self) -> None:
        """Nobody wants them any more."""
        self._values = b""


@dataclass(slots=True, eq=False)
class Block:
    """Members `start` to `start + count` of an array.

    row: its row. args: arguments of the block it was cut from, whose first member was `origin`; None once finished or
    ended. keep: whether the outputs are kept, but for the positions `unkept`. claimed: rows of outputs by position.
    results: once finished. link: what members from `origin` on use of each other, None if nothing; groups: their
    duration groups, with the number of members.
    """

    row: int
    array: TaskArray
    start: int
    count: int
    keep: bool
    args: Arguments | NumberColumn | None
    origin: int
    unkept: set[int] = field(default_factory=set)
    claimed: dict[int, int] = field(default_factory=dict)
    results: Results | None = None
    link: Link | None = None
    groups: list[tuple[int, int]] = field(default_factory=list)

    @property
    def task(self) -> int:
        """Id of the first member's task, by which the block goes."""
        return self.array.task(self.start)

    @property
    def output(self) -> int:
        """Id of the first member's output."""
        return self.array.output(self.start)

    @property
    def packed_args(self) -> bytes:
        """The arguments of all members as one packed list, or as a marked column."""
        assert self.args is not None
        return self.args.some(self.start - self.origin, self.count)

    @property
    def sent_size(self) -> int:
        """Bytes of the arguments and the link."""
        assert self.args is not None
        size = self.args.size(self.start - self.origin, self.count)
        return size if self.link is None else size + 2 * len(self.link.references) + 2 * self.count

    def is_kept(self, index: int) -> bool:
        """Whether the output of a member is kept."""
        return self.keep and index not in self.unkept

    def state_of_output(self, graph: Graph, index: int) -> int:
        """DataObjectState of the output of a member."""
        claimed = self.claimed.get(index)
        if claimed is not None:
            return graph.state[claimed]
        state = graph.state[self.row]
        if state < TASK_FINISHED:
            return UNFINISHED
        if state > TASK_FINISHED:
            return OBJECT_ABORTED
        return FINISHED if self.is_kept(index) else REMOVED

    def are_kept(self, start: int, stop: int) -> bool:
        """Whether the outputs of these members are kept."""
        return self.keep and (not self.unkept or self.unkept.isdisjoint(range(start, stop)))

    def unkeep(self, start: int, stop: int) -> None:
        """The outputs of these members are not kept any more."""
        if stop - start < self.count:
            self.unkept.update(range(start, stop))
        if stop - start == self.count or len(self.unkept) == self.count:
            self.keep, self.unkept = False, set()
            if self.results is not None:
                self.results.drop_values()


def part_size(state: ServerState, session: Session, block: Block) -> int:
    """How many members to assign together, 0 if they are to run one by one."""
    if block.link is not None:
        return block.count if linked.runs_whole(session, block) else 0
    graph = session.graph
    group, template = session.groups[graph.group[block.row]], session.templates[graph.template[block.row]]
    seconds = group.seconds
    if seconds is None or group.one_by_one or block.count < FEWEST or not template.in_blocks:
        return 0
    seconds = max(seconds, SHORTEST_MEMBER)
    by_time = int(BLOCK_SECONDS / seconds)
    if by_time < FEWEST:
        return 0
    cpus = sum(worker.cpus for worker in state.workers.values()) or 1
    waiting = block.array.members - block.start  # at most, for they are assigned in order
    share = max(-(-waiting // cpus), int(LEAST_SECONDS / seconds), FEWEST)
    return min(block.count, by_time, share)


def cut(session: Session, block: Block, count: int) -> Block:
    """Make the first members a block of its own; returns it. What is left keeps the row."""
    graph, numbering = session.graph, session.graph.numbering
    row = new_row(session, block.row)
    graph.copy_inputs(block.row, row)
    first = Block(row, block.array, block.start, count, block.keep, block.args, block.origin)
    first.link, first.groups = block.link, block.groups
    stop = block.start + count
    first.unkept = {index for index in block.unkept if index < stop}
    block.unkept -= first.unkept
    for index in [index for index in block.claimed if index < stop]:
        row = first.claimed[index] = block.claimed.pop(index)
        graph.producer[row] = first.row
    for part in (first, block):
        graph.set_outputs(part.row, tuple(part.claimed.values()))
    block.start, block.count = stop, block.count - count
    graph.blocks[first.row] = first
    block.array.place(block)
    block.array.place(first)
    numbering.set_id(first.row, first.task)
    numbering.set_id(block.row, block.task)
    inherit(session, block.row, [first.row])
    if session.watch:
        watch_again(session, block.row, [first.row, block.row])
    return first


def new_row(session: Session, old: int) -> int:
    """A row for tasks like those of a block's row: same state, run and template."""
    graph = session.graph
    row = len(graph)
    graph.grow(row + 1)
    graph.kind[row] = TASK
    for column in (graph.state, graph.template, graph.group, graph.run, graph.level, graph.missing):
        column[row] = column[old]
    session.unfinished += 1
    if graph.state[row] == READY:
        session.ready += 1
    if old in session.returned:
        session.returned[row] = session.returned[old]
    return row


def single_out(session: Session, block: Block, count: int) -> list[int]:
    """The first members become tasks of their own, in the block's state; returns their rows.

    If these are all, the last of them keeps the block's row, and its place in the ready queue.
    """
    graph, numbering, members = session.graph, session.graph.numbering, block.array
    if count == block.count:
        block.array.remove(block)
        del graph.blocks[block.row]
    rows: list[int] = []
    outputs: list[int] = []
    old_args, start = block.args, block.start
    assert old_args is not None
    for index in range(start, start + count):
        is_last = index == start + block.count - 1
        row = block.row if is_last else new_row(session, block.row)
        if not is_last:
            graph.copy_inputs(block.row, row)
        graph.args[row] = old_args.one(index - block.origin)
        output = block.claimed.pop(index, 0) or new_output(session, block, index)
        graph.producer[output] = row
        graph.set_outputs(row, (output,))
        for number, single in ((members.task(index), row), (members.output(index), output)):
            numbering.single[number] = single
            numbering.set_id(single, number)
        rows.append(row)
        outputs.append(output)
    rest = []
    if count < block.count:
        block.start, block.count = start + count, block.count - count
        block.unkept = {index for index in block.unkept if index >= block.start}
        graph.set_outputs(block.row, tuple(block.claimed.values()))
        members.place(block)
        numbering.set_id(block.row, block.task)
        rest = [block.row]
    inherit(session, block.row, rows)
    if session.watch:
        watch_again(session, block.row, [*rows, *outputs, *rest])
    return rows


def new_output(session: Session, block: Block, index: int) -> int:
    """A row for the output of a member, not finished."""
    graph = session.graph
    row = len(graph)
    graph.grow(row + 1)
    graph.kind[row] = OBJECT
    graph.state[row] = UNFINISHED
    graph.flags[row] = KEEP if block.is_kept(index) else 0
    return row


def claim(session: Session, block: Block, index: int) -> int:
    """The output of this member becomes an input of other tasks: returns the row for it."""
    graph, numbering = session.graph, session.graph.numbering
    row = new_output(session, block, index)
    number = block.array.output(index)
    numbering.single[number] = row
    numbering.set_id(row, number)
    spec = spec_of_output(session, block, index)
    if spec is not None:
        graph.spec[row] = spec
    block.claimed[index] = row
    if block.results is None:
        graph.producer[row] = block.row
        graph.set_outputs(block.row, tuple(block.claimed.values()))
        if graph.state[block.row] > TASK_FINISHED:
            graph.state[row] = OBJECT_ABORTED
            session.blame[row] = failure_of_member(session.blame[block.row], block, index)
    else:
        settle_claim(graph, block, index)
    return row


def failure_of_member(failure: Failure, block: Block, index: int) -> Failure:
    """What a member of a block that ended blames: itself, if the block does so."""
    return failure if failure.task != block.task else replace(failure, task=block.array.task(index))


def spec_of_output(session: Session, block: Block, index: int) -> bytes | None:
    """The packed spec of the output of a member."""
    specs = session.templates[template_of(session, block, index)].output_specs
    return specs[0] if specs else None


def settle_claim(graph: Graph, block: Block, index: int) -> int:
    """The value of a claimed output is here: from now on it is like a constant; returns its row."""
    assert block.results is not None
    row, position = block.claimed[index], index - block.start
    graph.value[row] = block.results.value(position)
    graph.size[row] = block.results.size(position)
    info = block.results.info(position)
    if info is not None:
        graph.info[row] = info
    graph.producer[row] = 0
    graph.flags[row] |= CONSTANT
    graph.state[row] = FINISHED
    return row


def expected_seconds(session: Session, row: int) -> float:
    """Seconds to reckon with for a task or a block."""
    graph = session.graph
    group = session.groups[graph.group[row]]
    block = graph.blocks.get(row) if graph.blocks else None
    if block is None:
        return group.expected
    if block.link is not None:
        return linked.expected_seconds(session, block)
    return block.count * max(group.seconds or 0.0, SHORTEST_MEMBER)


def leave_run(session: Session, block: Block) -> int:
    """A ghost takes over the run of the block at a worker, which is to be stopped; the members are free to wait.

    The ghost keeps the row and with it the resources, the block gets a new one. Returns the row of the ghost.
    """
    graph, numbering = session.graph, session.graph.numbering
    ghost = block.row
    block.row = new_row(session, ghost)
    graph.copy_inputs(ghost, block.row)
    graph.state[block.row] = NOT_ASSIGNED
    del graph.blocks[ghost]
    graph.blocks[block.row] = block
    for row in block.claimed.values():
        graph.producer[row] = block.row
    graph.set_outputs(block.row, tuple(block.claimed.values()))
    graph.set_outputs(ghost, ())
    numbering.set_id(block.row, block.task)
    numbering.ghosts[block.task] = ghost
    if session.watch:
        watch_again(session, ghost, [block.row])
    return ghost
