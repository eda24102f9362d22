"""The control messages between server and worker. See `rain.protocol.messages`, which offers them too."""

from __future__ import annotations

from array import array
from dataclasses import field
from functools import partial

from rain.common.structs import dataclass
from rain.protocol.fields import F64, U32, U64, Blobs, Map

# --- worker to server ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerHello:
    """First message of a worker. address: data port (`IP:PORT`; 0.0.0.0 = as the server sees it);
    resources: {"cpus": int, "gpus": [int], "memory": int, NAME: number}."""

    address: str
    resources: Map
    hostname: str
    pid: int
    python: str


@dataclass(frozen=True, slots=True)
class TasksStarted:
    """These runs were started and are not finished yet (of an executor's batch only the first)."""

    session: int
    tasks: U32
    runs: U32


@dataclass(frozen=True, slots=True)
class TasksDone:
    """Runs that succeeded. Their output columns are flattened in task order.

    starts: unix seconds; durations: seconds; infos: packed task infos; sizes: bytes;
    output_infos: packed object infos; values: values below the inline limit, else None.
    blocks: packed `rain.common.blocks.BlockResult` of a run of a block, else None. A block has no output in the
    columns, or, if its result ends with STORED, one: that of the member it names.
    """

    session: int
    tasks: U32
    runs: U32
    starts: F64
    durations: F64
    infos: Blobs
    sizes: U64
    output_infos: Blobs
    values: Blobs
    blocks: Blobs = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A run failed. start 0.0 = it never started."""

    session: int
    task: int
    run: int
    failure: Map
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class TasksReturned:
    """Runs given back before they started: withdrawn, or their inputs could not be had."""

    session: int
    tasks: U32
    runs: U32


@dataclass(frozen=True, slots=True)
class TasksStopped:
    """Answer to CancelTasks, when nothing of these runs is left."""

    session: int
    tasks: U32
    runs: U32


@dataclass(frozen=True, slots=True)
class ObjectsStored:
    """The worker now holds copies of these (after a transfer)."""

    session: int
    objects: U32


@dataclass(frozen=True, slots=True)
class ObjectsMissing:
    """The worker could not read the object from these holders, three attempts each.

    Its own address among them: its own copy is damaged; or, if `refused`, its store did not take the value that came
    with an assignment, and the tasks that need it there fail.
    """

    session: int
    object_id: int
    holders: list[str]
    refused: bool = False


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Answer to GetWorkerInfo: {tasks, objects, objects_to_delete: lists of [session, id]}; to a full one {state: map,
    log: lines}, all of it JSON."""

    seq: int
    info: Map


@dataclass(frozen=True, slots=True)
class WorkerDigest:
    """From time to time: what the worker holds, for comparison with what the server believes.

    heard: messages of the server it has taken in; runs: number of runs it has been given and has not reported as done,
    failed, returned or stopped; digest: `run_digest` of each of them, combined by exclusive or.
    """

    heard: int
    runs: int
    digest: int


@dataclass(frozen=True, slots=True)
class WorkerRuns:
    """Answer to ListRuns: the runs themselves. heard: as in WorkerDigest."""

    heard: int
    sessions: U32
    tasks: U32
    runs: U32


def run_digest(session: int, task: int, run: int) -> int:
    """64 bits of a run."""
    mixed = ((session * 0x9E3779B97F4A7C15 + task) * 0xBF58476D1CE4E5B9 + run) * 0x94D049BB133111EB
    return (mixed ^ (mixed >> 31)) & 0xFFFFFFFFFFFFFFFF


# --- server to worker ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerWelcome:
    """Answer to WorkerHello: the incarnation, the worker's id (`IP:PORT`), and the result cache (`rain.cache.opening`),
    empty: there is none."""

    incarnation: int
    worker_id: str
    cache: Map = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AssignTasks:
    """Tasks to run, best first.

    Attributes:
        template_numbers, templates: templates which this worker sees for the first time.
        tasks, runs, task_templates, args, input_counts, inputs, output_counts, outputs: columns as in SubmitChunk.
        members: 0 for a task; for a block of a task array the number of its members. A block goes by the task id of
            its first member; its members have consecutive ids; its one output is that of the first member; its args
            are a packed list of theirs, or a column of numbers (`rain.common.number_arguments`). Empty: no blocks.
        links: of linked blocks what `rain.common.links.pack_assigned` gave, None of others. Empty: no linked blocks.
        output_specs: packed object specs per output, None where the template's holds.
        solo: task ids that must not share an executor batch (they were running on a lost worker).
        objects, sizes, specs, infos, values, holders: the inputs which this worker does not hold. Either the
            value is inline or `holders` names data addresses, best first.
    """

    session: int
    template_numbers: U32
    templates: list[bytes]
    tasks: U32
    runs: U32
    task_templates: U32
    args: Blobs
    input_counts: U32
    inputs: U32
    output_counts: U32
    outputs: U32
    solo: U32
    objects: U32
    sizes: U64
    specs: Blobs
    infos: Blobs
    values: Blobs
    holders: list[list[str]]
    members: U32 = field(default_factory=partial(array, "I"))
    output_specs: Blobs = field(default_factory=list)
    links: Blobs = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WithdrawTasks:
    """Give back those of these runs that have not started, with TasksReturned."""

    session: int
    tasks: U32
    runs: U32


@dataclass(frozen=True, slots=True)
class CancelTasks:
    """Stop these runs; answered by TasksStopped, nothing else is reported about them any more.

    grace: seconds between SIGTERM and SIGKILL to the process groups of what runs; 0.0 = SIGKILL at once.
    """

    session: int
    tasks: U32
    runs: U32
    grace: float


@dataclass(frozen=True, slots=True)
class DeleteObjects:
    """These objects are not needed any more (delayed deletion, spec 6.2)."""

    session: int
    objects: U32


@dataclass(frozen=True, slots=True)
class EndSession:
    """Kill everything of the session and drop all its objects and templates, at once."""

    session: int


@dataclass(frozen=True, slots=True)
class GetWorkerInfo:
    """Ask for WorkerInfo; full: with `state` (what a dump holds of the worker) and `log` (its last lines)."""

    seq: int
    full: bool = False


@dataclass(frozen=True, slots=True)
class ListRuns:
    """Ask for WorkerRuns."""


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Kill everything, clean up and exit 0."""
