"""What the worker core takes: facts, already happened. Messages of the server are events too.

A task is addressed by `TaskKey` (session, task id, run), an object by `ObjectKey` (session, object id).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rain.common.failure import Failure
from rain.common.structs import dataclass
from rain.protocol.messages import ServerToWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

TaskKey: TypeAlias = "tuple[int, int, int]"
ObjectKey: TypeAlias = "tuple[int, int]"


@dataclass(frozen=True, slots=True)
class ServerSaid:
    """A message of the server arrived."""

    message: ServerToWorker


@dataclass(frozen=True, slots=True)
class ServerLost:
    """The connection to the server ended: everything running is stopped, all data dropped."""


@dataclass(frozen=True, slots=True)
class BlockEnd:
    """What a run of a block told besides the columns of a task.

    packed: its `BlockResult`; ran: how many members ran, the one that ended the block included; stored: id of the one
    output that is in the store and stands in `RunResult.outputs` (the last member's that ran), None without.
    """

    packed: bytes
    ran: int
    stored: int | None = None


@dataclass(slots=True)
class RunResult:
    """A run that succeeded, or any end of a block that an executor told.

    outputs: per output of the task (size, packed object info or None, inline value or None); the shell has put the
    values into the store before this event. info: packed task info or None.
    """

    key: TaskKey
    start: float
    duration: float
    info: bytes | None
    outputs: list[tuple[int, bytes | None, bytes | None]]
    block: BlockEnd | None = None

    def stored(self, outputs: Sequence[int]) -> Sequence[int]:
        """Ids of the objects which the run put into the store; `outputs`: those of the run."""
        if self.block is None:
            return outputs
        return () if self.block.stored is None else (self.block.stored,)


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run failed. start: unix seconds, 0.0 if it never started."""

    key: TaskKey
    failure: Failure
    start: float
    duration: float

    def stored(self, outputs: Sequence[int]) -> Sequence[int]:
        """Nothing is in the store."""
        return ()


@dataclass(frozen=True, slots=True)
class RunSkipped:
    """A run that the executor did not begin: an earlier run of its batch was to make an input, and that run failed, or
    its value is not at hand there."""

    key: TaskKey

    def stored(self, outputs: Sequence[int]) -> Sequence[int]:
        """Nothing is in the store."""
        return ()


RunEnd: TypeAlias = RunResult | RunFailed | RunSkipped


@dataclass(frozen=True, slots=True)
class RunsEnded:
    """What one executor frame or one built-in task reported, in order.

    executor: its id, 0 for tasks run by the worker itself. cached: objects which the executor now holds decoded.
    """

    executor: int
    results: list[RunEnd]
    cached: list[ObjectKey]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """The answer to LookUp. result: what was found, its values are in the store; None: the run has to be done."""

    key: TaskKey
    result: RunResult | None


@dataclass(frozen=True, slots=True)
class ExecutorReady:
    """The executor registered."""

    executor: int


@dataclass(frozen=True, slots=True)
class ExecutorLost:
    """The executor's process ended, or never came up, without being told to.

    running: the task it had begun and not reported (None: none, or it never registered). failure: what to say of it
    (with log tails). Tasks of its batch other than `running` are not to blame.
    """

    executor: int
    running: TaskKey | None
    failure: Failure


@dataclass(frozen=True, slots=True)
class ExecutorStopped:
    """Nothing is left of an executor killed with grace; also told of one that had ended before the kill."""

    executor: int


@dataclass(frozen=True, slots=True)
class BuiltinStopped:
    """Nothing is left of a built-in task stopped with grace; also told of one that had ended before."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class RunKept:
    """A run that was forbidden to its executor has not begun and never will there."""

    executor: int
    key: TaskKey


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """A running task uses more than it asked for; text: what is said of it."""

    key: TaskKey
    text: str


@dataclass(frozen=True, slots=True)
class ObjectArrived:
    """A transfer is complete, the value is in the store."""

    object: ObjectKey
    size: int


@dataclass(frozen=True, slots=True)
class ObjectUnreachable:
    """A transfer failed at all holders given, three attempts each."""

    object: ObjectKey
    holders: list[str]
    reason: str


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store cannot hold or read a value (disk full, damaged file); the copy here counts as lost. refused: it came
    with an assignment, and the store did not take it."""

    object: ObjectKey
    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed (sent about every 0.5 s, and when the core's next deadline is reached)."""


WorkerEvent = (
    ServerSaid
    | ServerLost
    | RunsEnded
    | LookedUp
    | ExecutorReady
    | ExecutorLost
    | ExecutorStopped
    | BuiltinStopped
    | RunKept
    | LimitExceeded
    | ObjectArrived
    | ObjectUnreachable
    | StoreFailed
    | Tick
)
