"""How many tasks and objects are in which state."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.states import DataObjectState, TaskState
from rain.server.core.graph import OBJECT, TASK

if TYPE_CHECKING:
    from rain.server.core.graph import Graph
    from rain.server.core.numbering import Piece


class Tally:
    """Numbers by state.

    Attributes:
        tasks: by TaskState. objects: by DataObjectState.
    """

    def __init__(self) -> None:
        self.tasks = array("I", bytes(4 * len(TaskState)))
        self.objects = array("I", bytes(4 * len(DataObjectState)))

    def add_rows(self, graph: Graph, start: int, stop: int) -> None:
        """Rows of single tasks and objects, those of a block as one task."""
        # All rows at once, kind and state of each in one byte: a loop over a million of them would hold the server up.
        kinds = int.from_bytes(graph.kind[start:stop], "little")
        states = int.from_bytes(graph.state[start:stop], "little")
        both = (kinds << 4 | states).to_bytes(stop - start, "little")
        for state in TaskState:
            self.tasks[state] += both.count(TASK << 4 | state)
        for status in DataObjectState:
            self.objects[status] += both.count(OBJECT << 4 | status)

    def add_piece(self, graph: Graph, piece: Piece) -> None:
        """Part of a selection of ids."""
        block = piece.block
        if block is None:
            self.add_rows(graph, piece.start, piece.stop)
        elif piece.is_task:
            self.tasks[graph.state[block.row]] += piece.stop - piece.start
        else:
            for index in range(piece.start, piece.stop):
                self.objects[block.state_of_output(graph, index)] += 1


def count_tasks(graph: Graph) -> array[int]:
    """All tasks of a session, by TaskState."""
    tally = Tally()
    tally.add_rows(graph, 0, len(graph))
    for row, block in graph.blocks.items():
        tally.tasks[graph.state[row]] += block.count - 1
    for row in graph.numbering.ghosts.values():
        tally.tasks[graph.state[row]] -= 1
    return tally.tasks
