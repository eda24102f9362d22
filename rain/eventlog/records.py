"""What the server core says of what happened: single events, and batches of them as columns. Pure.

The core makes records on the hot path: a batch takes over columns of the message that caused it, so nothing in a record
may be changed later. Ids are numbers inside a session.
"""

from __future__ import annotations

from array import array
from dataclasses import field
from functools import partial
from typing import Any

from rain.common.structs import dataclass
from rain.protocol.fields import F64, U32, U64, Blobs
from rain.protocol.messages import SubmitBlock, SubmitChunk


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    type: as in the column `event_type`. fields: the event without its type, ready for JSON; ids of tasks and objects
    are lists [session, number].
    """

    type: str
    session: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submit was taken: one ClientSubmit.

    first_template: number of the first template of `chunks`; they count on from there. chunks: as the client sent them,
    but for the values of constants.
    """

    session: int
    first_template: int
    chunks: list[SubmitChunk | SubmitBlock]


@dataclass(frozen=True, slots=True)
class RunsStarted:
    """Runs that a worker said it has begun: a TaskStarted each."""

    session: int
    worker: str
    tasks: U32
    runs: U32


@dataclass(frozen=True, slots=True)
class RunsFinished:
    """Runs that succeeded: per task a TaskStarted, unless there was one, a TaskFinished, and a DataObjectFinished for
    each output.

    starts: unix seconds; durations: seconds; infos: packed task infos, empty: all None. output_counts: outputs per
    task, empty: one each. outputs, sizes: ids and bytes of the outputs, flattened. announced: positions of tasks whose
    TaskStarted was logged before, rising.
    """

    session: int
    worker: str
    tasks: U32
    runs: U32
    starts: F64
    durations: F64
    infos: Blobs
    output_counts: U32
    outputs: U32
    sizes: U64
    announced: U32 = field(default_factory=partial(array, "I"))


@dataclass(frozen=True, slots=True)
class MembersFinished:
    """Consecutive members of a task array that one run computed: the same three events per member.

    task, output: ids of the first member's. start: unix seconds, of the first; the others follow one another.
    durations: seconds per member (an array of floats); sizes: bytes per output (an array of integers). is_announced: a
    TaskStarted was logged for the first member.
    """

    session: int
    worker: str
    task: int
    output: int
    run: int
    start: float
    durations: array[float]
    sizes: array[int]
    is_announced: bool


@dataclass(frozen=True, slots=True)
class TasksEnded:
    """Stretches of task ids that ended without success: one event each. type: `TaskCancelled` or `TaskAborted`."""

    session: int
    type: str
    firsts: U32
    counts: U32


@dataclass(frozen=True, slots=True)
class ObjectsUnkept:
    """The client does not want these data objects any more: one ClientUnkeep."""

    session: int
    objects: U32


Record = Event | Submitted | RunsStarted | RunsFinished | MembersFinished | TasksEnded | ObjectsUnkept
