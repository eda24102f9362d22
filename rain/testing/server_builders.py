"""A server core under a script: peers join, say things, and every message sent must be looked at."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack

from rain.common.blocks import STORED, BlockResult
from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.actions import Record, Send, ServerAction
from rain.server.core.core import ServerCore
from rain.server.core.events import PeerJoined, PeerLeft, PeerSaid, ServerEvent, Tick
from rain.server.core.state import CoreOptions
from rain.testing.linking import LinkedMember, linked_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rain.eventlog.records import Record as EventRecord
    from rain.server.core.session import Session

MessageType = TypeVar("MessageType")


def u32(numbers: Iterable[int] = ()) -> array[int]:
    """A column of ids."""
    return array("I", numbers)


def block_result(
    count: int,
    end: str | dict[str, Any] | None = None,
    value: bytes = b"v",
    seconds: float = 0.001,
    info: bytes | None = None,
) -> BlockResult:
    """What a worker reports of a block of which `count` members succeeded with equal values."""
    start, duration = (0.0, 0.0) if end is None else (1.0, seconds)
    return BlockResult(
        durations=array("f", [seconds]) * count,
        sizes=array("I", [len(value)]) * count,
        values=value * count,
        infos=[] if info is None else [info],
        end=end,
        start=start,
        duration=duration,
    )


class SubmitBuilder:
    """Builds a submit of one chunk and the blocks behind it; ids are given by hand so that tests read as stories."""

    def __init__(self) -> None:
        self.templates: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self.tasks: list[tuple[int, int, bytes | None, tuple[int, ...], tuple[int, ...], bytes]] = []
        self.objects: list[tuple[int, int, bytes | None, bytes | None]] = []
        self.blocks: list[tuple[int, int, int, tuple[int, ...], bool, list[bytes]]] = []
        self.links: list[tuple[int, int, int, list[LinkedMember]]] = []

    def template(self, **fields: Any) -> int:
        """Number of the template with these fields."""
        fields.setdefault("task_type", "py/")
        packed: bytes = msgpack.packb(fields)
        if packed not in self._known:
            self._known[packed] = len(self.templates)
            self.templates.append(packed)
        return self._known[packed]

    def task(
        self,
        number: int,
        inputs: Iterable[int] = (),
        outputs: Iterable[int] = (),
        keep: bool = False,
        args: bytes | None = None,
        **fields: Any,
    ) -> SubmitBuilder:
        """Add a task; keep: of all its outputs."""
        outputs = tuple(outputs)
        fields.setdefault("outputs", [{} for _ in outputs])
        flags = bytes([m.KEEP if keep else 0]) * len(outputs)
        self.tasks.append((number, self.template(**fields), args, tuple(inputs), outputs, flags))
        return self

    def array(
        self,
        first: int,
        members: int,
        inputs: Iterable[int] = (),
        keep: bool = True,
        per_block: int = 20_000,
        **fields: Any,
    ) -> SubmitBuilder:
        """Add a task array with these inputs of each member. Its ids are those of the outputs from `first` on, then
        those of the tasks; a member's arguments tell its position. per_block: members of one SubmitBlock."""
        template = self.template(outputs=[{}], **fields)
        for start in range(0, members, per_block):
            args = [member_args(index) for index in range(start, min(start + per_block, members))]
            self.blocks.append((template, first, members, tuple(inputs), keep, args))
        return self

    def linked(
        self,
        first: int,
        inputs: Sequence[Iterable[int]],
        keep: Iterable[int] | None = None,
        names: Sequence[str] = (),
        per_block: int = 4096,
        **fields: Any,
    ) -> SubmitBuilder:
        """Add a task array in linked blocks.

        Args:
            first: id of the first output; those of the others and of the tasks follow.
            inputs: ids of those of each member, its function first.
            keep: positions of the members whose outputs are kept; None: all.
            names: of each member; empty: none has one.
            per_block: members of one block.
            fields: of the templates.
        """
        kept = set(range(len(inputs)) if keep is None else keep)
        made = []
        for position, own in enumerate(inputs):
            named = {"name": names[position], **fields} if names else fields
            number = self.template(outputs=[{}], **named)
            made.append(LinkedMember(number, tuple(own), position in kept, member_args(position)))
        for start in range(0, len(made), per_block):
            self.links.append((first, len(made), start, made[start : start + per_block]))
        return self

    def constant(self, number: int, value: bytes = b"x", keep: bool = False) -> SubmitBuilder:
        """Add a constant."""
        self.objects.append((number, m.INLINE | (m.KEEP if keep else 0), None, value))
        return self

    def chunk(self, session: int, known_templates: int = 0) -> m.SubmitChunk:
        """The message. known_templates: how many the session has already."""
        return m.SubmitChunk(
            session=session,
            templates=self.templates,
            tasks=u32(t[0] for t in self.tasks),
            task_templates=u32(known_templates + t[1] for t in self.tasks),
            args=[t[2] for t in self.tasks],
            input_counts=u32(len(t[3]) for t in self.tasks),
            inputs=u32(i for t in self.tasks for i in t[3]),
            output_counts=u32(len(t[4]) for t in self.tasks),
            outputs=u32(o for t in self.tasks for o in t[4]),
            output_flags=b"".join(t[5] for t in self.tasks),
            objects=u32(o[0] for o in self.objects),
            object_flags=bytes(o[1] for o in self.objects),
            object_specs=[o[2] for o in self.objects],
            values=[o[3] for o in self.objects if o[1] & (m.INLINE | m.SAME)],
        )

    def messages(self, session: int, known_templates: int = 0) -> list[m.SubmitChunk | m.SubmitBlock]:
        """The chunk, the blocks and the linked blocks."""
        found: list[m.SubmitChunk | m.SubmitBlock] = [self.chunk(session, known_templates)]
        starts: dict[int, int] = {}
        for template, first, members, inputs, keep, args in self.blocks:
            start = starts.get(first, 0)
            starts[first] = start + len(args)
            sizes = u32(map(len, args))
            number = known_templates + template
            found.append(
                m.SubmitBlock(session, [], number, first, members, start, u32(inputs), keep, b"".join(args), sizes)
            )
        for first, members, start, chosen in self.links:
            numbered = [replace(member, template=known_templates + member.template) for member in chosen]
            found.append(linked_block(session, [], first, members, start, numbered))
        return found


def member_args(index: int) -> bytes:
    """The packed arguments of a member that `SubmitBuilder.array` made."""
    packed: bytes = msgpack.packb(([index], {}))
    return packed


class ServerStory:
    """A core with scripted peers; `sanity_check` runs after every step.

    Args:
        options: of the core.

    Attributes:
        records: what was recorded for the event log.
        runs: the last run that was assigned, by session and task.
        members, outputs: number of members of the block (0 for a task), and of outputs, assigned in it.
    """

    def __init__(self, **options: Any) -> None:
        self.core = ServerCore(CoreOptions(**options))
        self.now = 100.0
        self.sent: dict[int, list[m.Message]] = {}
        self.other_actions: list[ServerAction] = []
        self.records: list[EventRecord] = []
        self.runs: dict[tuple[int, int], int] = {}
        self.members: dict[tuple[int, int], int] = {}
        self.outputs: dict[tuple[int, int], int] = {}
        self._next_peer = 1
        self._seq = 0

    def step(self, *events: ServerEvent) -> None:
        """Give a batch of events to the core and sort what it does."""
        for action in self.core.handle(list(events), self.now):
            if isinstance(action, Send):
                self.sent.setdefault(action.peer, []).append(action.message)
                if isinstance(action.message, m.AssignTasks):
                    self._note_assigned(action.message)
            elif isinstance(action, Record):
                self.records.append(action.record)
            else:
                self.other_actions.append(action)
        self.core.sanity_check()

    def _note_assigned(self, message: m.AssignTasks) -> None:
        members = message.members or u32([0]) * len(message.tasks)
        columns = zip(message.tasks, message.runs, members, message.output_counts, strict=True)
        for task, run, count, outputs in columns:
            self.runs[message.session, task] = run
            self.members[message.session, task] = count
            self.outputs[message.session, task] = outputs

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a tick every half second."""
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            self.step(Tick())

    def say(self, peer: int, *messages: m.Message) -> None:
        """Messages of a peer arrive in one batch."""
        self.step(*[PeerSaid(peer, message) for message in messages])

    def take(self, peer: int, kind: type[MessageType]) -> list[MessageType]:
        """Take all messages of a kind sent to a peer."""
        kept: list[m.Message] = []
        taken: list[MessageType] = []
        for message in self.sent.get(peer, []):
            if isinstance(message, kind):
                taken.append(message)
            else:
                kept.append(message)
        self.sent[peer] = kept
        return taken

    def take_one(self, peer: int, kind: type[MessageType]) -> MessageType:
        """Take the only message of a kind sent to a peer."""
        (message,) = self.take(peer, kind)
        return message

    def assert_nothing_unread(self) -> None:
        """Fails if a message was sent that no one looked at."""
        unread = {peer: messages for peer, messages in self.sent.items() if messages}
        assert not unread, f"unread messages: {unread}"

    # --- peers ---

    def client(self) -> int:
        """A client joins."""
        return self._join("client")

    def _join(self, role: Any) -> int:
        peer = self._next_peer
        self._next_peer += 1
        self.step(PeerJoined(peer, role, f"10.0.0.{peer}:1000", "10.0.0.99:7210", "3.11.7"))
        return peer

    def worker(self, cpus: int = 1, **resources: Any) -> int:
        """A worker joins and registers; its id is `10.0.0.<peer>:9000`."""
        peer = self._join("worker")
        self.say(peer, m.WorkerHello("0.0.0.0:9000", {"cpus": cpus, **resources}, "host", 1, "3.11.7"))
        self.take_one(peer, m.WorkerWelcome)
        return peer

    def leave(self, peer: int, reason: str = "connection lost") -> None:
        """A connection ends."""
        self.sent.pop(peer, None)
        self.step(PeerLeft(peer, reason))

    # --- clients ---

    def seq(self) -> int:
        """A fresh request number."""
        self._seq += 1
        return self._seq

    def session(self, client: int) -> int:
        """The client opens a session."""
        self.say(client, m.NewSession(self.seq(), "test", "fail", False))
        return self.take_one(client, m.SessionCreated).session

    def submit(self, client: int, session: int, builder: SubmitBuilder) -> None:
        """Submit, which must be accepted."""
        self._say_submit(client, session, builder)
        self.take_one(client, m.Accepted)

    def submit_refused(self, client: int, session: int, builder: SubmitBuilder) -> str:
        """Submit, which must be refused; returns the text."""
        self._say_submit(client, session, builder)
        failure = self.failure(client)
        assert failure.kind == "invalid"
        return failure.message

    def _say_submit(self, client: int, session: int, builder: SubmitBuilder) -> None:
        messages = builder.messages(session, len(self.record(session).templates))
        self.say(client, *messages, m.SubmitCommit(self.seq(), session, False))

    def failure(self, client: int) -> Failure:
        """The failure of the only request refused."""
        return Failure.from_map(self.take_one(client, m.Refused).failure)

    # --- workers ---

    def assigned(self, worker: int) -> list[int]:
        """Tasks newly assigned to a worker, in order."""
        return [task for message in self.take(worker, m.AssignTasks) for task in message.tasks]

    def done(self, worker: int, session: int, *tasks: int, size: int = 1, seconds: float = 0.2) -> None:
        """The worker reports the current runs of these tasks as finished; outputs of `size` bytes."""
        runs = u32(self.runs[session, task] for task in tasks)
        sizes = array("Q", [size] * sum(self.outputs[session, task] for task in tasks))
        starts, durations = array("d", [1.0] * len(tasks)), array("d", [seconds] * len(tasks))
        self.say(worker, m.TasksDone(session, u32(tasks), runs, starts, durations, [], sizes, [], []))

    def blocks(self, worker: int) -> list[tuple[int, int]]:
        """First task and number of members of what was newly assigned to a worker, in order; 0 members for a task."""
        found: list[tuple[int, int]] = []
        for message in self.take(worker, m.AssignTasks):
            found += zip(message.tasks, message.members or u32([0]) * len(message.tasks), strict=True)
        return found

    def block_done(
        self, worker: int, session: int, task: int, result: BlockResult | None = None, size: int = 100_000
    ) -> None:
        """The worker reports the end of the last assigned run of a block.

        Args:
            worker, session, task: whose; the id of the first member's task.
            result: by default all members succeeded.
            size: of the value in the store if the result ends with STORED.
        """
        if result is None:
            result = block_result(self.members[session, task])
        sizes = array("Q", [size] if result.end == STORED else [])
        one, runs, seconds = u32([task]), u32([self.runs[session, task]]), array("d", [1.0])
        self.say(worker, m.TasksDone(session, one, runs, seconds, seconds, [], sizes, [], [], [result.pack()]))

    def started(self, worker: int, session: int, *tasks: int) -> None:
        """The worker reports the current runs of these tasks as begun."""
        self.say(worker, m.TasksStarted(session, u32(tasks), u32(self.runs[session, task] for task in tasks)))

    def fail(self, worker: int, session: int, task: int, message: str = "boom", **fields: Any) -> None:
        """The worker reports that the current run failed."""
        failure = Failure("task", message, **fields).to_map()
        self.say(worker, m.TaskFailed(session, task, self.runs[session, task], failure, 1.0, 0.1))

    # --- looking in ---

    def record(self, session: int) -> Session:
        """The core's record of a session."""
        return self.core.state.sessions[session]

    def graph(self, session: int) -> Any:
        """The graph of a session."""
        return self.record(session).graph

    def task_state(self, session: int, task: int) -> TaskState:
        """State of a task."""
        return TaskState(self.graph(session).state[task])

    def object_state(self, session: int, obj: int) -> DataObjectState:
        """State of an object."""
        return DataObjectState(self.graph(session).state[obj])
