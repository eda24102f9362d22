"""The graph of one session as columns indexed by row.

Tasks and objects share one numbering, so they share the columns' index; `kind` tells which columns are
meaningful. Columns instead of records keep a waiting task below 500 bytes and the loops tight. Rows are ids until
the session has a task array (see `numbering`); inside of the core, tasks and objects go by their rows.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import KEEP
from rain.server.core.numbering import Numbering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.server.core.blocks import Block

ABSENT, OBJECT, TASK = 0, 1, 2

CONSTANT = 16
"""Object flag: uploaded by the client, has no producer."""
AT_STORE = 32
"""Object flag: the value lies in the constant store of the shell."""
AHEAD = 64
"""Task flag: assigned before its inputs are finished, and they are not yet."""

NOT_ASSIGNED, READY = int(TaskState.notAssigned), int(TaskState.ready)
ASSIGNED, RUNNING = int(TaskState.assigned), int(TaskState.running)
TASK_FINISHED, FAILED = int(TaskState.finished), int(TaskState.failed)
CANCELLED, ABORTED = int(TaskState.cancelled), int(TaskState.aborted)
"""States from TASK_FINISHED on are terminal."""
UNFINISHED, FINISHED = int(DataObjectState.unfinished), int(DataObjectState.finished)
REMOVED, OBJECT_ABORTED = int(DataObjectState.removed), int(DataObjectState.aborted)

MAX_ID = 1 << 31


class Graph:
    """Columns; one field per thing known of a task or an object.

    Tasks:
        template: number of the template. group: number of the duration group. args: packed config or arguments.
        inputs: ids in order, with repetitions. outputs: see `outputs_of`. missing: distinct inputs not finished.
        run: number of the last run given out, 0 before. worker: incarnation that has it, 0 = none.
        level: depth in the graph. start, duration: of the last finished run. last_worker: where it ran last.
    Objects:
        producer: task id, 0 for constants. consumers: None, one task id, or several. needed: unfinished distinct
        consumers. pins: distinct consumers that could still have to run again. flags: KEEP, CONSTANT, AT_STORE (of
        tasks: AHEAD). size: bytes. replicas: None, one incarnation, or a set. value: bytes held by the server, or None.

    A block of a task array (`blocks` by row) has the row of a task. Its outputs are those that were claimed.

    A column of tasks and one of objects may be the same storage under two names: an id is one or the other.
    """

    def __init__(self) -> None:
        self.kind = bytearray()
        self.state = bytearray()
        self.template = array("I")
        self.group = array("I")
        self.args: list[bytes | None] = []
        self.value = self.args
        self.inputs: list[tuple[int, ...]] = []
        self.only_output = array("I")
        self._outputs: dict[int, tuple[int, ...]] = {}
        self.missing = array("I")
        self.needed = self.missing
        self.run = array("I")
        self.pins = self.run
        self.worker = array("I")
        self.producer = self.worker
        self.level = array("I")
        self.start = array("d")
        self.duration = array("f")
        self.last_worker = array("I")
        self.consumers: list[int | array[int] | None] = []
        self.flags = bytearray()
        self.size = array("Q")
        self.replicas: list[int | set[int] | None] = []
        # Sparse: only what some tasks and objects have.
        self.distinct_inputs: dict[int, tuple[int, ...]] = {}
        self.spec: dict[int, bytes] = {}
        self.info: dict[int, bytes] = {}
        self.blocks: dict[int, Block] = {}
        self.numbering = Numbering()

    def __len__(self) -> int:
        return len(self.kind)

    def grow(self, size: int) -> None:
        """Make room for rows below `size`."""
        more = size - len(self.kind)
        if more <= 0:
            return
        self.kind.extend(bytes(more))
        self.state.extend(bytes(more))
        self.flags.extend(bytes(more))
        zeros = bytes(4 * more)
        for column in (
            self.template,
            self.group,
            self.missing,
            self.run,
            self.worker,
            self.level,
            self.duration,
            self.last_worker,
            self.only_output,
        ):
            column.frombytes(zeros)
        self.start.frombytes(bytes(8 * more))
        self.size.frombytes(bytes(8 * more))
        nothing = [None] * more
        self.args.extend(nothing)
        self.inputs.extend([()] * more)
        self.consumers.extend(nothing)
        self.replicas.extend(nothing)

    def is_task(self, number: int) -> bool:
        """True for rows of tasks and blocks."""
        return 0 <= number < len(self.kind) and self.kind[number] == TASK

    def is_object(self, number: int) -> bool:
        """True for rows of data objects."""
        return 0 <= number < len(self.kind) and self.kind[number] == OBJECT

    def distinct(self, task: int) -> tuple[int, ...]:
        """The inputs without repetitions."""
        return self.distinct_inputs.get(task) or self.inputs[task]

    def set_inputs(self, task: int, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Record the inputs of a task; returns them without repetitions."""
        self.inputs[task] = inputs
        if len(inputs) > 1:
            distinct = tuple(dict.fromkeys(inputs))
            if len(distinct) != len(inputs):
                self.distinct_inputs[task] = distinct
                return distinct
        return inputs

    def copy_inputs(self, task: int, other: int) -> None:
        """A new, unfinished task has the same inputs as another one."""
        self.inputs[other] = self.inputs[task]
        if task in self.distinct_inputs:
            self.distinct_inputs[other] = self.distinct_inputs[task]
        for obj in self.distinct(other):
            self.add_consumer(obj, other)
            self.needed[obj] += 1
            self.pins[obj] += 1

    def outputs_of(self, task: int) -> tuple[int, ...]:
        """Ids of the outputs of a task, in order."""
        only = self.only_output[task]
        return (only,) if only else self._outputs.get(task, ())

    def outputs_in_columns(self, tasks: Sequence[int]) -> tuple[array[int], array[int]]:
        """Rows of the outputs of tasks, flattened; how many each has, empty if one each."""
        column = array("I", map(self.only_output.__getitem__, tasks))
        if 0 not in column:
            return column, array("I")
        outputs = [self.outputs_of(task) for task in tasks]
        return array("I", [obj for one in outputs for obj in one]), array("I", map(len, outputs))

    def set_outputs(self, task: int, outputs: tuple[int, ...]) -> None:
        """Record the outputs of a task; nearly all have one, the others are sparse."""
        if len(outputs) == 1:
            self.only_output[task] = outputs[0]
            return
        self.only_output[task] = 0
        if outputs:
            self._outputs[task] = outputs
        else:
            self._outputs.pop(task, None)

    def add_consumer(self, obj: int, task: int) -> None:
        """Record that the task has the object as an input."""
        known = self.consumers[obj]
        if known is None:
            self.consumers[obj] = task
        elif isinstance(known, int):
            self.consumers[obj] = array("I", (known, task))
        else:
            known.append(task)

    def remove_consumer(self, obj: int, task: int) -> None:
        """The task does not have the object as an input any more."""
        known = self.consumers[obj]
        if known == task:
            self.consumers[obj] = None
        elif known is not None and not isinstance(known, int):
            known.remove(task)

    def consumers_of(self, obj: int) -> tuple[int, ...] | array[int]:
        """Tasks that have the object as an input."""
        known = self.consumers[obj]
        if known is None:
            return ()
        return (known,) if isinstance(known, int) else known

    def is_kept(self, obj: int) -> bool:
        """True while the keep flag is set."""
        return bool(self.flags[obj] & KEEP)

    def is_needed(self, obj: int) -> bool:
        """True while the object is kept or an unfinished task has it as input (spec 6.2)."""
        return bool(self.needed[obj]) or bool(self.flags[obj] & KEEP)

    def at_server(self, obj: int) -> bool:
        """True if the server has the value itself."""
        return self.value[obj] is not None or bool(self.flags[obj] & AT_STORE)

    def replicas_of(self, obj: int) -> tuple[int, ...] | set[int]:
        """Incarnations of the workers that hold a copy."""
        known = self.replicas[obj]
        if known is None:
            return ()
        return known if isinstance(known, set) else (known,)

    def add_replica(self, obj: int, worker: int) -> None:
        """Record a copy."""
        known = self.replicas[obj]
        if known is None:
            self.replicas[obj] = worker
        elif isinstance(known, set):
            known.add(worker)
        elif known != worker:
            self.replicas[obj] = {known, worker}

    def remove_replica(self, obj: int, worker: int) -> bool:
        """Forget a copy; True if there was one."""
        known = self.replicas[obj]
        if known is None:
            return False
        if isinstance(known, set):
            if worker not in known:
                return False
            known.discard(worker)
            if not known:
                self.replicas[obj] = None
            return True
        if known == worker:
            self.replicas[obj] = None
            return True
        return False

    def objects(self) -> list[int]:
        """Rows of all objects, rising."""
        return [n for n, kind in enumerate(self.kind) if kind == OBJECT]

    def tasks(self) -> list[int]:
        """Rows of all tasks and blocks, rising."""
        return [n for n, kind in enumerate(self.kind) if kind == TASK]
