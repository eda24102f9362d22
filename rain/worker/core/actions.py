"""What the worker core returns: things to do, in order. The shell obeys and reports by events."""

from __future__ import annotations

from typing import Any

from rain.common.structs import dataclass
from rain.protocol.messages import ProbePeers, ReadTaskLog, WorkerMessage
from rain.worker.core.events import ObjectKey, TaskKey


@dataclass(frozen=True, slots=True)
class TellServer:
    """Send a message; all of one turn go out together."""

    message: WorkerMessage


@dataclass(frozen=True, slots=True)
class StartExecutor:
    """Start a process; answered by ExecutorReady or ExecutorLost. type: `py` or a configured one; env: its extra
    environment as sorted pairs (value None removes)."""

    executor: int
    type: str
    env: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class KillExecutor:
    """End the process group; late events are dropped by the shell.

    grace: 0.0 = SIGKILL at once, no event follows; else SIGTERM, SIGKILL after so many seconds, and ExecutorStopped
    follows when nothing is left. A kill at once may follow one with grace; no event follows then.
    """

    executor: int
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class ForbidRun:
    """The executor shall not begin this run of its batch, nor those behind it: it ends when it comes to it.

    Answered by RunKept, unless the run began before.
    """

    executor: int
    key: TaskKey


@dataclass(slots=True)
class RunInput:
    """One input of a call, not to be changed. spec, info: packed or None; cached: the executor holds it decoded, send
    no value; live: an earlier run of the same batch makes it, nobody has the value yet."""

    object: ObjectKey
    spec: bytes | None
    info: bytes | None
    cached: bool
    live: bool = False


@dataclass(frozen=True, slots=True)
class RunLink:
    """What the members of a linked block use of each other. packed: as the server sent it; templates: number and
    unpacked map of each template; which: position among these of each member's, empty = all have the first."""

    packed: bytes
    templates: tuple[tuple[int, dict[str, Any]], ...]
    which: bytes

    def template(self, position: int) -> tuple[int, dict[str, Any]]:
        """That of a member."""
        return self.templates[self.which[position] if self.which else 0]


@dataclass(slots=True)
class Run:
    """One run of a task, as executors and built-ins need it.

    template: number within the session; template_data: the unpacked map (shared by all runs, not to be changed);
    args: packed config or arguments; outputs: object ids; gpus: the indices it may use (executors get them in their
    environment too); output_specs: packed specs of the outputs, None where the template's holds, empty = all do;
    members: of a block, which has the task and output ids of its first member and a list of packed arguments; 0: a
    task; link: of a linked block. Not to be changed; not frozen because that costs a microsecond each.
    """

    key: TaskKey
    template: int
    template_data: dict[str, Any]
    args: bytes | None
    inputs: tuple[RunInput, ...]
    outputs: tuple[int, ...]
    gpus: tuple[int, ...] = ()
    output_specs: tuple[bytes | None, ...] = ()
    members: int = 0
    link: RunLink | None = None


@dataclass(frozen=True, slots=True)
class CallExecutor:
    """Send a batch, which is run in order, or one block."""

    executor: int
    runs: list[Run]


@dataclass(frozen=True, slots=True)
class DropCached:
    """The executor shall forget decoded objects."""

    executor: int
    objects: list[ObjectKey]


@dataclass(frozen=True, slots=True)
class RunBuiltin:
    """Run a built-in task in the worker itself; answered by RunsEnded with executor 0."""

    run: Run


@dataclass(frozen=True, slots=True)
class StopBuiltin:
    """Stop it.

    grace: 0.0 = at once, no event follows; else programs get SIGTERM, SIGKILL after so many seconds, and BuiltinStopped
    follows when nothing is left. A stop at once may follow one with grace; no event follows then.
    """

    key: TaskKey
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look for the result of this run in the result cache; answered by LookedUp."""

    run: Run


@dataclass(frozen=True, slots=True)
class StopLookUp:
    """The result is not wanted any more, or the run, for which it was looked up in vain, came to nothing."""

    key: TaskKey


@dataclass(frozen=True, slots=True)
class KeepResult:
    """The run, for which the result was looked up in vain, succeeded: store it in the result cache.

    outputs: (size, packed object info or None) of each; their values are in the store now.
    """

    key: TaskKey
    outputs: list[tuple[int, bytes | None]]


@dataclass(frozen=True, slots=True)
class StoreValue:
    """Put an inline value, which came with an assignment, into the store."""

    object: ObjectKey
    value: bytes


@dataclass(frozen=True, slots=True)
class FetchObject:
    """Transfer a value from one of the holders (best first) into the store; answered by ObjectArrived or
    ObjectUnreachable."""

    object: ObjectKey
    size: int
    directory: bool
    holders: list[str]


@dataclass(frozen=True, slots=True)
class StopFetch:
    """Nobody needs it any more; no event follows."""

    object: ObjectKey


@dataclass(frozen=True, slots=True)
class DeleteValues:
    """Remove values from the store now."""

    objects: list[ObjectKey]


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read what a task wrote and tell the server."""

    request: ReadTaskLog


@dataclass(frozen=True, slots=True)
class Probe:
    """Try to reach other workers and tell the server."""

    request: ProbePeers


@dataclass(frozen=True, slots=True)
class Exit:
    """Clean up and end the process with this code."""

    code: int


WorkerAction = (
    TellServer
    | StartExecutor
    | KillExecutor
    | ForbidRun
    | CallExecutor
    | DropCached
    | RunBuiltin
    | StopBuiltin
    | LookUp
    | StopLookUp
    | KeepResult
    | StoreValue
    | FetchObject
    | StopFetch
    | DeleteValues
    | ReadLog
    | Probe
    | Exit
)
