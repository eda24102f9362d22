"""The messages with which a running cluster is looked into and steered: by the command line, the dashboard, clients.

See `rain.protocol.messages`, which offers them too. They may name any session, whoever opened it.
"""

from __future__ import annotations

from rain.common.structs import dataclass
from rain.protocol.fields import F64, U32, U64, Blobs, Map

# --- client to server ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListSessions:
    """Ask which sessions there are (session 0), or for all about one; answered by SessionList or Refused."""

    seq: int
    session: int


@dataclass(frozen=True, slots=True)
class ListTasks:
    """Ask for the tasks of a session whose ids are in `first` to `last`, rising; answered by TaskList or Refused.

    states: wanted TaskStates, one byte each; empty: all. name: wanted name; empty: all.
    """

    seq: int
    session: int
    first: int
    last: int
    states: bytes
    name: str


@dataclass(frozen=True, slots=True)
class ListObjects:
    """Ask for the data objects of a session whose ids are in `first` to `last`, rising; answered by ObjectList or
    Refused. kept: 0 all, 1 those that are kept, 2 those that are not. label: wanted label; empty: all."""

    seq: int
    session: int
    first: int
    last: int
    kept: int
    label: str


@dataclass(frozen=True, slots=True)
class GetSpecs:
    """Ask for the specs of tasks and objects; answered by Specs or Refused."""

    seq: int
    session: int
    ids: U32


@dataclass(frozen=True, slots=True)
class GetTaskLog:
    """Ask for what a task wrote; answered by TaskLog or Refused.

    stream: `stdout` or `stderr`. offset: bytes from the beginning of what it wrote. limit: most bytes of the answer.
    """

    seq: int
    session: int
    task: int
    stream: str
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class StopWorkers:
    """End workers by their ids; answered by Accepted when all are gone, or Refused.

    now: at once, as if they were lost; otherwise they finish what runs, and what only they hold is copied before.
    """

    seq: int
    workers: list[str]
    now: bool


@dataclass(frozen=True, slots=True)
class CheckNetwork:
    """Let every worker connect to the data port of every other one; answered by NetworkChecked."""

    seq: int


@dataclass(frozen=True, slots=True)
class Explain:
    """Ask why tasks and objects (200 at most) of any session are in their state; answered by Explained or Refused."""

    seq: int
    session: int
    ids: U32


@dataclass(frozen=True, slots=True)
class ExplainTasks:
    """Ask the same for all tasks of any session whose ids are in `first` to `last`; answered by TasksExplained or
    Refused."""

    seq: int
    session: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class GetDump:
    """Ask for everything the server and its workers know of themselves, but no data; answered by Dump."""

    seq: int


# --- server to client ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionList:
    """Answer to ListSessions: key sessions, a list of {session name state client on_failure age tasks objects}; of one
    asked for by number also {error kept}. state: open, failed. age: seconds since it was opened. tasks, objects:
    numbers by the names of their states. kept: list of {id label size state} of kept objects, at most 10,000, with
    kept_total. Of more than 10,000 sessions the newest; key total: how many there are."""

    seq: int
    sessions: Map


@dataclass(frozen=True, slots=True)
class TaskList:
    """Answer to ListTasks, in columns. names: the task's name or empty; workers: where it is or was, or empty; starts:
    unix seconds or 0; durations: seconds or 0, of what runs: until now. next: first id not looked at because the answer
    is long enough; 0: all was looked at."""

    seq: int
    ids: U32
    states: bytes
    names: list[str]
    types: list[str]
    workers: list[str]
    starts: F64
    durations: F64
    next: int


@dataclass(frozen=True, slots=True)
class ObjectList:
    """Answer to ListObjects, in columns. states: DataObjectState; kept: 0 or 1 each; producers: id of the task that
    makes it, 0 for a constant. next: as in TaskList."""

    seq: int
    ids: U32
    states: bytes
    labels: list[str]
    sizes: U64
    kept: bytes
    producers: U32
    next: int


@dataclass(frozen=True, slots=True)
class Specs:
    """Answer to GetSpecs: a packed map per id, in the order asked; of fewer ids than asked (the first ones) when the
    answer is long enough.

    Of a task: id, task_type, name, resources, config (absent if it is the arguments of a Python call), inputs
    and outputs (ids), input_labels, user, retries, timeout, priority; of an object: id, label, content_type,
    data_type, user, size_hint, kept, producer. What has its default is absent, but for id, task_type, inputs, outputs.
    Of a task that cannot run again inputs and config may have been dropped: then it has `released`.
    """

    seq: int
    specs: Blobs


@dataclass(frozen=True, slots=True)
class TaskLog:
    """Answer to GetTaskLog. offset: where `data` begins; size: bytes written so far; ended: the task writes no more;
    hint: why there is nothing, or not all; empty if there is nothing to say."""

    seq: int
    data: bytes
    offset: int
    size: int
    ended: bool
    hint: str


@dataclass(frozen=True, slots=True)
class NetworkChecked:
    """Answer to CheckNetwork: key workers, a list of {worker_id answered failures}, failures a list of {to error}."""

    seq: int
    result: Map


@dataclass(frozen=True, slots=True)
class Explained:
    """Answer to Explain: a text of one or more lines per id."""

    seq: int
    texts: list[str]


@dataclass(frozen=True, slots=True)
class TasksExplained:
    """Answer to ExplainTasks: a text for `counts` consecutive tasks from `ids` on, by rising id. next: the first id not
    looked at because the answer is long enough; 0: there is nothing more."""

    seq: int
    ids: U32
    counts: U32
    texts: list[str]
    next: int


@dataclass(frozen=True, slots=True)
class Dump:
    """Answer to GetDump: keys server, sessions, workers; all of it JSON. See docs/design/server-core.md."""

    seq: int
    dump: Map


# --- worker to server ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerMonitoring:
    """From time to time: {cpu_usage: [% per cpu], mem_usage: %, net_stat: {iface: [rx, tx]} (bytes since the machine
    started), store: {memory, disk} (bytes), executors: {state: number}, transfers: {received, sent} (bytes since the
    worker started)}."""

    info: Map


@dataclass(frozen=True, slots=True)
class TaskLogRead:
    """Answer to ReadTaskLog; fields as in TaskLog."""

    seq: int
    data: bytes
    offset: int
    size: int
    ended: bool
    hint: str


@dataclass(frozen=True, slots=True)
class PeersProbed:
    """Answer to ProbePeers: per address why it cannot be reached; empty: it can."""

    seq: int
    errors: list[str]


# --- server to worker ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadTaskLog:
    """Ask for what a task wrote that runs or ran at this worker; fields as in GetTaskLog."""

    seq: int
    session: int
    task: int
    stream: str
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class ProbePeers:
    """Ask whether these data addresses (`IP:PORT`) can be reached, with their handshake."""

    seq: int
    addresses: list[str]
