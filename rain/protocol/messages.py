"""Every control message between client, server and worker, as frozen dataclasses.

Hot messages carry *columns*: `array.array` values whose elements belong together by position.
Their type code is named in the annotation (`U32 = array("I")` ...). `Blobs` are lists of bytes or None. A list that
would be all None is sent as the empty list. `seq` pairs a request with its answer: the asking side chooses it, unique
per connection and > 0.
Ids in messages are the numbers inside a session (the second part of `rain.common.ids.ID`).

Packed maps (`bytes` made by msgpack, str keys):
  template     task_type, config, resources, name, user, retries, timeout, priority, cache, env,
               labels (input labels, absent when none), outputs (list of object specs). Absent = default.
               With `config` present, it is the task's config (all tasks alike), and `args` are
               the packed arguments of a Python call, if any; without it `args` is the packed config.
  object spec  label, content_type, data_type ("blob"/"dir"), user, size_hint. Absent = default.
  object info  content_type, user, debug, error. Absent = default (size travels in a column).
  task info    user, debug. Absent = default.

Packed arguments of a Python call (task types `py` and `py/`): msgpack `[args, kwargs]`; values of exact type
int (64 bit), float, str, bytes, bool, None are msgpack; every other value is ExtType(1, pickle).
"""

from __future__ import annotations

from rain.common.structs import dataclass
from rain.protocol.fields import U32, U64, Blobs, Ids, Map
from rain.protocol.steering_messages import (
    CheckNetwork as CheckNetwork,
    Dump as Dump,
    Explain as Explain,
    Explained as Explained,
    ExplainTasks as ExplainTasks,
    GetDump as GetDump,
    GetSpecs as GetSpecs,
    GetTaskLog as GetTaskLog,
    ListObjects as ListObjects,
    ListSessions as ListSessions,
    ListTasks as ListTasks,
    NetworkChecked as NetworkChecked,
    ObjectList as ObjectList,
    PeersProbed as PeersProbed,
    ProbePeers as ProbePeers,
    ReadTaskLog as ReadTaskLog,
    SessionList as SessionList,
    Specs as Specs,
    StopWorkers as StopWorkers,
    TaskList as TaskList,
    TaskLog as TaskLog,
    TaskLogRead as TaskLogRead,
    TasksExplained as TasksExplained,
    WorkerMonitoring as WorkerMonitoring,
)
from rain.protocol.worker_messages import (
    AssignTasks as AssignTasks,
    CancelTasks as CancelTasks,
    DeleteObjects as DeleteObjects,
    EndSession as EndSession,
    GetWorkerInfo as GetWorkerInfo,
    ListRuns as ListRuns,
    ObjectsMissing as ObjectsMissing,
    ObjectsStored as ObjectsStored,
    StopWorker as StopWorker,
    TaskFailed as TaskFailed,
    TasksDone as TasksDone,
    TasksReturned as TasksReturned,
    TasksStarted as TasksStarted,
    TasksStopped as TasksStopped,
    WithdrawTasks as WithdrawTasks,
    WorkerDigest as WorkerDigest,
    WorkerHello as WorkerHello,
    WorkerInfo as WorkerInfo,
    WorkerRuns as WorkerRuns,
    WorkerWelcome as WorkerWelcome,
)

KEEP = 1
"""Object flag: the object is kept."""
INLINE = 2
"""Object flag: the value is in `values` of the same chunk."""
UPLOADED = 4
"""Object flag: the value came before, in pieces."""
SAME = 8
"""Object flag: a constant equal to another one of the session; its entry in `values` is that one's id, `<I`."""

WAIT_ALL, WAIT_SOME, WAIT_SESSION = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Either direction: nothing but a sign of life."""


# --- client to server ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewSession:
    """Open a session; answered by SessionCreated or Refused."""

    seq: int
    name: str
    on_failure: str
    persistent: bool


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Close a session; answered by Accepted, also when it had failed or is not known any more."""

    seq: int
    session: int


@dataclass(frozen=True, slots=True)
class ConstantPiece:
    """A piece of a large constant, sent in order before the chunk that declares the object; not answered."""

    session: int
    object_id: int
    offset: int
    total: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SubmitChunk:
    """A part of a submit; staged by the server until SubmitCommit; not answered.

    Attributes:
        templates: packed templates. Template numbers count from 0 in a session, over all chunks.
        tasks, task_templates: ids and template numbers.
        args: packed config or arguments per task.
        input_counts, inputs: number of inputs per task; their ids, flattened, in order, with repetitions.
        output_counts, outputs, output_flags: the same for outputs; a flag byte (KEEP) per output.
        objects, object_flags, object_specs: constants, and outputs whose spec or flags differ from the template.
        values: values of objects flagged INLINE or SAME, in order.
    """

    session: int
    templates: list[bytes]
    tasks: U32
    task_templates: U32
    args: Blobs
    input_counts: U32
    inputs: U32
    output_counts: U32
    outputs: U32
    output_flags: bytes
    objects: U32
    object_flags: bytes
    object_specs: Blobs
    values: Blobs


@dataclass(frozen=True, slots=True)
class SubmitBlock:
    """Consecutive members of a task array; staged like a SubmitChunk, with which it may alternate; not answered.

    Attributes:
        templates: packed new templates, as in SubmitChunk.
        template: number of the members' template, which has one output.
        first: id of the first output of the array; the ids of its outputs are followed by those of its tasks.
        members: number of members of the array.
        start: position in the array of the block's first member.
        inputs: ids of the inputs of every member.
        keep: whether the outputs are kept.
        args: packed arguments of the members, one after the other.
        arg_sizes: their sizes; the number of elements is the number of members of the block.
        link: what members of a linked block use of each other; `inputs` are the block's (`rain.common.links`). Or empty
        keeps: of a linked block with `keep` which outputs are kept, KEEP or 0 each; empty: all.
        column: code of a column of numbers, which `args` is then: each member gets one; "" = it is not.
    """

    session: int
    templates: list[bytes]
    template: int
    first: int
    members: int
    start: int
    inputs: U32
    keep: bool
    args: bytes
    arg_sizes: U32
    link: bytes = b""
    keeps: bytes = b""
    column: str = ""


@dataclass(frozen=True, slots=True)
class SubmitCommit:
    """Commit what was staged, all or nothing; answered by Accepted or Refused. Aborted when `discard`."""

    seq: int
    session: int
    discard: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for tasks and objects; answered by WaitDone or Refused when the condition holds.

    mode: WAIT_ALL all of `ids` finished, WAIT_SOME at least one, WAIT_SESSION no unfinished task left.
    """

    seq: int
    session: int
    mode: int
    ids: U32


@dataclass(frozen=True, slots=True)
class StopWaiting:
    """Forget the Wait or FetchObjects with this `waiting` seq (timeout, Ctrl-C); not answered."""

    waiting: int


@dataclass(frozen=True, slots=True)
class FetchObjects:
    """Ask for values; answered by ObjectsFetched when all are finished, or Refused.

    unreachable: addresses of holders from which this client could not read; the server then
    offers others, relays, or recomputes. joined: the answer may end before the last
    id, but not before the first, and may be ValuesFetched.
    """

    seq: int
    session: int
    ids: Ids
    unreachable: list[str]
    joined: bool = False


@dataclass(frozen=True, slots=True)
class UnkeepObjects:
    """Take the keep flag away; answered by Accepted or Refused."""

    seq: int
    session: int
    ids: U32


@dataclass(frozen=True, slots=True)
class GetInfos:
    """Ask for states and infos of tasks and objects; answered by Infos or Refused."""

    seq: int
    session: int
    ids: U32


@dataclass(frozen=True, slots=True)
class GetStates:
    """Ask for states alone, of many; answered by States or Refused. ids empty: all tasks of the session, rising."""

    seq: int
    session: int
    ids: U32


@dataclass(frozen=True, slots=True)
class GetCounts:
    """Ask how many tasks and objects are in which state; answered by Counts or Refused. firsts, counts: stretches of
    ids, rising; none: all tasks of the session."""

    seq: int
    session: int
    firsts: U32
    counts: U32


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel these tasks, all unfinished ones if `ids` is empty; answered by Cancelled when none of them runs."""

    seq: int
    session: int
    ids: U32


@dataclass(frozen=True, slots=True)
class GetServerInfo:
    """Ask for `Client.get_server_info`; answered by ServerInfo."""

    seq: int


@dataclass(frozen=True, slots=True)
class StopServer:
    """End workers and server in order; answered by Accepted just before the end."""

    seq: int


# --- server to client ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """Answer to NewSession."""

    seq: int
    session: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is done."""

    seq: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The request failed. failure: map of rain.common.failure.Failure."""

    seq: int
    failure: Map


@dataclass(frozen=True, slots=True)
class WaitDone:
    """Answer to Wait; WAIT_SOME: ids of the finished ones, else empty."""

    seq: int
    ids: U32


@dataclass(frozen=True, slots=True)
class ObjectsFetched:
    """Answer to FetchObjects, columns in the order asked.

    specs: packed object specs; infos: packed object infos; values: inline values, None where
    the value is at one of `holders` (data addresses, `IP:PORT`, best first).
    """

    seq: int
    sizes: U64
    specs: Blobs
    infos: Blobs
    values: Blobs
    holders: list[list[str]]


@dataclass(frozen=True, slots=True)
class ValuesFetched:
    """Answer to FetchObjects with `joined`: the first of the values asked for, at least one.

    sizes, values: bytes of each; the values one after the other. infos: the different packed object infos among theirs;
    kinds: position in `infos` of each value's, one byte; empty: all have the first, or there is none. column: code of a
    column of numbers (`rain.common.number_columns`), which `values` is then, without `sizes`; empty = it is not.
    """

    seq: int
    sizes: U32
    values: bytes
    infos: Blobs
    kinds: bytes
    column: str


@dataclass(frozen=True, slots=True)
class Infos:
    """Answer to GetInfos, columns in the order asked.

    states: one byte each (TaskState or DataObjectState); infos: per task a packed map of TaskInfo
    (error start_time duration governor user debug attempts cached exception; start_time in unix seconds as float),
    per object a packed map of ObjectInfo (size content_type user debug error); None where nothing is known.
    """

    seq: int
    states: bytes
    infos: Blobs


@dataclass(frozen=True, slots=True)
class States:
    """Answer to GetStates: one byte each (TaskState or DataObjectState)."""

    seq: int
    states: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """Answer to GetCounts: numbers by TaskState and by DataObjectState. failure: of the first task of the session that
    failed, in one line; empty: none has."""

    seq: int
    tasks: U32
    objects: U32
    failure: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Answer to Cancel: the tasks that were stopped before their end."""

    seq: int
    ids: U32


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Answer to GetServerInfo: keys server {version address http_url uptime sessions} and workers, a list of
    {worker_id, tasks, objects, objects_to_delete (lists of [session, id]), resources, hostname, pid}."""

    seq: int
    info: Map


@dataclass(frozen=True, slots=True)
class SessionWarning:
    """Unasked: the client's next or pending blocking call on the session issues a RainWarning."""

    session: int
    text: str


ClientMessage = (
    NewSession
    | CloseSession
    | ConstantPiece
    | SubmitChunk
    | SubmitBlock
    | SubmitCommit
    | Wait
    | StopWaiting
    | FetchObjects
    | UnkeepObjects
    | GetInfos
    | GetStates
    | GetCounts
    | Cancel
    | GetServerInfo
    | Explain
    | ExplainTasks
    | GetDump
    | StopServer
    | ListSessions
    | ListTasks
    | ListObjects
    | GetSpecs
    | GetTaskLog
    | StopWorkers
    | CheckNetwork
)
WorkerMessage = (
    WorkerHello
    | TasksStarted
    | TasksDone
    | TaskFailed
    | TasksReturned
    | TasksStopped
    | ObjectsStored
    | ObjectsMissing
    | WorkerInfo
    | WorkerDigest
    | WorkerRuns
    | WorkerMonitoring
    | TaskLogRead
    | PeersProbed
)
ServerToClient = (
    SessionCreated
    | Accepted
    | Refused
    | WaitDone
    | ObjectsFetched
    | ValuesFetched
    | Infos
    | States
    | Counts
    | Cancelled
    | ServerInfo
    | Explained
    | TasksExplained
    | Dump
    | SessionWarning
    | SessionList
    | TaskList
    | ObjectList
    | Specs
    | TaskLog
    | NetworkChecked
)
ServerToWorker = (
    WorkerWelcome
    | AssignTasks
    | WithdrawTasks
    | CancelTasks
    | DeleteObjects
    | EndSession
    | GetWorkerInfo
    | ListRuns
    | StopWorker
    | ReadTaskLog
    | ProbePeers
)
Message = Heartbeat | ClientMessage | WorkerMessage | ServerToClient | ServerToWorker
