"""What is known of a session, as columns indexed by id.

Nothing is kept per task but what these columns hold (43 bytes, a run included), so that a session of millions of tasks
can be looked at; specs and texts are read from the log when somebody asks.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

from rain.dashboard.names import NODE_BYTES, Names, Node
from rain.dashboard.runs import Runs, sound_duration
from rain.dashboard.series import Series
from rain.dashboard.states import CONSTANT, FINISHED, NOTHING, OBJECT, RUNNING, STATES, WAITING

LARGE = 0xFFFFFFFF
"""In the column of numbers: the size is in `large`."""
MOST_NOTES = 16
"""Notes of a task; the first and the newest stay."""
LONGEST_TEXT = 4000

_ID_BYTES = 9
_NOTE_BYTES = 250
_EDGE_BYTES = 150
_TEMPLATE_BYTES = 150
_SUBMIT_BYTES = 150


class Note(NamedTuple):
    """Something unusual that happened to a task.

    time: unix seconds. event: its id in the log; 0: the run of this number began.
    """

    time: float
    event: int
    run: int = 0


SEVERAL = -1
"""Template of a task array whose members have different ones."""


class Extent(NamedTuple):
    """A task array: ids from `first` on are its outputs, then come its tasks."""

    first: int
    members: int
    template: int

    @property
    def end(self) -> int:
        """The first id behind it."""
        return self.first + 2 * self.members


class SubmitPlace(NamedTuple):
    """Where a submit is in the log. lowest, highest: ids of its tasks and objects."""

    lowest: int
    highest: int
    event: int
    time: float


class SessionView:
    """One session.

    Attributes:
        number, name, client, on_failure, status, created, ended, message: as in answers.
        kinds: what each id is (`states`). links: of a task its template, of an output its producer. numbers: of a task
            its last run (0: none), of an object its size in bytes. large: sizes above 4 GiB.
        names: templates and the tree of names. runs: who ran what when. running: tasks that run.
        arrays: task arrays by rising ids. submits: in order. edges: how often tasks of one name use what those of
            another made: by index of the one's node << 32 | the other's.
        notes: of tasks to which something unusual happened. retries: how often tasks were tried again. infos: ids in
            the log of batches with infos, and the tasks that have one there. endings: when which stretches of tasks
            (first ids, lengths) were cancelled or aborted.
        submitted: number of submits. objects: number of data objects. size: bytes of finished ones. chart: unprocessed
            tasks over time.
        first_error: {task, name, message}. is_reduced: only the summary is left.
    """

    def __init__(self, number: int, created: float) -> None:
        self.number = number
        self.name = ""
        self.client = ""
        self.on_failure = "fail"
        self.status = "open"
        self.created = created
        self.ended: float | None = None
        self.message = ""
        self.submitted = 0
        self.objects = 0
        self.size = 0
        self.first_error: dict[str, Any] | None = None
        self.counts = [0] * len(STATES)
        self.is_reduced = False
        self._clear()

    def _clear(self) -> None:
        self.kinds = bytearray()
        self.links = array("I")
        self.numbers = array("I")
        self.large: dict[int, int] = {}
        self.names = Names()
        self.runs = Runs()
        self.running: set[int] = set()
        self.arrays: list[Extent] = []
        self.submits: list[SubmitPlace] = []
        self.edges: dict[int, int] = {}
        self.notes: dict[int, list[Note]] = {}
        self.retries: dict[int, int] = {}
        self.infos: list[tuple[int, array[int]]] = []
        self.endings: list[tuple[float, array[int], array[int]]] = []
        self.chart = Series(2)

    def reduce(self) -> None:
        """Keep only the summary."""
        self.counts = self.task_counts()
        self.is_reduced = True
        self._clear()

    # --- asking ---

    def task_counts(self) -> list[int]:
        """Tasks by state."""
        return self.counts if self.is_reduced else self.names.root.counts

    @property
    def total(self) -> int:
        """Number of tasks."""
        return sum(self.task_counts())

    @property
    def bytes(self) -> int:
        """Memory, roughly."""
        notes = 2 * len(self.notes) + len(self.retries) + len(self.large)
        return (
            _ID_BYTES * len(self.kinds)
            + self.runs.bytes
            + NODE_BYTES * len(self.names.nodes)
            + _TEMPLATE_BYTES * len(self.names.leaves)
            + _EDGE_BYTES * len(self.edges)
            + _NOTE_BYTES * notes
            + _SUBMIT_BYTES * (len(self.submits) + len(self.infos) + len(self.endings))
            + sum(8 * len(firsts) for _, firsts, _ in self.endings)
            + 4 * sum(len(tasks) for _, tasks in self.infos)
        )

    def state(self, task: int) -> int:
        """State of a task; NOTHING if there is none with this id."""
        kind = self.kinds[task] if 0 <= task < len(self.kinds) else NOTHING
        return kind if kind < OBJECT else NOTHING

    def leaf(self, task: int) -> Node:
        """The node of its name."""
        return self.names.leaves[self.links[task]]

    def size_of(self, obj: int) -> int:
        """Bytes of an object; 0 if not known."""
        size = self.numbers[obj]
        return self.large[obj] if size == LARGE else size

    def summary(self) -> dict[str, Any]:
        """What lists of sessions show."""
        return {
            "id": self.number,
            "name": self.name,
            "status": self.status,
            "client": self.client,
            "created": self.created,
            "ended": self.ended,
            "message": self.message,
            "submits": self.submitted,
            "objects": self.objects,
            "tasks": {"total": self.total, **dict(zip(STATES, self.task_counts(), strict=True))},
        }

    # --- changing ---

    def grow(self, size: int) -> None:
        """Make room for ids below `size`."""
        more = size - len(self.kinds)
        if more > 0:
            self.kinds.extend(bytes(more))
            self.links.frombytes(bytes(4 * more))
            self.numbers.frombytes(bytes(4 * more))

    def set_size(self, obj: int, size: int) -> None:
        """An object has been made."""
        if not 0 <= obj < len(self.kinds) or not OBJECT <= self.kinds[obj] < CONSTANT:
            return
        self.size += size - self.size_of(obj)
        if size >= LARGE:
            self.large[obj] = size
        self.numbers[obj] = min(size, LARGE)

    def move(self, task: int, state: int) -> None:
        """A task has another state."""
        self.leaf(task).move(self.kinds[task], state, 1)
        self.kinds[task] = state

    def begin(self, task: int, worker: int, start: float) -> None:
        """A run began."""
        if self.kinds[task] != WAITING:
            self.reopen(task, start)
        self.numbers[task] = self.runs.begin(task, worker, start)
        self.running.add(task)
        self.move(task, RUNNING)

    def stop(self, task: int, time: float) -> None:
        """If the task runs, this run came to nothing."""
        if task in self.running:
            self.running.discard(task)
            run = self.numbers[task]
            start = self.runs.starts[run]
            self.runs.end(run, start, sound_duration(time - start), is_failed=True)

    def reopen(self, task: int, time: float) -> None:
        """A task that ran or ended will run again."""
        state, run = self.kinds[task], self.numbers[task]
        if state == WAITING:
            return
        if state == FINISHED:
            self.add_seconds(task, -1)
        self.stop(task, time)
        if run:
            self.note(task, Note(self.runs.starts[run], 0, run))
        self.numbers[task] = 0
        self.move(task, WAITING)

    def add_seconds(self, task: int, sign: int) -> None:
        """The last run of a task counts, or does not any more."""
        seconds = self.runs.durations[self.numbers[task]]
        self.leaf(task).add_seconds(sign * seconds, sign * seconds * seconds)

    def note(self, task: int, note: Note) -> None:
        """Something unusual happened to a task."""
        notes = self.notes.setdefault(task, [])
        if len(notes) >= MOST_NOTES:
            del notes[1]
        notes.append(note)

    def add_to_chart(self, time: float) -> None:
        """Note how many tasks are unprocessed now."""
        counts = self.names.root.counts
        self.chart.add(time, counts[WAITING - 1] + counts[RUNNING - 1])

    def end(self, time: float, status: str, message: str, fate: int) -> None:
        """The session ended; what is not processed gets this state."""
        self.status, self.ended, self.message = status, time, message[:LONGEST_TEXT]
        for task in list(self.running):
            self.stop(task, time)
        unfinished = WAITING, RUNNING
        self.kinds = self.kinds.translate(bytes(fate if kind in unfinished else kind for kind in range(256)))
        for node in self.names.nodes:
            for state in unfinished:
                node.counts[fate - 1] += node.counts[state - 1]
                node.counts[state - 1] = 0
